"""`python -m edgepack`."""

import sys

from edgepack.cli import main

if __name__ == "__main__":
    sys.exit(main())
