"""Plug-ins are modules found by their file name; there is no list of them anywhere else."""

import ast
import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgepack.errors import UsageError

_PARTS = re.compile(r"[-_ ]")  # what is between the parts of a name
_SHORTEST = 3  # letters of a name that is looked for in others


def names(package: str) -> list[str]:
    """Sorted plug-in names of a package: its public modules, imported only on `load`."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load(package: str, name: str, attribute: str) -> object:
    """The `attribute` of plug-in `name`; raises UsageError with a suggestion if unknown."""
    known = names(package)
    if name not in known:
        raise UsageError(unknown(package.rsplit(".", 1)[-1].rstrip("s"), name, known))
    return getattr(importlib.import_module(f"{package}.{name}"), attribute)


def strings(package: str, name: str, attribute: str) -> tuple[str, ...]:
    """The strings of a plug-in's assignment `ATTRIBUTE = ("...",)`, without importing it."""
    (file,) = (
        found
        for folder in importlib.import_module(package).__path__
        if (found := Path(folder, f"{name}.py")).is_file()
    )
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
            return tuple(map(str, ast.literal_eval(node.value)))
    raise AttributeError(f"{package}.{name} has no {attribute}")


def unknown(
    what: str, name: str, known: Iterable[str], described: Mapping[str, str] | None = None
) -> str:
    """One line for a name that does not exist, with the closest ones that do.

    `described` has known names with words about them, which may be what was meant.
    """
    known = sorted(known)
    close = _close(name, known, described or {})
    *others, last = [repr(one) for one in close] or [""]
    meant = f"{', '.join(others)} or {last}" if others else last
    hint = f"did you mean {meant}?" if close else f"known: {', '.join(known) or 'none'}"
    return f"unknown {what} {name!r}; {hint}"


def _close(name: str, known: Sequence[str], described: Mapping[str, str]) -> list[str]:
    """Known names that may be meant, by the first of these criteria that finds any, ignoring case.

    The name is one of their parts; they are its beginning ("zh-CN"); they are similar; it is a word
    of their description; they have the same number ("8bit"); they, or the description, contain it.
    """
    plain = {one: _plain(one) for one in known}
    meant = _plain(name)
    parts = [one for one in known if name.casefold() in _PARTS.split(one)[1:]]
    begun = [one for one in known if one == _PARTS.split(name.casefold())[0]]
    if parts or begun:
        return parts or begun
    similar = difflib.get_close_matches(meant, plain.values(), n=1)
    found = [one for one in known if plain[one] in similar]
    words = {one: [*map(_plain, text.split())] for one, text in described.items()}
    found = found or [one for one in words if meant and meant in words[one]]
    found = found or [one for one in known if _number(name) and _number(one) == _number(name)]
    if found or len(meant) < _SHORTEST:
        return found[:1]
    within = [one for one in known if meant in plain[one]]
    return within or [one for one, words in described.items() if meant in _plain(words)]


def _number(text: str) -> str:
    return "".join(filter(str.isdecimal, text))


def _plain(text: str) -> str:
    """Letters and digits of a text, in lower case."""
    return "".join(c for c in text.casefold() if c.isalnum())
