"""Recognising errors that mean that memory or a disk ran out, mostly by their messages."""

import errno

# Messages of the C++ library, of engines, of the loader of shared libraries, and of threads: where
# there is no memory for a stack, pthread_create fails with "Resource temporarily unavailable".
_NO_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "allocate memory",
    "out of memory",
    "BFCArena",
    "can't alloc",
    "failed to map segment",
    "can't start new thread",
    "Resource temporarily unavailable",
)
_NOT_MEMORY = ("static TLS block",)  # the loader's message for too many libraries that have some
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")


def of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory, address space or thread to be had."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    text = str(error)
    return _says(text, _NO_MEMORY) and not _says(text, _NOT_MEMORY)


def of_disk(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or a limit of files is full."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return _says(str(error), _FULL_WORDS)


def _says(text: str, signs: tuple[str, ...]) -> bool:
    return any(sign in text for sign in signs)
