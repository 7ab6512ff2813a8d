"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgepack import charset
from edgepack.cli import _complete
from edgepack.errors import UsageError

Decorated = Callable[..., Any]

PATH = click.Path(path_type=Path)


class _Text(click.ParamType[str]):
    """Words of people: UTF-8 also where the locale is another."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        is_option = isinstance(param, click.Option)
        return charset.argument(value, param.opts[0] if param and is_option else "the text")


TEXT = _Text()


def output_options(command: Decorated) -> Decorated:
    """`--json` and `--quiet`."""
    command = click.option("--quiet", "-q", is_flag=True, help="No progress and no table.")(command)
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on stdout, also for errors."
    )(command)


def to_stdout(*outputs: Path | None, as_json: bool) -> bool:
    """Whether a file to write is standard output itself, where nothing else may then be said.

    Raises UsageError if another, or a JSON document, is to go there as well.
    """
    from edgepack.places import is_stdout

    found = [path for path in outputs if path and is_stdout(path)]
    if found and as_json:
        raise UsageError(
            f"{found[0]}: standard output, where the document of --json goes; leave one out"
        )
    if len(found) > 1:
        raise UsageError("only one output can go to standard output; give the other a name")
    return bool(found)


def engine_options(command: Decorated) -> Decorated:
    """`--format` and `--threads`."""
    command = click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Compute threads.  [default: the CPUs this process may use]",
    )(command)
    return click.option(
        "--format",
        "runtime",
        shell_complete=_complete.formats,
        metavar="NAME",
        help="Runtime.  [default: the bundle's first that is installed]",
    )(command)


def provider_options(command: Decorated) -> Decorated:
    """`--provider` and `--allow-fallback`."""
    command = click.option(
        "--allow-fallback",
        is_flag=True,
        help="Go on where a network is not on the provider that the bundle promises, and say so.",
    )(command)
    return click.option(
        "--provider",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="Of ONNX Runtime: auto (the bundle's), tensorrt, cuda or cpu.",
    )(command)


seed_option = click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed gives the same audio.",
)

solver_option = click.option(
    "--solver",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Of the flow decoder: auto (calibrated if the bundle has it), reference (the original's) "
    "or calibrated.",
)

energy_option = click.option(
    "--energy",
    default="auto",
    show_default=True,
    metavar="METER",
    help="auto, none or a meter, such as rapl, external:LOG.csv or model.",
)


def measuring_options(sentences: int) -> Callable[[Decorated], Decorated]:
    """`--sentences` and `--rounds`."""

    def add(command: Decorated) -> Decorated:
        command = click.option(
            "--rounds",
            type=click.IntRange(1, 100),
            default=3,
            show_default=True,
            help="How often all of them are spoken.",
        )(command)
        return click.option(
            "--sentences",
            type=click.IntRange(1, 200),
            default=sentences,
            show_default=True,
            help="How many of the languages' sentences.",
        )(command)

    return add
