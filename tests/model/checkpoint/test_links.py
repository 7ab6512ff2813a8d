"""Links in checkpoints: what is read stays inside the folder, or its hub cache's blobs."""

import os
import shutil
from pathlib import Path

import pytest
from released import REVISION, released
from support import DATA

from edgepack.builder.planning import DOCUMENTS, open_source
from edgepack.errors import IntegrityError
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.model.inspection import inspect_checkpoint

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
NAMES = sorted(open_source(str(SOURCE)).hashes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy whose files are hard links: replace them."""
    return Path(shutil.copytree(SOURCE, tmp_path / "model", copy_function=os.link))


@pytest.mark.parametrize("name", [*NAMES, *DOCUMENTS])
def test_a_link_out_of_the_folder_is_refused_wherever_it_is_read(folder: Path, name: str) -> None:
    outside = folder.parent / "secret"
    outside.write_bytes((folder / name).read_bytes() if (folder / name).is_file() else b"secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(IntegrityError, match=rf"{name}: a link out of the checkpoint, to .*secret"):
        open_source(str(folder))


def test_a_folder_that_is_a_link_out_is_refused(folder: Path) -> None:
    outside = folder.parent / "elsewhere"
    (folder / "CosyVoice-BlankEN").rename(outside)
    (folder / "CosyVoice-BlankEN").symlink_to(outside)
    with pytest.raises(IntegrityError, match="a link out of the checkpoint"):
        open_source(str(folder))


@pytest.mark.parametrize("part", ["llm.pt", "spk2info.pt", "CosyVoice-BlankEN/vocab.json"])
def test_inspecting_follows_no_link_out_either(folder: Path, part: str) -> None:
    outside = folder.parent / "secret"
    (folder / part).rename(outside)
    (folder / part).symlink_to(outside)
    checkpoint = open_checkpoint(folder)
    for read in (checkpoint.file, checkpoint.sha256, checkpoint.objects, checkpoint.json):
        with pytest.raises(IntegrityError, match="a link out of the checkpoint"):
            read(part)
    if "/" not in part:
        with pytest.raises(IntegrityError, match="a link out of the checkpoint"):
            inspect_checkpoint(folder)


def test_links_inside_the_folder_are_followed(folder: Path) -> None:
    wanted = dict(open_source(str(folder)).hashes)
    (folder / "weights").mkdir()
    for name in ("llm.pt", "flow.pt"):
        (folder / name).rename(folder / "weights" / name)
        (folder / name).symlink_to(Path("weights") / name)
    (folder.parent / "named").symlink_to(folder)
    assert dict(open_source(str(folder)).hashes) == wanted
    source = open_source(str(folder.parent / "named"))
    assert dict(source.hashes) == wanted
    assert source.name == "named"


def test_a_snapshot_of_a_hub_cache_is_read(tmp_path: Path) -> None:
    snapshot = released(SOURCE, tmp_path)
    found, wanted = open_source(str(snapshot)).hashes, open_source(str(SOURCE)).hashes
    assert {n: found[n] for n in found if n != "README.md"} == {
        n: wanted[n] for n in wanted if n != "spk2info.pt"
    }


def shared(snapshot: Path, name: str) -> Path:
    """A file as newer caches have it: its blob is a link to one that repositories share."""
    blob = (snapshot / name).resolve()
    digest = "ab" * 32
    store = snapshot.parents[2] / "blobs" / digest[:2]
    store.mkdir(parents=True)
    blob.rename(store / digest)
    blob.symlink_to(Path("../../blobs", digest[:2], digest))
    return store


def test_blobs_that_repositories_share_are_read(tmp_path: Path) -> None:
    snapshot = released(SOURCE, tmp_path)
    wanted = dict(open_source(str(snapshot)).hashes)
    store = shared(snapshot, "llm.pt")
    assert dict(open_source(str(snapshot)).hashes) == wanted
    store.rename(tmp_path / "elsewhere")
    store.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="a link out of the checkpoint"):
        open_source(str(snapshot))


def hidden(snapshot: Path, secret: Path) -> None:
    """A blob that is a link itself."""
    blob = (snapshot / "README.md").resolve()
    blob.unlink()
    blob.symlink_to(secret)


def elsewhere(snapshot: Path, secret: Path) -> None:
    """Blobs that are somebody else's folder."""
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(secret.parent / "others")
    blobs.symlink_to(secret.parent / "others")


def neighbour(snapshot: Path, secret: Path) -> None:
    """The blobs of another repository."""
    others = snapshot.parents[2] / "models--somebody--else" / "blobs"
    others.mkdir(parents=True)
    shutil.copy(secret, others / "secret")
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to(others / "secret")


@pytest.mark.parametrize("trick", [hidden, elsewhere, neighbour])
def test_a_hub_cache_is_no_way_out(tmp_path: Path, trick: object) -> None:
    snapshot = released(SOURCE, tmp_path / "hub")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    assert callable(trick)
    trick(snapshot, secret)
    with pytest.raises(IntegrityError, match="a link out of the checkpoint"):
        open_source(str(snapshot))


def test_blobs_beside_any_other_folder_are_outside(tmp_path: Path) -> None:
    snapshot = released(SOURCE, tmp_path)
    moved = snapshot.parents[1] / "copies" / REVISION
    moved.parent.mkdir()
    snapshot.rename(moved)
    with pytest.raises(IntegrityError, match="a link out of the checkpoint"):
        open_source(str(moved))
