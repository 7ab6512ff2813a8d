"""What is written into where it is: devices, pipes, standard output, what cannot be replaced."""

import errno
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from outputs import Pipe, device, unchangeable

from edgepack.errors import ResourceError, UsageError
from edgepack.files.atomic import (
    filling,
    made_folder,
    replacing,
    require_replaceable_folder,
    require_writable,
    write_atomically,
)


def test_a_device_stays_one(tmp_path: Path) -> None:
    null = device(tmp_path / "null", 3)
    (tmp_path / "link").symlink_to(null)
    for path in (null, tmp_path / "link"):
        require_writable(path)
        write_atomically(path, b"new")
    assert null.is_char_device()
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_device_that_is_full(tmp_path: Path) -> None:
    full = device(tmp_path / "full", 7)
    with pytest.raises(OSError, match="full") as raised:
        write_atomically(full, b"new")
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_has_a_reader(tmp_path: Path, link: bool) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    path = tmp_path / ("link" if link else "pipe")
    with Pipe(tmp_path / "pipe") as pipe:
        require_writable(path)  # which is not the end of what is written
        write_atomically(path, b"new" * 100_000)
    assert pipe.heard == b"new" * 100_000


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def leave() -> None:
        with path.open("rb") as file:
            file.read(1)

    reader = threading.Thread(target=leave)
    reader.start()
    with pytest.raises(ResourceError, match="nobody reads on"):
        write_atomically(path, bytes(1 << 20))
    reader.join()


WRITING = """
import sys
from pathlib import Path
from edgepack.files.atomic import require_writable, write_atomically
for name in sys.argv[1:]:
    print("said", flush=False)
    require_writable(Path(name))
    write_atomically(Path(name), b"written\\n")
"""


@pytest.mark.parametrize("how", ["pipe", "file"])
def test_standard_output(tmp_path: Path, how: str) -> None:
    """In the order that it was written in, and behind what the file has."""
    file = tmp_path / "file"
    file.write_bytes(b"before\n")
    names = ["/dev/stdout", "/dev/fd/1", *([str(file)] if how == "file" else [])]
    command = [sys.executable, "-c", WRITING, *names]
    with file.open("ab") as out:
        to = out if how == "file" else subprocess.PIPE
        done = subprocess.run(command, stdout=to, check=True)
    wanted = b"said\nwritten\n" * len(names)
    assert (done.stdout or file.read_bytes().removeprefix(b"before\n")) == wanted
    assert file.read_bytes().startswith(b"before\n")


def test_an_open_file_that_has_no_name(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        path = Path(f"/dev/fd/{file.fileno()}")
        require_writable(path)
        write_atomically(path, b"new")
        assert file.read() == b"new"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EPERM])
def test_what_cannot_be_replaced_is_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A mounted file, and a file of somebody else's in a folder like /tmp."""
    path = tmp_path / "a"
    path.write_bytes(b"old and longer")
    number = path.stat().st_ino

    def refuse(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "replace", refuse)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino == number
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(UsageError, match="a socket"):
            require_writable(tmp_path / "socket")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="circle"):
        require_writable(tmp_path / "circle")
    (tmp_path / "mine").touch()
    with unchangeable(tmp_path / "mine"), pytest.raises(PermissionError, match="mine"):
        require_writable(tmp_path / "mine")


def test_a_folder_takes_the_place_of_nothing_else(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    for path in list(tmp_path.iterdir()):
        with pytest.raises(UsageError, match="in the way"), replacing(path):
            raise AssertionError("too late")
    assert (tmp_path / "pipe").is_fifo()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "file", "link", "circle"}
    (tmp_path / "above" / "b").mkdir(parents=True)
    (tmp_path / "b").symlink_to("above/b")
    with unchangeable(tmp_path / "above"), pytest.raises(PermissionError, match="b'"):
        require_replaceable_folder(tmp_path / "b")


def test_files_of_a_folder_are_written_through_links(tmp_path: Path) -> None:
    folder, far = tmp_path / "folder", tmp_path / "far"
    folder.mkdir()
    far.write_bytes(b"old")
    (folder / "a").symlink_to(far)
    with filling(folder) as new:
        (new / "a").write_bytes(b"new")
        (new / "b").write_bytes(b"new")
    assert (folder / "a").is_symlink()
    assert far.read_bytes() == (folder / "b").read_bytes() == b"new"


def test_a_link_to_a_folder_that_has_to_be_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    with made_folder(tmp_path / "link"):
        (tmp_path / "link" / "x").touch()
    assert (tmp_path / "a" / "b" / "x").exists()
