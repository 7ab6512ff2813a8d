"""Plug-ins are modules found by their file name; there is no list of them anywhere else."""

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path

from edgepack.errors import UsageError


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


def constant(package: str, name: str, attribute: str) -> str:
    """A string that a plug-in begins with, `ATTRIBUTE = "..."`, without importing the plug-in."""
    (file,) = (
        found
        for folder in importlib.import_module(package).__path__
        if (found := Path(folder, f"{name}.py")).is_file()
    )
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
            return str(ast.literal_eval(node.value))
    raise AttributeError(f"{package}.{name} has no {attribute}")


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that does not exist, with the closest one that does."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"
    return f"unknown {what} {name!r}; {hint}"
