"""What a person sees while and after something runs: stderr for progress, stdout for results."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

Step = Callable[[str], None]

_WIDTH = 80  # columns where there is no terminal
_BORDERS = 3  # of a column


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
    """A table on stdout; columns after the first are right-aligned.

    No word is broken: columns that do not fit beside each other become tables below each other.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, markup=False, emoji=False)
    words = [_longest_word([column, *(row[n] for row in rows)]) for n, column in enumerate(columns)]
    for number, chosen in enumerate(_fitting(words, console.width)):
        grid = Table(title=None if number else Text(title, "table.title"), title_justify="left")
        for n in chosen:
            justify: Literal["left", "right"] = "right" if n else "left"
            least = min(words[n], console.width - 4)
            grid.add_column(columns[n], justify=justify, overflow="fold", min_width=least)
        for row in rows:
            grid.add_row(*(row[n] for n in chosen))
        console.print(grid)


def _longest_word(texts: Sequence[str]) -> int:
    """Cells of the longest word."""
    from rich.cells import cell_len

    return max((cell_len(word) for text in texts for word in text.split()), default=0)


def _fitting(words: Sequence[int], width: int) -> list[list[int]]:
    """Columns by table: the first in each, and as many others as there is room for."""
    groups: list[list[int]] = [[0]]
    for n in range(1, len(words)):
        taken = sum(words[m] + _BORDERS for m in [*groups[-1], n]) + 1
        if taken > width and len(groups[-1]) > 1:
            groups.append([0])
        groups[-1].append(n)
    return groups


def line(text: str) -> None:
    """One line on stdout."""
    print(text)


def note(text: str) -> None:
    """One line on stderr."""
    print(f"edgepack: {text}", file=sys.stderr)


def warn(text: str) -> None:
    """One line on stderr."""
    print(f"edgepack: warning: {text}", file=sys.stderr)


def document(tree: Any) -> None:
    """One JSON document on stdout, in ASCII where that is not UTF-8."""
    plain = (sys.stdout.encoding or "utf-8").lower() not in ("utf-8", "utf8")
    print(json.dumps(tree, ensure_ascii=plain, indent=2, allow_nan=False))


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
