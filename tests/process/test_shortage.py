"""What says that memory or a disk ran out, and what only looks like it."""

import errno

import pytest

from edgepack.process import shortage

MEMORY = [
    MemoryError(),
    RuntimeError("Exception during initialization: std::bad_alloc"),
    RuntimeError("[CPU] Subgraph node with name 'Transpose_node_68' can't alloc"),
    RuntimeError("src/plugin.cpp:54: Resource temporarily unavailable"),
    RuntimeError("can't start new thread"),
    ImportError("libopenvino.so: failed to map segment from shared object"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
DISK = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EFBIG, "File too large"),
    ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
]
NEITHER = [
    ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
    OSError(errno.EACCES, "Permission denied"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),  # of a pipe, not a thread
    ValueError("odd"),
]


@pytest.mark.parametrize("error", MEMORY, ids=repr)
def test_memory(error: BaseException) -> None:
    assert shortage.of_memory(error)
    assert not shortage.of_disk(error)


@pytest.mark.parametrize("error", DISK, ids=repr)
def test_disk(error: BaseException) -> None:
    assert shortage.of_disk(error)
    assert not shortage.of_memory(error)


@pytest.mark.parametrize("error", NEITHER, ids=repr)
def test_neither(error: BaseException) -> None:
    assert not shortage.of_memory(error)
    assert not shortage.of_disk(error)
