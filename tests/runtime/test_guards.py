"""Faults of audio, memory of the process, and watching network calls."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import Fake

from edgepack.errors import ResourceError
from edgepack.machine import memory
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.engines.watch import Clock, Recorder, Watched
from edgepack.runtime.guards import faults, least

SPEECH = np.array([0.3, -0.5, 0.0011], np.float32)


def found(audio: np.ndarray = SPEECH, *, ended: bool = True, tokens: int = 20) -> list[str]:
    return faults(audio, ended=ended, text_tokens=4, speech_tokens=tokens)


@pytest.mark.parametrize("audio", [SPEECH, np.array([0, -0.0011]), np.array([0.99, -0.99])])
def test_fine_audio_has_no_fault(audio: np.ndarray) -> None:
    assert found(audio) == []


@pytest.mark.parametrize("audio", [np.zeros(9), np.array([0.0009, -0.0009])])
def test_silence_is_a_fault(audio: np.ndarray) -> None:
    (fault,) = found(audio)
    assert fault.startswith("silence: no sample above -60 dB")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_sample_that_is_not_finite_is_a_fault(bad: float) -> None:
    (fault,) = found(np.array([0.5, bad, 0.1]))
    assert fault.startswith("the vocoder gave NaN or infinite samples")


def test_no_end_is_a_fault() -> None:
    (fault,) = found(ended=False, tokens=80)
    assert fault.startswith("runaway: 80 speech tokens for 4 text tokens without an end")


def test_far_too_little_speech_for_a_text_is_a_fault() -> None:
    (fault,) = faults(SPEECH, ended=True, text_tokens=400, speech_tokens=10)
    assert fault.startswith("too short: 10 speech tokens for 400 text tokens")
    assert faults(SPEECH, ended=True, text_tokens=400, speech_tokens=400) == []
    assert faults(SPEECH, ended=True, text_tokens=19, speech_tokens=1) == []


def test_an_early_end_is_a_fault() -> None:
    (fault,) = faults(SPEECH, ended=True, text_tokens=30, speech_tokens=7, least=60)
    assert fault.startswith("ended early: 7 of at least 60 tokens")
    assert faults(SPEECH, ended=True, text_tokens=30, speech_tokens=60, least=60) == []
    (none,) = faults(SPEECH, ended=True, text_tokens=30, speech_tokens=0, least=60)
    assert none.startswith("no speech")


def test_the_least_length_follows_what_the_exam_heard() -> None:
    assert least(30, 2.0) == 60
    assert least(30, 2.0, seen=5.0) == 75
    assert least(30, 2.0, seen=3.0) == 60
    assert least(5, 2.0, seen=50.0) == 10  # of few tokens it proves nothing
    assert least(30, 0.0) == 0


def test_what_needs_more_memory_than_there_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable:   2000 kB\n")
    monkeypatch.setattr("psutil.PROCFS_PATH", str(tmp_path))
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    memory.require(2_000_000, None, "it")
    with pytest.raises(ResourceError, match="it needs about 3 MB of memory, and there are 2 MB"):
        memory.require(3_000_000, None, "it")
    with pytest.raises(ResourceError, match="and there are 1 MB"):
        memory.require(2_000_000, 1_000_000, "it")
    (tmp_path / "memory.max").write_text("1500000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    assert memory.available_bytes() == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() == 2000 * 1024
    meminfo.unlink()
    assert memory.available_bytes() is None
    memory.require(1 << 60, None, "it")


def test_no_speech_is_a_fault() -> None:
    (fault,) = found(np.zeros(0), tokens=0)
    assert fault.startswith("no speech: the language model ended at once")


def test_every_fault_is_named() -> None:
    assert [fault.split(":")[0] for fault in found(np.zeros(9), ended=False)] == [
        "runaway",
        "silence",
    ]


def measured(script: str, *arguments: str) -> list[int]:
    """The numbers that a process of its own prints."""
    command = [sys.executable, "-c", script, *arguments]
    return [int(number) for number in subprocess.check_output(command).split()]


def test_peak_memory_stays_after_a_block_is_freed() -> None:
    before, block, after, resident = measured("""
import psutil
from edgepack.machine.memory import peak_rss_bytes

print(peak_rss_bytes())
block = b"x" * (100 << 20)
print(len(block))
del block
print(peak_rss_bytes())
print(psutil.Process().memory_info().rss)
""")
    assert before + 0.9 * block < after < before + 1.3 * block
    assert resident < after - 0.9 * block


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no mallopt")
def test_freed_blocks_go_back_to_the_system() -> None:
    script = """
import ctypes
import sys
import psutil
from edgepack.machine.memory import return_large_blocks

if sys.argv[1] == "returned":
    return_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))  # by default, blocks up to this size now stay
blocks = [libc.malloc(1 << 20) for _ in range(60)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
libc.malloc(1 << 20)  # above them, so that the heap cannot shrink
for block in blocks:
    libc.free(block)
print(psutil.Process().memory_info().rss)
"""
    (kept,), (returned,) = (measured(script, how) for how in ("kept", "returned"))
    assert returned < kept - (40 << 20)


def double(feeds: Feeds) -> dict[str, np.ndarray]:
    return {"y": feeds["x"] * 2}


def test_a_watched_session_is_the_session() -> None:
    inner = Fake(double)
    watched = Watched("stage", inner, [])
    assert watched.run({"x": np.array([4])})["y"].tolist() == [8]
    watched.reset()
    assert inner.resets == 1
    assert watched.caches() == {"calls": 1}


def test_every_watcher_is_told_of_every_call() -> None:
    told: list[tuple[str, int, int]] = []

    def watch(stage: str, seconds: float, feeds: Feeds, outputs: dict[str, np.ndarray]) -> None:
        assert 0 <= seconds < 1
        told.append((stage, int(feeds["x"]), int(outputs["y"])))

    watched = Watched("stage", Fake(double), [watch, watch])
    watched.run({"x": np.array(1)})
    watched.run({"x": np.array(2)})
    assert told == [("stage", 1, 2)] * 2 + [("stage", 2, 4)] * 2


def test_clock_adds_up_by_stage() -> None:
    clock = Clock()
    for stage, seconds in (("a", 1.0), ("b", 0.5), ("a", 2.0)):
        clock(stage, seconds, {}, {})
    assert clock.seconds == {"a": 3.0, "b": 0.5}


def test_recorder_keeps_copies_of_every_call(tmp_path: Path) -> None:
    recorder = Recorder()
    x = np.array([1.0, 2.0])
    for stage in ("a", "a", "b"):
        Watched(stage, Fake(double), [recorder]).run({"x": x})
        x += 10
    recorder.save(tmp_path / "new" / "folder")
    saved: dict[tuple[str, str], list[float]] = {}
    for path in (tmp_path / "new" / "folder").iterdir():
        with np.load(path, allow_pickle=False) as arrays:
            saved |= {(path.name, name): arrays[name].tolist() for name in arrays.files}
    assert saved == {
        ("a.npz", "0000.x"): [1, 2],
        ("a.npz", "0000.y"): [2, 4],
        ("a.npz", "0001.x"): [11, 12],
        ("a.npz", "0001.y"): [22, 24],
        ("b.npz", "0000.x"): [21, 22],
        ("b.npz", "0000.y"): [42, 44],
    }
