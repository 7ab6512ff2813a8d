"""Options of `edgepack serve` for Wyoming."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from edgepack.cli._options import Decorated

if TYPE_CHECKING:
    from edgepack.serve.service import Service
    from edgepack.serve.wyoming.listener import Listener


@dataclass(frozen=True, kw_only=True)
class WyomingOptions:
    """Values of `wyoming_options`."""

    wyoming: str | None
    wyoming_open: bool


def wyoming_options(command: Decorated) -> Decorated:
    """`--wyoming` and `--wyoming-open`."""
    command = click.option(
        "--wyoming-open",
        is_flag=True,
        help="Let --wyoming listen on other addresses than loopback: everybody there may speak.",
    )(command)
    return click.option(
        "--wyoming",
        metavar="URL",
        help="Speak over Wyoming too, for Home Assistant: tcp://HOST:PORT, its usual port 10200.",
    )(command)


@contextmanager
def bound(options: WyomingOptions) -> "Iterator[Callable[[Service], list[Listener]]]":
    """A socket for --wyoming, if that is given, and what makes listeners on it.

    Raises UsageError, or OSError that names the address.
    """
    if options.wyoming is None:
        yield lambda service: []
        return
    from edgepack.serve import server
    from edgepack.serve.wyoming import address
    from edgepack.serve.wyoming.listener import Listener

    where = address.read(options.wyoming, everybody=options.wyoming_open)
    with server.bound(where.host, where.port) as opened:
        yield lambda service: [Listener(service, opened)]
