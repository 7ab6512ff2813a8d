"""Meters that count: RAPL by powercap and perf, NVML, phones, hwmon; on trees of files."""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from trees import grow

from edgepack.bundle.manifest import Device, Sensor
from edgepack.energy import measurement
from edgepack.energy.meter import CounterWindow, meter
from edgepack.energy.meters.perf import METER as PERF
from edgepack.machine.probe import UnusableError
from energy.fakes import Time, machine, polled, rising

ZONES = "sys/class/powercap"
RANGE = 262_143_328_850


def zone(name: str, label: str, count: int = 5_000_000, most: int = RANGE) -> dict[str, object]:
    return {
        f"{ZONES}/{name}/name": label,
        f"{ZONES}/{name}/energy_uj": count,
        f"{ZONES}/{name}/max_energy_range_uj": most,
    }


SERVER = {
    **zone("intel-rapl:0", "package-0"),
    **zone("intel-rapl:0:0", "core"),
    **zone("intel-rapl:0:1", "dram"),
    **zone("intel-rapl:1", "psys"),
    **zone("intel-rapl-mmio:0", "package-0"),
}


@pytest.mark.parametrize(
    ("scope", "zones"),
    [
        ("", ["intel-rapl:0"]),
        ("package+dram", ["intel-rapl:0", "intel-rapl:0:1"]),
        ("psys", ["intel-rapl:1"]),
    ],
)
def test_rapl_never_adds_a_part_to_its_whole(tmp_path: Path, scope: str, zones: list[str]) -> None:
    found = meter("rapl").open(machine(grow(tmp_path, SERVER)), Device(scope=scope), "")
    assert [part.split("/")[-2] for part in found.source.split(", ")] == zones
    assert found.scope == (scope or "package")


def test_rapl_of_a_mirror_alone(tmp_path: Path) -> None:
    files = zone("intel-rapl-mmio:0", "package-0")
    found = meter("rapl").open(machine(grow(tmp_path, files)), Device(), "")
    assert "intel-rapl-mmio:0" in found.source


def test_rapl_zone_numbers_are_hexadecimal(tmp_path: Path) -> None:
    files = zone("intel-rapl:a", "package-10")
    assert "intel-rapl:a" in meter("rapl").open(machine(grow(tmp_path, files)), Device(), "").source


def test_rapl_counter_wraps_at_its_range(tmp_path: Path) -> None:
    path = grow(tmp_path, zone("intel-rapl:0", "package-0", 262_143_000_000)) / ZONES
    instrument = meter("rapl").open(machine(tmp_path), Device(), "")
    window = instrument.window()
    window.poll(0.0)
    (path / "intel-rapl:0" / "energy_uj").write_text("1000000")
    window.poll(1.0)
    assert window.joules == pytest.approx(1_328_850e-6, abs=1e-9)
    assert window.wraps == 1
    assert window.flags == []


def test_a_step_back_without_a_range_is_left_out_and_flagged(tmp_path: Path) -> None:
    path = grow(tmp_path, zone("intel-rapl:0", "package-0", 9_000_000, most=0)) / ZONES
    window = meter("rapl").open(machine(tmp_path), Device(), "").window()
    for count in (9_000_000, 9_500_000, 1_000, 2_000):
        (path / "intel-rapl:0" / "energy_uj").write_text(str(count))
        window.poll(0.0)
    assert window.joules == pytest.approx(0.501, abs=1e-9)
    assert window.flags == ["counter_reset"]


def test_two_packages_that_show_one_counter_are_one(tmp_path: Path) -> None:
    time = Time()
    files = {**zone("intel-rapl:0", "package-0"), **zone("intel-rapl:1", "package-1")}
    base = grow(tmp_path, files) / ZONES
    for name in ("intel-rapl:0", "intel-rapl:1"):
        rising(base / name / "energy_uj", 700_000, time)
    instrument = meter("rapl").open(machine(tmp_path, time), Device(), "")
    assert "intel-rapl:1" not in instrument.source
    window = polled(instrument, time, 0.1, 10)
    assert window.joules == pytest.approx(7.0, abs=1e-9)


def test_two_packages_of_their_own_are_added(tmp_path: Path) -> None:
    time = Time()
    files = {**zone("intel-rapl:0", "package-0"), **zone("intel-rapl:1", "package-1")}
    base = grow(tmp_path, files) / ZONES
    rising(base / "intel-rapl:0" / "energy_uj", 700_000, time, start=5_000_000)
    rising(base / "intel-rapl:1" / "energy_uj", 300_000, time, start=90_000_000)
    instrument = meter("rapl").open(machine(tmp_path, time), Device(), "")
    assert polled(instrument, time, 0.1, 10).joules == pytest.approx(10.0, abs=1e-9)


