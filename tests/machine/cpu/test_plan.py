"""From a wish to CPUs and threads."""

from pathlib import Path

import pytest

from edgepack.bundle.manifest import Device
from edgepack.bundle.stages import Use
from edgepack.errors import IntegrityError, UsageError
from edgepack.machine.cpu import plan, topology, tuned
from edgepack.machine.cpu.plan import Wish, make
from edgepack.machine.cpu.topology import Cpu, Topology
from edgepack.runtime.loading import Host


def machine(*kinds: str, threads_a_core: int = 1) -> Topology:
    """CPUs of these kinds; those of a P core share it `threads_a_core` at a time."""
    found = []
    for number, kind in enumerate(kinds):
        first = number - number % threads_a_core if kind == "P" else number
        width = threads_a_core if kind == "P" else 1
        siblings = tuple(range(first, first + width))
        found.append(Cpu(number, kind, 1024 if kind != "E" else 400, None, siblings, ()))
    return Topology(tuple(found))


HYBRID = machine(*"PPPP", *"EEEE", threads_a_core=2)
PLAIN = machine("U", "U", "U", "U")
ALL = range(8)


def test_one_thread_a_core_on_all_that_is_allowed() -> None:
    made = make(HYBRID, ALL, None)
    assert made.cpus == tuple(ALL)
    assert made.threads == 6  # two P cores of two threads, four E cores
    assert not made.pinned
    assert made.kind == ""


@pytest.mark.parametrize(
    ("word", "cpus", "kind"),
    [("performance", (0, 2), "P"), ("efficiency", (4, 5, 6, 7), "E"), ("0,4-5", (0, 4, 5), "")],
)
def test_classes_and_lists(word: str, cpus: tuple[int, ...], kind: str) -> None:
    made = make(HYBRID, ALL, None, Wish(word))
    assert made.cpus == cpus
    assert made.threads == len(cpus)
    assert made.kind == kind
    assert made.pinned


def test_prime_is_the_fastest_class() -> None:
    assert make(HYBRID, ALL, None, Wish("prime")).cpus == (0, 2)


@pytest.mark.parametrize(("share", "threads"), [(1.5, 1), (2.0, 2), (0.5, 1), (9.0, 4)])
def test_a_quota_limits_threads(share: float, threads: int) -> None:
    made = make(PLAIN, range(4), share)
    assert made.threads == threads
    assert bool(made.notes) == (threads < 4)


def test_a_quota_of_one_and_a_half_and_two_threads_is_told() -> None:
    (note,) = make(PLAIN, range(4), 1.5, Wish(threads=2)).notes
    assert "1.5 CPUs: throttled" in note


def test_more_threads_than_cpus_is_told() -> None:
    (note,) = make(PLAIN, range(4), None, Wish("0", threads=3)).notes
    assert note.startswith("3 threads on 1 CPUs")


@pytest.mark.parametrize(
    ("found", "word", "mask", "words"),
    [
        (PLAIN, "efficiency", (0, 1), "all alike; use all, or numbers such as 0"),
        (PLAIN, "7", (0, 1), "CPU 7 is not there or not allowed .* may use 0-1"),
        (PLAIN, "1,7", (0, 1), "CPU 7 is not there"),
        (PLAIN, "fast", (0, 1), "not one of all, performance"),
        (HYBRID, "performance", (4, 5), "may only use CPU 4-5, and 0-3 would be needed"),
    ],
)
def test_what_cannot_be(found: Topology, word: str, mask: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make(found, mask, None, Wish(word))


@pytest.mark.parametrize(
    ("device", "found", "wish"),
    [
        (Device(cpus="performance", threads=4), HYBRID, Wish("performance", most=4)),
        (Device(cpus="performance"), PLAIN, Wish("all")),
        (Device(cpus="all", threads=2), HYBRID, Wish("all", most=2)),
    ],
)
def test_a_targets_wish(device: Device, found: Topology, wish: Wish) -> None:
    assert plan.for_device(device, found) == wish
    assert make(found, ALL if found is HYBRID else range(4), None, wish).threads <= 4


def test_engines_are_set_up_from_the_plan() -> None:
    made = make(HYBRID, ALL, None, Wish("performance", spin=True))
    options = Host("ort", made.threads, made).options("net", Use(role="language_model"))
    assert (options.threads, options.cpus, options.kind, options.spin) == (2, (0, 2), "P", True)
    free = make(HYBRID, ALL, None)
    options = Host("ort", free.threads, free).options("net", Use(role="language_model"))
    assert (options.cpus, options.kind, options.spin) == ((), "", False)


def test_what_was_tuned_is_for_this_machine_and_runtime(tmp_path: Path) -> None:
    here = topology.read()
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    assert tuned.read(bundle, here, "ort") is None
    path = tuned.write(bundle, here, "ort", Wish("all", spin=True), 2)
    tuned.write(bundle, here, "openvino", Wish("0"), 1)
    assert path.parent == tmp_path  # beside the bundle, which is not changed
    assert not list(bundle.iterdir())
    assert tuned.read(bundle, here, "ort") == Wish("all", 2, spin=True)
    assert tuned.read(bundle, here, "openvino") == Wish("0", 1)
    assert tuned.read(bundle, HYBRID, "ort") is None
    tuned.write(bundle, here, "ort", Wish("0"), 1)
    assert tuned.read(bundle, here, "ort") == Wish("0", 1)
    tuned.write(bundle, here, "ort", Wish("0", overlap=False), 1)
    assert tuned.read(bundle, here, "ort") == Wish("0", 1, overlap=False)
    path.write_text("{")
    with pytest.raises(IntegrityError, match="not a plan of 'edgepack tune'"):
        tuned.read(bundle, here, "ort")


@pytest.mark.parametrize("threads", [0, -1, 10**6])
def test_threads_that_no_engine_could_have_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match="give a number from 1 to 1024"):
        make(PLAIN, range(4), None, Wish(threads=threads))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpus", b'"0-99999999999"'),
        ("cpus", b'"9999"'),
        ("cpus", b'"\xff"'),
        ("cpus", b'""'),
        ("threads", b"1000000"),
        ("threads", b"0"),
        ("threads", b"1e999"),
        ("threads", b"NaN"),
        ("spin", b"["),
        ("spin", b"[" * 100_000),
    ],
)
def test_a_tuned_plan_that_cannot_be_is_no_plan(tmp_path: Path, field: str, value: bytes) -> None:
    here = topology.read()
    bundle = tmp_path / "bundle"
    path = tuned.write(bundle, here, "ort", Wish("all"), 1)
    whole = {"cpus": b'"all"', "threads": b"1", "spin": b"false"}
    old = b'"%s": %s' % (field.encode(), whole[field])
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, b'"%s": %s' % (field.encode(), value)))
    with pytest.raises(IntegrityError, match="not a plan of 'edgepack tune'"):
        tuned.read(bundle, here, "ort")
    tuned.write(bundle, here, "ort", Wish("all"), 1)  # is replaced all the same
    assert tuned.read(bundle, here, "ort") == Wish("all", 1)


def test_decoding_ahead_is_for_threads_that_sleep() -> None:
    assert make(PLAIN, range(4), None, Wish(threads=2)).overlap
    assert not make(PLAIN, range(4), None, Wish(threads=1)).overlap
    assert not make(PLAIN, range(4), None, Wish(threads=2, spin=True)).overlap
    assert make(PLAIN, range(4), None, Wish(threads=2, spin=True, overlap=True)).overlap
    assert not make(PLAIN, range(4), None, Wish(threads=2, overlap=False)).overlap
