"""What a shell is told when it asks how a word may go on; nothing where that cannot be known."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import click

from edgepack.errors import EdgepackError

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _among(known: Callable[[click.Context], Iterable[str]]) -> Complete:
    """Names that begin as the word does."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        with suppress(EdgepackError, OSError):
            return [name for name in known(ctx) if name.startswith(incomplete)]
        return []

    return complete


def _bundle(ctx: click.Context) -> Path | None:
    """The bundle of the command line so far; without its value an option leaves it in `args`."""
    if not {"bundle", "bundles"} & {param.name for param in ctx.command.params}:
        return None
    given = [ctx.params.get("bundle"), *(ctx.params.get("bundles") or ()), *ctx.args]
    return next((Path(word) for word in given if word), None)


def _targets(ctx: click.Context) -> Iterable[str]:
    from edgepack import target

    return target.names()


def _precisions(ctx: click.Context) -> Iterable[str]:
    from edgepack.ranges import Precision

    return ["auto", *get_args(Precision)]


def _formats(ctx: click.Context) -> Iterable[str]:
    from edgepack.bundle import open_bundle
    from edgepack.runtime import installed

    bundle = _bundle(ctx)
    return open_bundle(bundle).runtimes() if bundle else installed.engines()


def _voices(ctx: click.Context) -> Iterable[str]:
    from edgepack.bundle import open_bundle

    bundle = _bundle(ctx)
    return open_bundle(bundle).manifest.voices if bundle else ()


targets, precisions, formats, voices = map(_among, (_targets, _precisions, _formats, _voices))


def languages(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Codes after the last comma of a list."""
    from edgepack import language

    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    known = [code for code in language.codes() if code not in given]
    known += [] if comma else [language.ALL]
    return [f"{before}{comma}{code}" for code in known if code.startswith(last)]