def test_a_frozen_counter_is_not_usable(tmp_path: Path) -> None:
    here = machine(grow(tmp_path, SERVER))
    with pytest.raises(UnusableError, match="the value does not advance"):
        measurement.usable("rapl", here, Device())


def test_a_container_that_masks_the_zones(tmp_path: Path) -> None:
    (tmp_path / ZONES).mkdir(parents=True)
    (tmp_path / ZONES / "intel-rapl:0").symlink_to(tmp_path / "sys/devices/virtual/nothing")
    with pytest.raises(UnusableError, match="masked by the container"):
        meter("rapl").open(machine(tmp_path), Device(), "")


def test_a_counter_for_root_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine(grow(tmp_path, SERVER))
    read = Path.read_text

    def refused(self: Path, *rest: str) -> str:
        if self.name == "energy_uj":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(self, *rest)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(UnusableError, match=r"root only \(CVE-2020-8694\).*chmod a\+r"):
        meter("rapl").open(here, Device(), "")


def test_a_virtual_machine_has_no_zones(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="no RAPL zones"):
        meter("rapl").open(machine(tmp_path), Device(), "")


PMU = "sys/bus/event_source/devices/power"
SCALE = "2.3283064365386962890625e-10"
POWER = {
    f"{PMU}/type": 23,
    f"{PMU}/cpumask": "0,32",
    f"{PMU}/events/energy-pkg": "event=0x02",
    f"{PMU}/events/energy-pkg.scale": SCALE,
    f"{PMU}/events/energy-ram": "event=0x03",
    f"{PMU}/events/energy-ram.scale": SCALE,
}


@pytest.mark.parametrize(("scope", "events"), [("", [2]), ("package+dram", [2, 3])])
def test_perf_opens_each_event_on_each_package(
    tmp_path: Path, scope: str, events: list[int]
) -> None:
    opened: list[tuple[int, int, int]] = []
    values: Iterator[int] = iter(range(0, 10**15, 2**32))

    def open_event(kind: int, config: int, cpu: int):  # type: ignore[no-untyped-def]
        opened.append((kind, config, cpu))
        return lambda: next(values)

    here = machine(grow(tmp_path, POWER))
    instrument = type(PERF)(opened=open_event).open(here, Device(scope=scope), "")
    assert opened == [(23, event, cpu) for event in events for cpu in (0, 32)]
    window = instrument.window()
    window.poll(0.0)
    window.poll(1.0)
    counters = len(opened)  # each went on by as many steps as there are counters, of 1 J
    assert window.joules == pytest.approx(counters * counters, abs=1e-9)


def test_perf_counters_that_stay_at_zero_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "edgepack.energy.meters.perf.METER", type(PERF)(opened=lambda *_: lambda: 0)
    )
    with pytest.raises(UnusableError, match="the value does not advance"):
        measurement.usable("perf", machine(grow(tmp_path, POWER)), Device())


def test_perf_with_only_what_a_hypervisor_leaves(tmp_path: Path) -> None:
    files = {f"{PMU}/type": 23, f"{PMU}/events/energy-psys": "event=0x05"}
    with pytest.raises(UnusableError, match="no energy-pkg"):
        meter("perf").open(machine(grow(tmp_path, files)), Device(), "")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EINVAL])
def test_perf_that_is_refused(tmp_path: Path, code: int) -> None:
    def refuse(*_: int) -> object:
        raise OSError(code, "no")

    files = {**POWER, "proc/sys/kernel/perf_event_paranoid": 2}
    words = "perf_event_paranoid is 2" if code == errno.EACCES else "perf_event_open: no"
    with pytest.raises(UnusableError, match=words):
        type(PERF)(opened=refuse).open(machine(grow(tmp_path, files)), Device(), "")  # type: ignore[arg-type]


class NVMLError(Exception):
    """What the library raises."""


def nvml(energies: Iterator[int] | None) -> SimpleNamespace:
    def total(board: int) -> int:
        if energies is None:
            raise NVMLError("Not Supported")
        return next(energies)

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )


def test_nvml_counts_millijoules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(iter(range(0, 10**6, 8800))))
    time = Time()
    instrument = meter("nvml").open(machine(tmp_path, time), Device(), "")
    assert instrument.scope == "gpu_board"
    assert polled(instrument, time, 0.1, 20).joules == pytest.approx(176.0, abs=1e-9)


