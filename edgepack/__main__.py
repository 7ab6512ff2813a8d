"""`python -m edgepack`."""

from edgepack.cli import entry

if __name__ == "__main__":
    entry()
