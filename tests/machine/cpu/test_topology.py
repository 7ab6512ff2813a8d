"""CPUs of machines as they describe themselves in sysfs."""

from pathlib import Path

import pytest
from trees import cpus, grow

from edgepack.machine.cpu import isa, lists, topology


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-3,8", (0, 1, 2, 3, 8)), ("5", (5,)), ("", ()), ("0\n", (0,))]
)
def test_lists_of_the_kernel(text: str, numbers: tuple[int, ...]) -> None:
    assert lists.parse(text) == numbers
    assert lists.parse(lists.show(numbers)) == numbers


def test_lists_are_shown_short() -> None:
    assert lists.show([3, 1, 0, 2, 8]) == "0-3,8"
    with pytest.raises(ValueError, match="x"):
        lists.parse("0,x")


@pytest.mark.parametrize(
    "text", ["0-99999999999", "0-99999", "-1", "1-", "1--2", "٣", "1_0", "+1", "9" * 5000, "\udcff"]
)
def test_what_is_no_list_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="no number or range of CPUs"):
        lists.parse(text)


def siblings(number: int) -> str:
    """Two P cores of two threads each, then four E cores."""
    return f"{number - number % 2}-{number - number % 2 + 1}" if number < 4 else str(number)


def test_intel_hybrid(tmp_path: Path) -> None:
    pmu = "sys/bus/event_source/devices"
    root = grow(
        tmp_path,
        {
            **cpus(8, topology__thread_siblings_list=siblings, cpu_capacity=1024),
            f"{pmu}/cpu_core/cpus": "0-3",
            f"{pmu}/cpu_atom/cpus": "4-7",
        },
    )
    found = topology.read(root)
    assert found.kinds == {"P": (0, 1, 2, 3), "E": (4, 5, 6, 7)}
    assert found.one_per_core(range(8)) == (0, 2, 4, 5, 6, 7)


def test_low_power_island(tmp_path: Path) -> None:
    pmus = {"cpu_core": "0-1", "cpu_atom": "2-3", "cpu_lowpower": "4"}
    root = grow(
        tmp_path, {**cpus(5), **{f"sys/devices/{n}/cpus": text for n, text in pmus.items()}}
    )
    assert topology.read(root).kinds == {"P": (0, 1), "E": (2, 3), "LPE": (4,)}


def test_phone_of_three_clusters(tmp_path: Path) -> None:
    root = grow(
        tmp_path,
        cpus(8, cpu_capacity=lambda n: 250 if n < 4 else 620 if n < 7 else 1024),
    )
    found = topology.read(root)
    assert found.kinds == {"P": (4, 5, 6, 7), "E": (0, 1, 2, 3)}
    assert found.prime() == (7,)
    assert [c.capacity for c in found.cpus][4] == 620


def test_big_little_board(tmp_path: Path) -> None:
    root = grow(
        tmp_path,
        cpus(
            8,
            cpu_capacity=lambda n: 414 if n < 4 else 1024,
            cpufreq__cpuinfo_max_freq=lambda n: 1_800_000 if n < 4 else 2_400_000,
        ),
    )
    assert topology.read(root).kinds == {"P": (4, 5, 6, 7), "E": (0, 1, 2, 3)}


def test_equal_capacities_are_no_classes(tmp_path: Path) -> None:
    found = topology.read(grow(tmp_path, cpus(2, cpu_capacity=1024)))
    assert found.kinds == {"U": (0, 1)}


def test_turbo_bins_are_no_classes(tmp_path: Path) -> None:
    frequencies = [5_000_000, 5_000_000, 4_900_000, 4_900_000]
    root = grow(tmp_path, cpus(4, cpufreq__cpuinfo_max_freq=lambda n: frequencies[n]))
    assert topology.read(root).kinds == {"U": (0, 1, 2, 3)}


def test_frequencies_tell_where_capacities_do_not(tmp_path: Path) -> None:
    root = grow(
        tmp_path, cpus(6, cpufreq__cpuinfo_max_freq=lambda n: 4_800_000 if n < 2 else 3_600_000)
    )
    assert topology.read(root).kinds == {"P": (0, 1), "E": (2, 3, 4, 5)}


def test_last_cache(tmp_path: Path) -> None:
    base = "sys/devices/system/cpu/cpu0/cache"
    caches = {
        f"{base}/index0/level": 1, f"{base}/index0/type": "Data",
        f"{base}/index0/shared_cpu_list": "0",
        f"{base}/index1/level": 1, f"{base}/index1/type": "Instruction",
        f"{base}/index1/shared_cpu_list": "0",
        f"{base}/index3/level": 3, f"{base}/index3/type": "Unified",
        f"{base}/index3/shared_cpu_list": "0-1",
    }  # fmt: skip
    found = topology.read(grow(tmp_path, {**cpus(2), **caches}))
    assert found.cpus[0].neighbours == (0, 1)
    assert found.cpus[1].neighbours == ()


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    assert topology.read(tmp_path).cpus == ()
    assert isa.read(tmp_path) == ()
    assert isa.model(tmp_path) == ""


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("flags\t: fpu avx2 avx_vnni\nflags\t: fpu avx2", ("avx2",)),
        ("flags\t: avx2 avx512f avx512_vnni amx_tile amx_int8",
         ("avx2", "avx512", "avx512_vnni", "amx", "amx_int8")),
        ("Features\t: fp asimd asimddp i8mm asimdhp", ("neon", "dotprod", "i8mm", "fp16")),
        ("Features\t: fp asimd evtstrm crc32", ("neon",)),
    ],
)  # fmt: skip
def test_instruction_sets(tmp_path: Path, text: str, sets: tuple[str, ...]) -> None:
    assert isa.read(grow(tmp_path, {"proc/cpuinfo": text})) == sets


def test_a_list_that_names_every_cpu_again_and_again_is_refused() -> None:
    with pytest.raises(ValueError, match="too many CPUs"):
        lists.parse(",".join(["0-9999"] * 18_000))
    assert len(lists.parse(",".join(str(n) for n in range(0, 8192, 2)))) == 4096


def test_where_nothing_is_told_psutil_counts() -> None:
    uniform, hybrid = topology.counted(8, 4), topology.counted(24, 16)
    assert uniform.one_per_core(range(8)) == (0, 2, 4, 6)
    assert len(hybrid.one_per_core(range(24))) == 16
    assert hybrid.one_per_core(range(14, 18)) == (14, 16, 17)
    assert len(topology.counted(8, None).one_per_core(range(8))) == 8
    assert len(topology.counted(8, 8).one_per_core(range(8))) == 8
