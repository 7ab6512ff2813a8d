"""What no input may do to a reader: other errors than edgepack's, much time, much memory."""

import time

from edgepack.errors import EdgepackError
from fuzz.readers import Read

SECONDS = 5
BYTES = 1 << 30
_LONGEST_MESSAGE = 2000


class LimitError(Exception):
    """A limit that no input may reach."""


def judged(read: Read, data: bytes) -> bool:
    """Whether a reader takes the input; raises what is not allowed."""
    start = time.process_time()
    taken = True
    try:
        read(data)
    except EdgepackError as error:
        taken = False
        if "\n" in str(error) or len(str(error)) > _LONGEST_MESSAGE:
            raise LimitError(f"a message of more than a line: {error}") from error
        if starved(error):
            raise LimitError(f"memory ran out: {error}") from error
    used = time.process_time() - start
    if used > SECONDS:
        raise LimitError(f"{used:.1f} s of processor time")
    return taken


def starved(error: BaseException | None) -> bool:
    """Whether memory ran out at any point on the way to an error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
