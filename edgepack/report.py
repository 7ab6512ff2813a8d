"""Output for people: progress on stderr, results on stdout."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import accumulate
from typing import Any, Literal

Step = Callable[[str], None]

_WIDTH = 80  # columns where there is no terminal
_BORDERS = 3  # of a column
_SHORT = 10  # characters of a text that is not wrapped
_TRUSTED_SECONDS = 30.0  # of an estimate, until what was measured counts more


def silent(message: str) -> None:
    """A progress callback that shows nothing."""


@contextlib.contextmanager
def progress(title: str, *, shown: bool) -> Iterator[Step]:
    """Steps on stderr, with the time since the start; silent unless `shown`.

    A terminal shows the latest one, and its clock runs on.
    """
    if not shown:
        yield silent
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        start = time.monotonic()

        def told(message: str) -> None:
            elapsed = timedelta(seconds=int(time.monotonic() - start))
            console.print(f"{title}: [{elapsed}] {message}", soft_wrap=True)

        yield told
        return
    whole = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))
    columns = SpinnerColumn(), TextColumn(title), TimeElapsedColumn(), whole
    with Progress(*columns, console=console, transient=True) as live:
        task = live.add_task("")
        yield lambda message: live.update(task, description=message)


def within(step: Step, where: str) -> Step:
    """A progress callback whose messages begin with `where`, for a part of something larger."""
    return lambda message: step(f"{where}: {message}")


class Parts:
    """A progress callback for a long task: adds the number of the current part and the time left.

    `sizes` are of each part, in order. They are an estimate in seconds if that is known; otherwise
    only their ratios count, and time left is told once a part is done.
    """

    def __init__(self, step: Step, sizes: Mapping[Any, float], *, seconds: bool = False) -> None:
        self._step, self._sizes, self._seconds = step, sizes, seconds
        self._number = 1
        self._start = self._began = time.monotonic()

    def begin(self, part: Hashable) -> None:
        """Begin a part; those before it are done, or were not needed."""
        self._number = list(self._sizes).index(part) + 1
        self._began = time.monotonic()

    def __call__(self, message: str) -> None:
        """Show a message of the current part."""
        left = self._left()
        about = "" if left is None else f", about {duration(left)} left"
        self._step(f"{self._number} of {len(self._sizes)}{about}: {message}")

    def _left(self) -> float | None:
        sizes = list(self._sizes.values())
        done, (current, *rest) = sum(sizes[: self._number - 1]), sizes[self._number - 1 :]
        took = self._began - self._start
        if self._seconds:  # what is found in a cache takes no time, and makes nothing else faster
            pace = max(1.0, (took + _TRUSTED_SECONDS) / (done + _TRUSTED_SECONDS))
        elif done:
            pace = took / done
        else:
            return None
        return max(0.0, pace * current - (time.monotonic() - self._began)) + pace * sum(rest)


def duration(seconds: float) -> str:
    """A rough duration in words: in steps of ten seconds, above a minute in minutes."""
    if seconds <= 50:
        return f"{max(10, 10 * math.ceil(seconds / 10))} s"
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def table(
    title: str, columns: Sequence[str | Sequence[str]], rows: Sequence[Sequence[str]]
) -> None:
    """A table on stdout; columns after the first are right-aligned.

    No word is broken: columns that do not fit beside each other become tables below each other.
    Those that are given as a sequence stay together if they fit at all.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, markup=False, emoji=False)
    groups = [[column] if isinstance(column, str) else list(column) for column in columns]
    titles = [column for group in groups for column in group]
    cells = [[column, *(row[n] for row in rows)] for n, column in enumerate(titles)]
    words = [_longest(word for cell in of for word in _words(cell)) for of in cells]
    whole = [_longest(of) for of in cells]
    for number, chosen in enumerate(_fitting(words, [len(g) for g in groups], console.width)):
        grid = Table(title=None if number else Text(title, "table.title"), title_justify="left")
        room = console.width - 1 - _BORDERS * len(chosen)
        widths = _widths([words[n] for n in chosen], [whole[n] for n in chosen], room)
        for n, of in zip(chosen, widths, strict=True):
            justify: Literal["left", "right"] = "right" if n else "left"
            grid.add_column(titles[n], justify=justify, overflow="fold", width=of)
        for row in rows:
            grid.add_row(*(row[n] for n in chosen))
        console.print(grid)


def _words(text: str) -> list[str]:
    """What is not to be broken; of a short text, such as a number with its unit, all of it."""
    return text.split() if len(text) > _SHORT else [text]


def _longest(texts: Iterable[str]) -> int:
    """Cells of the longest of some texts."""
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _widths(words: Sequence[int], whole: Sequence[int], room: int) -> list[int]:
    """Cells of each column: of its longest word at least, of its longest text if there is room.

    What is left over goes to those that want least first, so that few are wrapped. A word is
    broken only if it is too long for all of the room.
    """
    found = list(words)
    while sum(found) > room:
        found[found.index(max(found))] -= 1
    wanting = sorted(range(len(found)), key=lambda n: whole[n] - found[n])
    for done, n in enumerate(wanting):
        share = (room - sum(found)) // (len(found) - done)
        found[n] += min(whole[n] - found[n], share)
    return found


def _fitting(words: Sequence[int], together: Sequence[int], width: int) -> list[list[int]]:
    """Columns by table: the first in each, and as many others as there is room for.

    `words` are the cells of each column's longest word, `together` how many columns in a row are
    not to be parted.
    """

    def fits(columns: Sequence[int]) -> bool:
        return sum(words[n] + _BORDERS for n in columns) + 1 <= width

    found: list[list[int]] = [[0]]
    ends = list(accumulate(together))
    for group in map(range, [1, *ends], ends):
        if not fits([*found[-1], *group]) and len(found[-1]) > 1:
            found.append([0])
        for n in group:
            if not fits([*found[-1], n]) and len(found[-1]) > 1:
                found.append([0])
            found[-1].append(n)
    return found


def line(text: str) -> None:
    """One line on stdout."""
    print(text)


def told(title: str, text: str) -> None:
    """One line of progress on stderr, which stays."""
    print(f"{title}: {text}", file=sys.stderr)


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
