"""Text that people give, as files, arguments or standard input: in which encoding it is written.

It is UTF-8 where it is valid UTF-8, with or without a byte-order mark, whatever the locale. Other
bytes are decoded by the locale's encoding, if that is another. Text in neither encoding is refused
with advice how to convert it. For files that programs write, `unmarked` is enough.
"""

import codecs
import locale
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from edgepack.errors import UsageError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF_8, _LINES = "utf-8", "\t\n\v\f\r"


def read(path: Path) -> str:
    """The text of a file, lines ending in a line feed; raises UsageError for unknown encodings."""
    return decoded(path.read_bytes(), path)


def decoded(data: bytes, name: object, other: str | None = None) -> str:
    """The text of bytes that a person gave; `name` is for messages.

    `other` is the encoding to try after UTF-8 and before the locale's. Lines end in a line feed.
    Raises UsageError for bytes that are no text in any of them.
    """
    return _decoded(data, name, [_UTF_8, *_others(other)])[0]


def lines(arriving: Iterable[bytes], name: object, other: str | None = None) -> Iterator[str]:
    """Decode lines as they arrive; the first one that is not ASCII decides the encoding of all."""
    encodings = [_UTF_8, *_others(other)]
    for line in arriving:
        text, used = _decoded(line, name, encodings)
        if not line.isascii():
            encodings = [used]
        yield text


def argument(text: str, name: object) -> str:
    """Decode an argument again, which Python itself decodes by the locale alone."""
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:  # a text of a caller, not an argument of this process
        return whole(text, name)
    return decoded(data, name)


def whole(text: str, name: object) -> str:
    """A text that is already decoded; raises UsageError if it contains a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refused(name) from None
    return text


def unmarked(data: bytes) -> bytes:
    """UTF-8 without the byte-order mark that some editors begin it with."""
    return data.removeprefix(codecs.BOM_UTF8)


def refused(name: object, data: bytes = b"") -> UsageError:
    """The error for text in an unknown encoding; `data` begins with its bytes where it is known."""
    encoding = "UTF-16" if data.startswith(_UTF_16) else "GB18030"
    return UsageError(
        f"{name}: not UTF-8 text; convert it first, such as with 'iconv -f {encoding} -t UTF-8'"
    )


def _others(given: str | None) -> list[str]:
    """Encodings to try after UTF-8: the given one, then the locale's, also in Python's UTF-8 mode.

    ASCII, the encoding of the locales C and POSIX, is left out: it cannot decode other bytes.
    """
    found = []
    for name in (given, locale.getencoding()):
        with suppress(LookupError):  # of a locale that Python does not know
            found += [codecs.lookup(name).name] if name else []
    return [name for name in dict.fromkeys(found) if name not in (_UTF_8, "ascii")]


def _decoded(data: bytes, name: object, encodings: Iterable[str]) -> tuple[str, str]:
    """The text in the first encoding that it can be in, and that encoding."""
    marked = data.startswith(codecs.BOM_UTF8)
    if not data.startswith(_UTF_16):
        for encoding in [_UTF_8] if marked else encodings:
            try:
                text = unmarked(data).decode(encoding)
            except UnicodeDecodeError:
                continue
            # One-byte encodings decode any bytes; control characters tell that it is the wrong one.
            if encoding == _UTF_8 or not any(_is_control(c) for c in text):
                return text.replace("\r\n", "\n").replace("\r", "\n"), encoding
    raise refused(name, data)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in _LINES
