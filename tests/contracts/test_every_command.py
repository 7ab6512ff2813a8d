"""Commands: short help, --json, --quiet, and nothing heavy before they run."""

import dataclasses
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import cast

import click
import pytest

from edgepack import cli, discovery

NAMES = discovery.names(cli.__name__)
HEAVY = {"numpy", "onnx", "onnxruntime", "openvino", "rich", "soundfile", "tokenizers", "yaml"}


def leaves(words: list[str], command: click.Command) -> Iterator[tuple[list[str], click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves([*words, name], inner)
    else:
        yield words, command


COMMANDS = [
    found
    for name in NAMES
    for found in leaves([name], cast(click.Command, discovery.load(cli.__name__, name, "command")))
]
EACH = pytest.mark.parametrize(
    ("words", "command"), COMMANDS, ids=lambda w: " ".join(w) if isinstance(w, list) else ""
)


@EACH
def test_help_is_complete(words: list[str], command: click.Command) -> None:
    assert command.short_help
    assert command.short_help == command.short_help.strip()
    assert command.short_help.endswith(".")
    assert len(command.short_help) < 70
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@EACH
def test_every_command_can_be_read_by_a_machine_or_be_quiet(
    words: list[str], command: click.Command
) -> None:
    options = {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
    assert {"--json", "--quiet", "-q"} <= options


@EACH
def test_what_it_takes_is_typed(words: list[str], command: click.Command) -> None:
    """A callback has a few parameters of its own, or one record of all of them."""
    assert command.callback
    called = inspect.unwrap(command.callback)
    taken = {name: p.kind for name, p in inspect.signature(called).parameters.items()}
    assert inspect.Parameter.VAR_KEYWORD not in taken.values()
    given = {parameter.name for parameter in command.params}
    if called is command.callback:
        assert given == taken.keys()
        return
    (record,) = (typing.get_type_hints(called)[name] for name in taken)
    assert given == {field.name for field in dataclasses.fields(record)}


@EACH
def test_its_help_runs_and_an_unknown_option_is_refused(
    words: list[str], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: edgepack {' '.join(words)} ")
    assert cli.main([*words, "--qiet", "--json"]) == 2
    assert "--quiet" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_groups_have_help_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in NAMES:
        command = cast(click.Command, discovery.load(cli.__name__, name, "command"))
        assert f"{name} " in listed
        assert str(command.short_help) in listed


def test_commands_import_what_they_need_when_they_run() -> None:
    script = f"""
import sys
from edgepack import cli, discovery
for name in discovery.names(cli.__name__):
    discovery.load(cli.__name__, name, "command")
sys.exit(str({HEAVY!r} & set(sys.modules)) if {HEAVY!r} & set(sys.modules) else 0)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