def test_nvml_of_a_jetson_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(None))
    with pytest.raises(UnusableError, match="NVML: Not Supported"):
        meter("nvml").open(machine(tmp_path), Device(), "")


def test_nvml_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UnusableError, match="nvidia-ml-py is missing"):
        meter("nvml").open(machine(tmp_path), Device(), "")


def rails(time: int, *counts: int) -> str:
    names = ("S4M_VDD_CPUCL0", "S3M_VDD_CPUCL1", "S2M_VDD_CPUCL2", "S2S_VDD_G3D")
    pairs = enumerate(zip(names, counts, strict=True))
    lines = [f"CH{n}(T={time})[{name}], {count}" for n, (name, count) in pairs]
    return "\n".join([f"t={time}", *lines])


def test_android_adds_the_rails_of_the_cpu(tmp_path: Path) -> None:
    base = "sys/bus/iio/devices"
    files = {
        f"{base}/iio:device0/energy_value": rails(100, 10, 20, 30, 40),
        f"{base}/iio:device1/energy_value": "t=100\nCH0(T=100)[VSYS_PWR_DISPLAY], 5",
    }
    instrument = meter("android").open(machine(grow(tmp_path, files)), Device(), "")
    assert instrument.scope == "cpu_rails"
    window = instrument.window()
    window.poll(0.0)
    later = tmp_path / base / "iio:device0/energy_value"
    later.write_text(rails(300, 1_000_010, 2_000_020, 3_000_030, 9_000_000))
    window.poll(0.2)
    assert window.joules == pytest.approx(6.0, abs=1e-9)


def test_android_phone_without_rails(tmp_path: Path) -> None:
    files = {"sys/bus/iio/devices/iio:device0/energy_value": "t=1\nCH0(T=1)[VSYS], 5"}
    with pytest.raises(UnusableError, match="no CPU rail"):
        meter("android").open(machine(grow(tmp_path, files)), Device(), "")


HWMON = "sys/class/hwmon"


def test_hwmon_takes_sockets_of_amd(tmp_path: Path) -> None:
    files = {
        f"{HWMON}/hwmon3/name": "amd_energy",
        f"{HWMON}/hwmon3/energy1_input": 100,
        f"{HWMON}/hwmon3/energy1_label": "Ecore000",
        f"{HWMON}/hwmon3/energy65_input": 2_000_000,
        f"{HWMON}/hwmon3/energy65_label": "Esocket0",
    }
    instrument = meter("hwmon").open(machine(grow(tmp_path, files)), Device(), "")
    assert (instrument.scope, instrument.best) == ("package", "measured")
    window = instrument.window()
    window.poll(0.0)
    (tmp_path / HWMON / "hwmon3/energy65_input").write_text("5000000")
    window.poll(1.0)
    assert window.joules == pytest.approx(3.0, abs=1e-9)


def test_hwmon_of_a_board_that_is_known(tmp_path: Path) -> None:
    files = {
        f"{HWMON}/hwmon0/name": "ina226",
        f"{HWMON}/hwmon0/power1_input": 2_500_000,
        f"{HWMON}/hwmon0/power1_label": "VDD_CPU",
        f"{HWMON}/hwmon1/name": "nvme",
        f"{HWMON}/hwmon1/power1_input": 9_000_000,
    }
    here = machine(grow(tmp_path, files))
    known = Device(sensors=(Sensor(name="ina226", label="VDD_CPU", scope="cpu_rails"),))
    instrument = meter("hwmon").open(here, known, "")
    assert (instrument.scope, instrument.best) == ("cpu_rails", "measured_coarse")
    unknown = meter("hwmon").open(here, Device(), "")
    assert (unknown.scope, unknown.best) == ("sum_of_rails", "derived")
    for found, watts in ((instrument, 2.5), (unknown, 11.5)):
        time = Time()
        assert polled(found, time, 0.5, 4).joules == pytest.approx(2 * watts, abs=1e-9)


def test_hwmon_leaves_jetsons_chips_to_their_meter(tmp_path: Path) -> None:
    files = {f"{HWMON}/hwmon0/name": "ina3221", f"{HWMON}/hwmon0/power1_input": 5}
    with pytest.raises(UnusableError, match="no energy or power sensor"):
        meter("hwmon").open(machine(grow(tmp_path, files)), Device(), "")


def test_updates_are_counted_by_poll() -> None:
    counts = iter([1, 1, 2, 2, 2, 5])
    window = CounterWindow(lambda: {"a": next(counts)}, 1.0)
    for _ in range(6):
        window.poll(0.0)
    assert (window.joules, window.updates) == (4.0, 2)
