"""The errors of edgepack, and the exit code of the program for each kind.

EdgepackError
├── GateError         1  a quality gate or a verification failed
├── UsageError        2  the request or its input is wrong
├── UnsupportedError  3  a model, operator or target this version or host cannot serve
├── IntegrityError    4  a file is corrupt, tampered with or unsafe
└── ResourceError     5  memory, disk, time or network ran out, or the user interrupted
    └── CancelledError   the program that asked for speech cancelled it

A message is one line: what is wrong, where, and what to do about it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

_LONGEST = 2000  # characters of a message: it may quote a file


def _one_line(message: str) -> str:
    """The message in one line, shortened, and without control characters for a terminal."""
    folded = " ".join(message.split())
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in folded)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 400]} … {shown[-300:]}"


class EdgepackError(Exception):
    """Root of the tree; raise one of the kinds below."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        """Store `message`, made fit for one line, and `details` for the JSON document."""
        super().__init__(_one_line(message))
        self.details = dict(details or {})


class GateError(EdgepackError):
    """A quality gate or a verification failed."""

    exit_code = 1
    kind = "gate"


class UsageError(EdgepackError):
    """The request or its input is wrong."""

    exit_code = 2
    kind = "usage"


class UnsupportedError(EdgepackError):
    """A model, operator or target that this version or this host cannot serve."""

    exit_code = 3
    kind = "unsupported"


class IntegrityError(EdgepackError):
    """A file is corrupt, tampered with or unsafe to read."""

    exit_code = 4
    kind = "integrity"


class ResourceError(EdgepackError):
    """Memory, disk or time ran out, there is no network, or the user interrupted."""

    exit_code = 5
    kind = "resources"


class CancelledError(ResourceError):
    """Who asked for speech cancelled it (`Cancellation`, `SpeechStream.cancel`)."""
