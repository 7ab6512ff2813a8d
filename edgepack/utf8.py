"""Text files that people give: UTF-8, or one line that says how to make it so."""

import codecs
from pathlib import Path

from edgepack.errors import UsageError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(path: Path) -> str:
    """The text of a file; raises UsageError if it is not UTF-8."""
    try:
        return path.read_text("utf-8")
    except UnicodeError:
        raise refused(path, path.read_bytes()) from None


def whole(text: str, name: object) -> str:
    """The text; raises UsageError if it has bytes in it that were no UTF-8.

    Python reads such bytes of arguments and of standard input as lone surrogates in some locales.
    """
    try:
        text.encode()
    except UnicodeError:
        raise refused(name) from None
    return text


def refused(name: object, data: bytes = b"") -> UsageError:
    """The error for text in another encoding; `data` begins with its bytes where they are known."""
    encoding = "UTF-16" if data.startswith(_UTF_16) else "GB18030"
    return UsageError(
        f"{name}: not UTF-8 text; convert it first, such as with 'iconv -f {encoding} -t UTF-8'"
    )
