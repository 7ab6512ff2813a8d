"""The command line: one module for each command; here errors become one line and an exit code."""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, cast

import click

import edgepack
from edgepack import discovery
from edgepack.errors import (
    CancelledError,
    EdgepackError,
    ResourceError,
    UnsupportedError,
    UsageError,
)
from edgepack.machine.memory import START_ROOM, keep_few_kernels, require_room
from edgepack.process import interrupts, shortage
from edgepack.report import document

_EXTRAS = {
    "onnxruntime": "ort",
    "openvino": "openvino",
    "ai_edge_litert": "tflite",
    "tensorflow": "tensorflow",
    "matplotlib": "report",
    "jinja2": "report",
    "sounddevice": "play",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "ray": "ray",
    "redis": "redis",
    "sentence_stream": "wyoming",
    "wyoming": "wyoming",
    "huggingface_hub": "hub",
    "modelscope_hub": "hub",
}
# TensorFlow, if that is the engine, writes to stderr when it is imported: what it was compiled for,
# and that its own kernels (which its interpreter does not use) use oneDNN.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}


class _Commands(click.Group):
    """Commands are the modules of this package; only the one that is called is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return discovery.names(__name__)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in discovery.names(__name__):
            raise UsageError(discovery.unknown("command", cmd_name, discovery.names(__name__)))
        return cast(click.Command, discovery.load(__name__, cmd_name, "command"))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(edgepack.__version__, prog_name="edgepack")
def root() -> None:
    """Package CosyVoice speech synthesis for CPUs, phones and boxes, and run it there."""
    require_room("numpy", START_ROOM)


def main(arguments: Sequence[str] | None = None, *, program: bool = False) -> int:
    """Run a command line and return its exit code; `program` if the process does nothing else."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result: Any = root.main(arguments, prog_name="edgepack", standalone_mode=False, obj=program)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (BrokenPipeError, SystemExit):  # the reader of stdout has gone; click raises SystemExit
        _discard_output()
        return 0
    except BaseException as error:  # the one place where every error ends
        return _report(_translated(error), as_json="--json" in arguments)


def program() -> int:
    """Run this process' command line as a program, and return its exit code."""
    keep_few_kernels()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()  # closed
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: any name can be printed
    return main(program=True)


def _translated(error: BaseException) -> EdgepackError:
    """Any error as an EdgepackError, which has a message for users and an exit code.

    With EDGEPACK_DEBUG=1 bugs, and errors in a build's child processes, show their traceback.
    """
    debug = bool(os.environ.get("EDGEPACK_DEBUG"))
    told = isinstance(error, ResourceError) and not isinstance(error, CancelledError)
    if interrupts.came() and not told:
        return ResourceError(interrupts.MESSAGE)  # a library may have turned it into another error
    if isinstance(error, EdgepackError):
        if debug and error.__cause__:
            traceback.print_exception(error)
        return error
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        known = ", ".join(cast(click.Group, error.ctx.command).list_commands(error.ctx))
        return UsageError(f"no command; give one of {known}, or --help")
    if isinstance(error, click.NoSuchOption) and not error.possibilities and _takes_text(error):
        return UsageError(
            f"{error.format_message()} If it begins a text, put the text last and -- before it: "
            f"edgepack run BUNDLE -- '{error.option_name}…'"
        )
    if isinstance(error, click.ClickException):
        return UsageError(error.format_message())
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return ResourceError(interrupts.MESSAGE)
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return UsageError(f"{error.object!r}: not a UTF-8 name; rename it")
    if shortage.of_memory(error):
        return ResourceError("memory ran out; close other programs or use a smaller model")
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        extra = _EXTRAS.get(package, "build")
        return UnsupportedError(f"{package} is not installed; pip install 'edgepack[{extra}]'")
    if isinstance(error, ImportError) and not (error.name or "edgepack").startswith("edgepack"):
        return UnsupportedError(
            f"{error.name}: is installed and cannot be imported ({error}); install it again"
        )
    if shortage.of_disk(error):
        where = getattr(error, "filename", None) or "disk"
        return ResourceError(f"{where}: no space left; free some and try again")
    if isinstance(error, OSError) and error.filename:
        return UsageError(f"{error.filename}: {error.strerror}")
    if debug:
        raise error
    notes = getattr(error, "__notes__", None)
    return EdgepackError(
        f"internal error: {type(error).__name__}: {error}; "
        "run again with EDGEPACK_DEBUG=1 and report what it prints",
        {"notes": notes} if notes else None,
    )


def _takes_text(error: click.UsageError) -> bool:
    parameters = error.ctx.command.params if error.ctx else ()
    return any(isinstance(p, click.Argument) and p.name == "text" for p in parameters)


def _report(error: EdgepackError, *, as_json: bool) -> int:
    print(f"edgepack: {error}", file=sys.stderr)
    try:
        if as_json:
            record = {"kind": error.kind, "exit_code": error.exit_code, "message": str(error)}
            document({**error.details, "error": record})
        sys.stdout.flush()
    except OSError:  # the error may be that stdout is full
        _discard_output()
    return error.exit_code


def _discard_output() -> None:
    """Drop what stdout has not written yet; Python would fail again to write it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
