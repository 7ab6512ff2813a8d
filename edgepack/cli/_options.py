"""Options that every command has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorated = Callable[..., Any]

PATH = click.Path(path_type=Path)


def output_options(command: Decorated) -> Decorated:
    """`--json` and `--quiet`."""
    command = click.option("--quiet", "-q", is_flag=True, help="No progress and no table.")(command)
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on stdout, also for errors."
    )(command)


def engine_options(command: Decorated) -> Decorated:
    """`--format` and `--threads`."""
    command = click.option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Compute threads.  [default: the CPUs this process may use]",
    )(command)
    return click.option(
        "--format", "runtime", metavar="NAME", help="Runtime.  [default: the bundle's first]"
    )(command)
