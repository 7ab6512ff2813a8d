"""What a person sees while and after something runs: stderr for progress, stdout for results."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Step = Callable[[str], None]


def silent(message: str) -> None:
    """A progress callback that shows nothing."""


@contextlib.contextmanager
def progress(title: str, *, shown: bool) -> Iterator[Step]:
    """A spinner on stderr that shows the latest step; silent unless `shown`."""
    if not shown:
        yield silent
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with console.status(title) as status:

        def step(message: str) -> None:
            status.update(Text(f"{title}: {message}"))
            if not console.is_terminal:
                console.print(f"{title}: {message}", soft_wrap=True)

        yield step


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; columns after the first are right-aligned."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(title, "table.title"), title_justify="left")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    width = None if sys.stdout.isatty() else 120
    Console(width=width, markup=False, emoji=False).print(grid)


def line(text: str) -> None:
    """One line on stdout."""
    print(text)


def warn(text: str) -> None:
    """One line on stderr."""
    print(f"edgepack: warning: {text}", file=sys.stderr)


def document(tree: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(tree, ensure_ascii=False, indent=2, allow_nan=False))


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
