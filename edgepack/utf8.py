"""Text files that people give: UTF-8, or one line that says how to make it so."""

from pathlib import Path

from edgepack.errors import UsageError


def read(path: Path) -> str:
    """The text of a file; raises UsageError if it is not UTF-8."""
    try:
        return path.read_text("utf-8")
    except UnicodeError:
        raise refused(path) from None


def refused(name: object) -> UsageError:
    """The error for text that is in another encoding."""
    return UsageError(
        f"{name}: not UTF-8 text; convert it first, such as with 'iconv -f GB18030 -t UTF-8'"
    )
