"""Shell completion of names; empty where the possible names cannot be found out."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import click

from edgepack.errors import EdgepackError

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _among(known: Callable[[click.Context], Iterable[str]]) -> Complete:
    """A completion that offers the known names that begin with the typed word."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        with suppress(EdgepackError, OSError):
            return [name for name in known(ctx) if name.startswith(incomplete)]
        return []

    return complete


def _bundle(ctx: click.Context) -> Path | None:
    """The bundle on the command line so far; after an option without a value it is in `args`."""
    if not {"bundle", "bundles"} & {param.name for param in ctx.command.params}:
        return None
    given = [ctx.params.get("bundle"), *(ctx.params.get("bundles") or ()), *ctx.args]
    return next((Path(word) for word in given if word), None)


def _targets(ctx: click.Context) -> Iterable[str]:
    from edgepack.profiles import target

    return target.names()


def _precisions(ctx: click.Context) -> Iterable[str]:
    from edgepack.bundle.ranges import Precision

    return ["auto", *get_args(Precision)]


def _formats(ctx: click.Context) -> Iterable[str]:
    from edgepack.bundle.bundle import open_bundle
    from edgepack.runtime.engines import installed

    bundle = _bundle(ctx)
    return open_bundle(bundle).runtimes() if bundle else installed.engines()


def _voices(ctx: click.Context) -> Iterable[str]:
    from edgepack.bundle.bundle import open_bundle

    bundle = _bundle(ctx)
    return open_bundle(bundle).manifest.voices if bundle else ()


targets, precisions, formats, voices = map(_among, (_targets, _precisions, _formats, _voices))


def languages(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the code after the last comma of a list of languages."""
    from edgepack.profiles import language

    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    known = [code for code in language.codes() if code not in given]
    known += [] if comma else [language.ALL]
    return [f"{before}{comma}{code}" for code in known if code.startswith(last)]
