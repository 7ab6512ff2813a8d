"""What is kept of prompts: computed once, checked when read, bounded, written by several."""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import RUNTIMES

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.loading import load
from edgepack.runtime.stages import prompts
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.stages.prompts import Prompts
from edgepack.runtime.synthesizer import LoadOptions, Settings, Synthesizer

SPOKEN = "明天见。"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_prompt_is_computed_once_and_mapped_from_a_file(voiced: Bundle, runtime: str) -> None:
    def decoder_calls(folder: Path) -> tuple[list[int], np.ndarray]:
        lengths: list[int] = []

        def watch(stage: str, seconds: float, feeds: Feeds, outputs: dict[str, np.ndarray]) -> None:
            if stage == "speech_lm":
                lengths.append(feeds["embeddings"].shape[1])

        synthesizer = Synthesizer.load(folder, runtime, 2, options=LoadOptions(watchers=[watch]))
        found = synthesizer.speak(SPOKEN, Settings(voice="cloned", seed=1)).audio
        return [n for n in lengths if n > 1], found

    first, one = decoder_calls(voiced.folder)
    (file,) = prompts.place(voiced.folder).iterdir()
    written = file.stat().st_ino
    second, other = decoder_calls(voiced.folder)
    prompt = voices.read(voiced, "cloned")[1].prompt
    assert prompt
    assert first == [1 + len(prompt.text), *second]
    assert len(second) == 1
    assert file.stat().st_ino == written
    np.testing.assert_array_equal(one, other)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def nonsense(file: Path) -> None:
    file.write_bytes(b"\x93NUMPY nonsense")


def other_shape(file: Path) -> None:
    file.write_bytes(np.zeros((2, 3), np.float32).tobytes() + bytes(32))


def an_archive(file: Path) -> None:
    file.write_bytes(b"PK\3\4 and no archive")


def other_numbers(file: Path) -> None:
    """One byte in the middle, which type and shape do not show."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x40
    file.write_bytes(data)


def without_hash(file: Path) -> None:
    """As an older version wrote it."""
    file.write_bytes(file.read_bytes()[:-32])


@pytest.mark.parametrize(
    "damage", [emptied, nonsense, an_archive, other_shape, other_numbers, without_hash]
)
def test_a_file_that_is_no_use_is_replaced(voiced: Bundle, damage: Callable[[Path], None]) -> None:
    settings = Settings(voice="cloned", seed=1)
    wanted = Synthesizer.load(voiced.folder, "ort", 2).speak(SPOKEN, settings).audio
    (file,) = prompts.place(voiced.folder).iterdir()
    good = file.read_bytes()
    damage(file)
    found = Synthesizer.load(voiced.folder, "ort", 2).speak(SPOKEN, settings).audio
    np.testing.assert_array_equal(found, wanted)
    assert file.read_bytes() == good


def test_where_nothing_can_be_written_prompts_are_computed(
    voiced: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, rows: np.ndarray) -> None:
        raise PermissionError(path)

    settings = Settings(voice="cloned", seed=1)
    wanted = Synthesizer.load(voiced.folder, "ort", 2).speak(SPOKEN, settings).audio
    for file in prompts.place(voiced.folder).iterdir():
        file.unlink()
    monkeypatch.setattr(prompts, "_write", refused)
    found = Synthesizer.load(voiced.folder, "ort", 2).speak(SPOKEN, settings).audio
    np.testing.assert_array_equal(found, wanted)
    assert list(prompts.place(voiced.folder).iterdir()) == []


@pytest.mark.parametrize("bound", ["number", "bytes"])
def test_what_was_used_longest_ago_goes(
    voiced: Bundle, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    loaded = load(voiced.folder, "ort", 1)
    folder = prompts.place(voiced.folder)

    def begun(token: int) -> Path:
        kept = Prompts(loaded.bundle, "ort")
        time.sleep(0.01)
        kept.begun(loaded.decoder, Context([token]))
        return folder / kept._name([token])

    first, second, third = (begun(token) for token in (1, 2, 3))
    size = first.stat().st_size
    if bound == "number":
        monkeypatch.setattr(prompts, "_MOST", 3)
    else:
        monkeypatch.setattr(prompts, "_MOST_BYTES", 3 * size)
    left = folder / ".x.tmp"
    left.write_bytes(b"of a process that was killed")
    os.utime(left, (0, 0))
    begun(1)  # is used again
    fourth = begun(4)
    assert second not in set(folder.iterdir())
    assert set(folder.iterdir()) == {first, third, fourth}


def test_memory_has_a_bound_too(voiced: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "_MOST", 2)
    loaded = load(voiced.folder, "ort", 1)
    kept = Prompts(loaded.bundle, "ort")
    for token in (1, 2, 1, 3):
        kept.begun(loaded.decoder, Context([token]))
    assert list(kept._known) == [(1,), (3,)]


def write_often(path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(prompts._write, [path] * 60, (np.full(5000, n) for n in range(60))))


def test_several_processes_may_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts" / "a.f32"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        waiting = [pool.submit(write_often, path) for _ in range(2)]
        while not all(one.done() for one in waiting):
            if path.exists():
                assert len(set(np.fromfile(path, np.int64, 5000))) == 1
        for one in waiting:
            one.result()
    assert list(path.parent.iterdir()) == [path]
