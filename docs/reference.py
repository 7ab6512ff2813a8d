"""Prints docs/cli.md: the help of every command, in one page. Usage: python docs/reference.py."""

from collections.abc import Iterator

import click

from edgepack.cli import root

HEAD = """\
# Command line

Made by `make docs` from `--help`; a test compares them.
"""


def sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """The help of a command, then of its subcommands."""
    yield f"## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child
            yield from sections(child, click.Context(child, info_name=name, parent=context))


def page() -> str:
    """The whole page."""
    settings = {**root.context_settings, "terminal_width": 80, "max_content_width": 80}
    context = click.Context(root, info_name="edgepack", **settings)
    return "\n".join([HEAD, *sections(root, context)])


if __name__ == "__main__":
    print(page(), end="")
