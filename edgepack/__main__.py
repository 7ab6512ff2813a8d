"""The program `edgepack`; also `python -m edgepack`."""

import os
import sys
from contextlib import suppress

from edgepack.errors import ResourceError
from edgepack.process import interrupts


def entry() -> None:
    """The console script. It is ended by SIGTERM as by Ctrl-C: nothing half-made is left."""
    interrupts.listen()  # first: to import what follows takes longer than some commands do
    try:
        from edgepack.cli import program

        code = program()
        interrupts.over()
    except KeyboardInterrupt:  # before the command began, or after it
        interrupts.over()
        print(f"edgepack: {interrupts.MESSAGE}", file=sys.stderr)
        code = ResourceError.exit_code
    if code == ResourceError.exit_code:
        _end_at_once(code)
    sys.exit(code)


def _end_at_once(code: int) -> None:
    """End the process without what Python does at its end.

    Where memory ran out, that finds none either, and prints a line for each thing it cannot do.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    entry()
