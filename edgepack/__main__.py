"""The program `edgepack`; also `python -m edgepack`."""

import sys

from edgepack import interrupts
from edgepack.errors import ResourceError


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
    sys.exit(code)


if __name__ == "__main__":
    entry()
