"""Who may ask a server, and how much it takes on: the same for whatever starts one."""

from collections.abc import Sequence
from pathlib import Path

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle
from edgepack.errors import UsageError
from edgepack.serve import keys
from edgepack.serve.options import running_for, waiting_for


def admitted(host: str, key_file: Path | None) -> tuple[bytes, ...]:
    """The keys of a server that listens on `host`; without any, everybody of this machine may ask.

    Raises UsageError if others could reach it without a key.
    """
    known = keys.read(key_file) if key_file else ()
    if not known and not keys.is_loopback(host):
        raise UsageError(
            f"--host {host}: others could speak with it; give --key-file, or 127.0.0.1"
        )
    return known


def require_uploads(bundles: Sequence[Bundle]) -> None:
    """Raise UsageError or OSError if no voice could be added to any bundle, or kept in one."""
    able = [bundle for bundle in bundles if bundle.manifest.enrolment]
    if not able:
        raise UsageError(
            "--uploads: no bundle has networks to make a voice with; build one with "
            "--keep-enrolment, or from a checkpoint that has them"
        )
    for bundle in able:
        voices.require_changeable(bundle)


def bounds(
    threads: int, running: int | None = None, waiting: int | None = None, batch: int | None = None
) -> tuple[int, int]:
    """How many texts are spoken at once and how many wait: as given, or by the compute threads.

    With a `batch`, as many are spoken at once as are decoded together. `threads` is 1 for bundles
    that speak one text at a time.
    """
    running = running or running_for(threads, batch)
    return running, waiting_for(running) if waiting is None else waiting
