"""Options that several commands have, and the records that their values come in.

A command's callback takes one record: a dataclass with a field for each of its parameters, made of
the records of the groups of options that it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from edgepack.cli import _complete
from edgepack.errors import UsageError
from edgepack.files import charset

Decorated = Callable[..., Any]
R = TypeVar("R")

PATH = click.Path(path_type=Path)


class _Text(click.ParamType[str]):
    """Text typed by a person, which may be UTF-8 even if the locale's encoding is another."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        is_option = isinstance(param, click.Option)
        return charset.argument(value, param.opts[0] if param and is_option else "the text")


TEXT = _Text()


def as_record(kind: type[R]) -> Callable[[Callable[[R], None]], Callable[..., None]]:
    """Let click call a function of one record, whose fields are named like its parameters."""

    def add(callback: Callable[[R], None]) -> Callable[..., None]:
        @wraps(callback)
        def called(**values: Any) -> None:
            callback(kind(**values))

        return called

    return add


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Values of `output_options`."""

    as_json: bool
    quiet: bool

    @property
    def shown(self) -> bool:
        """Whether people are told about progress and results, in words and tables."""
        return not (self.quiet or self.as_json)


def output_options(command: Decorated) -> Decorated:
    """`--json` and `--quiet`."""
    command = click.option("--quiet", "-q", is_flag=True, help="No progress and no table.")(command)
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on stdout, also for errors."
    )(command)


def to_stdout(*outputs: Path | None, as_json: bool) -> bool:
    """Whether one of the outputs is standard output, to which nothing else may be printed then.

    Raises UsageError if a second output, or a JSON document, is to go there as well.
    """
    from edgepack.files.places import is_stdout

    found = [path for path in outputs if path and is_stdout(path)]
    if found and as_json:
        raise UsageError(
            f"{found[0]}: standard output, where the document of --json goes; leave one out"
        )
    if len(found) > 1:
        raise UsageError("only one output can go to standard output; give the other a name")
    return bool(found)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Values of `engine_options`; None where the bundle or the machine decides."""

    runtime: str | None
    threads: int | None


format_option = click.option(
    "--format",
    "runtime",
    shell_complete=_complete.formats,
    metavar="NAME",
    help="Runtime.  [default: the bundle's first that is installed]",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Compute threads.  [default: the CPUs this process may use]",
)
guard_option = click.option(
    "--guard",
    type=click.Choice(["error", "warn"]),
    default="error",
    show_default=True,
    help="What a fault of the audio is: silence, runaway, early end, NaN.",
)


batch_option = click.option(
    "--batch",
    type=click.IntRange(0, 64),
    metavar="ROWS",
    help="Decode every utterance in a batch, of up to so many (even; 0: none). The samples are not "
    "quite those without, and the same for every size.  [default: the sentences of a text]",
)


def engine_options(command: Decorated) -> Decorated:
    """`--format` and `--threads`."""
    return format_option(threads_option(command))


@dataclass(frozen=True, kw_only=True)
class ProviderOptions:
    """Values of `provider_options`."""

    provider: str
    allow_fallback: bool


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


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions:
    """Values of `measuring_options` and of `energy_option`."""

    sentences: int
    rounds: int
    energy: str


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
