"""Files about a bundle where nothing can, or may, be written beside it."""

import os
from pathlib import Path

import pytest
from hub_cache import snapshot_of
from linked import linked
from outputs import unchangeable
from support import Build

from edgepack.bundle import beside, measurements
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.machine.cpu import topology, tuned
from edgepack.machine.cpu.plan import Wish
from edgepack.runtime.stages import prompts
from edgepack.runtime.synthesizer import Settings, Synthesizer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgepack" / "bundles"


@pytest.mark.slow
def test_nothing_of_ours_is_in_the_cache_of_a_hub(
    voiced: Bundle, tmp_path: Path, cache: Path
) -> None:
    snapshot = snapshot_of(voiced.folder, tmp_path / "hub")
    files = set((tmp_path / "hub").rglob("*"))
    settings = Settings(voice="cloned", strict=False)
    Synthesizer.load(snapshot, "ort", 1).speak("明天见。", settings)
    tuned.write(snapshot, topology.read(), "ort", Wish("all"), 1)
    assert set((tmp_path / "hub").rglob("*")) == files
    assert {path.name.partition(".")[2] for path in cache.iterdir()} == {"prompts", "tuned.json"}
    assert len(list(prompts.place(snapshot).iterdir())) == 1
    assert tuned.read(snapshot, topology.read(), "ort") == Wish("all", 1)


@pytest.mark.slow
def test_a_bundle_that_others_own(bundle: Build, tmp_path: Path, cache: Path) -> None:
    """What came beside it is read, until there is something newer; two of a name are two."""
    machine = topology.read()
    folders = [linked(bundle("tiny"), tmp_path / name).folder for name in "ab"]
    for folder in folders:
        tuned.write(folder, machine, "ort", Wish("0"), 1)
    measured = measurements.place(folders[0])
    measured.write_bytes(measurements.place(bundle("tiny")).read_bytes())
    with unchangeable(folders[0].parent):
        assert tuned.read(folders[0], machine, "ort") == Wish("0", 1)
        assert measurements.read(open_bundle(folders[0]))
        tuned.require_writable(folders[0])
        tuned.write(folders[0], machine, "ort", Wish("all"), 1)
        assert tuned.read(folders[0], machine, "ort") == Wish("all", 1)
        with unchangeable(folders[1].parent):
            assert beside.place(folders[0], "x") != beside.place(folders[1], "x")
            assert tuned.read(folders[1], machine, "ort") == Wish("0", 1)
        (kept,) = cache.iterdir()
        assert kept.name.startswith(f"{folders[0].name}-")
    assert beside.place(folders[0], "x").parent == folders[0].parent


def test_a_prompt_that_came_beside_a_bundle_is_read(voiced: Bundle, cache: Path) -> None:
    settings = Settings(voice="cloned", strict=False)
    Synthesizer.load(voiced.folder, "ort", 1).speak("明天见。", settings)
    (came,) = prompts.place(voiced.folder).iterdir()
    os.utime(came, (0, 0))
    with unchangeable(voiced.folder.parent):
        Synthesizer.load(voiced.folder, "ort", 1).speak("明天见。", settings)
    assert came.stat().st_mtime > 0
    assert not cache.exists()
