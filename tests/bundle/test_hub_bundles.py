"""A bundle as a hub's cache has it: links to blobs, which its hashes protect."""

import shutil
from pathlib import Path

import pytest
from hub_cache import snapshot_of
from support import RUNTIMES, Build

from edgepack.bundle.bundle import open_bundle
from edgepack.errors import IntegrityError
from edgepack.runtime.loading import choose
from edgepack.runtime.synthesizer import Settings, Synthesizer
from edgepack.verification import selftest


@pytest.fixture
def snapshot(bundle: Build, tmp_path: Path) -> Path:
    return snapshot_of(bundle("tiny"), tmp_path / "hub")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_speaks_and_passes_its_self_test(snapshot: Path, runtime: str) -> None:
    bundle = open_bundle(snapshot)
    bundle.check(bundle.manifest.files)
    assert all(one.passed for one in selftest.run(bundle, choose(bundle, runtime, 1)))
    synthesizer = Synthesizer.load(snapshot, runtime, 1)
    assert synthesizer.speak("hello", Settings(strict=False)).audio_seconds > 0


def test_a_bundle_in_a_folder_of_a_repository(bundle: Build, tmp_path: Path) -> None:
    shutil.copytree(bundle("tiny"), tmp_path / "repository" / "for-a-box")
    found = open_bundle(snapshot_of(tmp_path / "repository", tmp_path / "hub") / "for-a-box")
    found.check(found.manifest.files)


def test_a_changed_blob_is_found(snapshot: Path) -> None:
    bundle = open_bundle(snapshot)
    blob = (snapshot / bundle.manifest.tokenizer).resolve()
    blob.write_bytes(blob.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(IntegrityError, match="not the bytes that were built"):
        bundle.check(bundle.manifest.files)


def test_links_to_anywhere_else_are_refused(snapshot: Path, tmp_path: Path) -> None:
    bundle = open_bundle(snapshot)
    link = snapshot / bundle.manifest.tokenizer
    for place in (tmp_path / "outside", tmp_path / "hub" / "models--other--one" / "blobs" / "0"):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(link.resolve(), place)
        saved = link.readlink()
        link.unlink()
        link.symlink_to(place)
        with pytest.raises(IntegrityError, match="points outside the bundle"):
            bundle.check([bundle.manifest.tokenizer])
        link.unlink()
        link.symlink_to(saved)
    bundle.check([bundle.manifest.tokenizer])


def test_only_the_blobs_of_a_cache_are_a_way_out(bundle: Build, tmp_path: Path) -> None:
    snapshot = snapshot_of(bundle("tiny"), tmp_path / "hub")
    moved = snapshot.parents[1] / "copies" / snapshot.name
    moved.parent.mkdir()
    snapshot.rename(moved)
    found = open_bundle(moved)
    with pytest.raises(IntegrityError, match="points outside the bundle"):
        found.check(found.manifest.files)
