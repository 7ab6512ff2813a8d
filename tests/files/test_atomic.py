"""Files and folders that appear whole, and what is left by processes that were killed."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from linked import linked
from support import Build

import edgepack.files.atomic
import edgepack.process.system
from edgepack.bundle.bundle import open_bundle
from edgepack.errors import IntegrityError, ResourceError, UsageError
from edgepack.files.atomic import clear, replacing, temporary_folder, write_atomically


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", [True, False])
def test_a_temporary_folder_is_gone_afterwards(tmp_path: Path, failing: bool) -> None:
    with contextlib.suppress(KeyError), temporary_folder(tmp_path / "a" / "b") as folder:
        assert folder.parent.parent == tmp_path / "a"
        assert folder.is_dir()
        (folder / "x").mkdir()
        if failing:
            raise KeyError
    assert not (tmp_path / "a").exists()  # as it was made for it


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    place, other = tmp_path / "b", tmp_path / ".c.12345678.tmp"
    for folder in (tmp_path / ".b.999999999.tmp", other):
        (folder / "x").mkdir(parents=True)
    (tmp_path / ".b.12345678.tmp").write_bytes(b"half a file")
    with temporary_folder(place) as ours, temporary_folder(place) as second:
        assert {path.parent for path in (ours, second)} | {other} == set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == [other]


def test_what_was_set_aside_for_a_longer_name_stays(tmp_path: Path) -> None:
    """`.a.b.TOKEN.tmp` is of `a.b`, not of `a`."""
    hidden = tmp_path / ".a.b.12345678.tmp"
    (hidden / "old").mkdir(parents=True)
    (hidden / "old" / "manifest.json").write_bytes(b"the only copy")
    mine = tmp_path / ".a.my-notes.tmp"
    mine.write_bytes(b"a user's own")
    for _ in range(2):
        clear(tmp_path / "a")
        write_atomically(tmp_path / "a", b"something")
    assert mine.read_bytes() == b"a user's own"
    clear(tmp_path / "a.b")
    assert (tmp_path / "a.b" / "manifest.json").read_bytes() == b"the only copy"


def test_long_names_that_begin_alike_are_not_mixed_up(tmp_path: Path) -> None:
    one, other = (tmp_path / ("n" * 220 + end) for end in "ab")
    with temporary_folder(one) as folder:
        clear(other)
        assert folder.is_dir()
    assert edgepack.files.atomic._stem(one) != edgepack.files.atomic._stem(other)


HOLDING = """
import sys
from pathlib import Path
from edgepack.files.atomic import NewFile, temporary_folder
place = Path(sys.argv[1])
with temporary_folder(place) as folder:
    (folder / "x").touch()
    file = NewFile(place)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_another_process_works_on_stays_whatever_its_number(tmp_path: Path) -> None:
    """As in two containers over one volume, which do not see each other's processes."""
    place = tmp_path / "b"
    command = [sys.executable, "-c", HOLDING, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"ready\n"
        theirs = set(tmp_path.iterdir())
        assert len(theirs) == 2
        with temporary_folder(place):
            write_atomically(place, b"new")
        assert set(tmp_path.iterdir()) == theirs | {place}
        other.kill()
    write_atomically(place, b"newer")
    assert list(tmp_path.iterdir()) == [place]


def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel or a file system that cannot swap two names."""
    monkeypatch.setattr("edgepack.process.system.ctypes.CDLL", lambda name: object())


@pytest.mark.parametrize("moment", [1, 2])
def test_a_kill_between_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Build, moment: int
) -> None:
    """Of an old bundle that is set aside: the next who opens it finds it where it was."""
    place = linked(bundle("tiny"), tmp_path).folder
    script = f"""
import os, sys
from pathlib import Path
from edgepack.files import atomic
from edgepack.process import system
atomic.system.exchange = lambda one, other: False
renames = 0
def rename(self, target, real=Path.rename):
    global renames
    real(self, target)
    renames += 1
    if renames == {moment}:
        os._exit(9)
Path.rename = rename
with atomic.replacing(Path(sys.argv[1])) as folder:
    (folder / "manifest.json").write_text("new")
"""
    done = subprocess.run([sys.executable, "-c", script, str(place)], check=False)
    assert done.returncode == 9
    if moment == 1:
        assert not place.exists()
        assert open_bundle(place).manifest.name == "tiny"
    else:
        assert (place / "manifest.json").read_text() == "new"
        write_atomically(place.with_name("other"), b"")
        with temporary_folder(place):
            pass
    assert {path.name for path in tmp_path.iterdir()} - {"other"} == {place.name}


def test_a_failure_between_two_renames_puts_the_old_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_exchange(monkeypatch)
    place = tmp_path / "b"
    place.mkdir()
    (place / "old").touch()
    real = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("no more")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no more"), replacing(place) as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "old"]


@pytest.mark.parametrize("atomic", [True, False])
def test_files_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    if not atomic:
        without_exchange(monkeypatch)
    place = tmp_path / "b"
    place.mkdir()
    synced: list[int] = []
    before: list[set[int]] = []
    real_sync, real_rename = os.fsync, Path.rename
    real_exchange = edgepack.process.system.exchange

    def sync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real_sync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        before.append(set(synced))
        return real_rename(self, target)

    def exchange(one: Path, other: Path) -> bool:
        before.append(set(synced))
        return real_exchange(one, other)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr("edgepack.process.system.exchange", exchange)
    with replacing(place) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_bytes(b"x")
        wanted = {p.stat().st_ino for p in (folder, folder / "inner", folder / "inner" / "file")}
    assert before
    assert all(wanted <= seen for seen in before)
    assert synced[-1] == tmp_path.stat().st_ino


def test_links_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    file, folder = tmp_path / "far" / "file", tmp_path / "far" / "folder"
    file.write_bytes(b"old")
    folder.mkdir()
    (tmp_path / "a").symlink_to(file)
    (tmp_path / "b").symlink_to(folder)
    write_atomically(tmp_path / "a", b"new")
    with replacing(tmp_path / "b") as made:
        (made / "x").touch()
    assert file.read_bytes() == b"new"
    assert [path.name for path in folder.iterdir()] == ["x"]
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "b").is_symlink()
    assert {p.name for p in (tmp_path / "far").iterdir()} == {"file", "folder"}


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / ("名" * 84)
    write_atomically(path, b"x")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_folder_is_replaced_only_by_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    if not atomic:
        without_exchange(monkeypatch)
    target = tmp_path / "b"
    for round_, text in enumerate(["first", "second", "failed"]):
        with contextlib.suppress(KeyError), replacing(target) as folder:
            (folder / "file").write_text(text)
            (folder / f"only-{text}").touch()
            if text == "failed":
                raise KeyError
            assert target.exists() == (round_ > 0)
        assert list(tmp_path.iterdir()) == [target]
    assert {path.name for path in target.iterdir()} == {"file", "only-second"}
    assert (target / "file").read_text() == "second"


def test_errors_in_a_folder_that_is_made_do_not_name_where(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError) as raised, replacing(out / "b") as folder:
        (folder / "no" / "x").write_bytes(b"")
    assert raised.value.filename == str(out / "b")
    with pytest.raises(IntegrityError, match=r"out/b/x: bad$"), replacing(out / "b") as folder:
        raise IntegrityError(f"{folder / 'x'}: bad")
    assert not out.exists()


@pytest.mark.parametrize(
    "error", [RuntimeError("cannot write"), OSError(errno.EIO, "odd"), IntegrityError("refused")]
)
def test_a_full_disk_is_what_it_is_whatever_an_engine_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    full = os.statvfs(tmp_path).f_bsize * 1000
    usage = shutil._ntuple_diskusage(full, full, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with (
        pytest.raises(ResourceError, match="b: no space left") as raised,
        replacing(tmp_path / "b"),
    ):
        raise error
    assert ".tmp" not in str(raised.value)
    with pytest.raises(UsageError, match="another"), replacing(tmp_path / "b"):
        raise UsageError("another")


def test_a_file_at_a_limit_is_a_full_disk_whatever_an_engine_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgepack.process.system, "largest_file", lambda: 100)

    def write(size: int) -> None:
        with replacing(tmp_path / "b") as folder:
            (folder / "a.bin").write_bytes(bytes(size))
            raise RuntimeError("cannot write")

    with pytest.raises(RuntimeError, match="cannot write"):
        write(99)
    with pytest.raises(ResourceError, match="b: no space left"):
        write(100)
