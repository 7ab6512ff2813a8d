"""Trees of JSON with one wrong value each, for every kind of field."""

import json
from collections.abc import Iterator
from typing import Any

Tree = dict[str, Any]

LONGEST_SECONDS = 1.0  # for one of them
HUGE = 10**12
NAMED = (  # fields whose keys are names
    "stages", "variants", "files", "voices", "normalizers", "operators", "enrolment", "source",
    "tools", "solvers", "values", "limits", "parts", "options", "kinds", "recipes", "providers",
    "masks", "quality",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, HUGE, 2**63, -(10**400), 0.5, -1e9, 1e308, float("nan"), float("-inf"), "",
    "x", "x" * 100_000, "a\0b", "a/../b", "/etc/passwd", "\ud800", "名", [], [[]], {}, {"": {}},
)  # fmt: skip


def copied(tree: Tree) -> Tree:
    return dict(json.loads(json.dumps(tree)))


def places(tree: Any, kind: str = "", *path: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each value of a tree: what kind of field it is, and how to get there."""
    if path:
        yield kind, path
    by_name = path[-1:] and path[-1] in NAMED
    items = [*tree.items()] if isinstance(tree, dict) else []
    items = [*enumerate(tree)] if isinstance(tree, list) else items
    for key, value in items:
        name = "*" if by_name or isinstance(key, int) else key
        yield from places(value, f"{kind}.{name}", *path, key)


def mutants(tree: Tree) -> Iterator[tuple[str, Tree]]:
    """The tree with each kind of field once in each wrong way."""
    first: dict[str, tuple[Any, ...]] = {}
    for kind, path in places(tree):
        first.setdefault(kind, path)
    for kind, path in first.items():
        for value in (*VALUES, "DELETED", "RENAMED", "TWICE"):
            changed = copied(tree)
            above: Any = changed
            for key in path[:-1]:
                above = above[key]
            if value == "DELETED":
                del above[path[-1]]
            elif value == "RENAMED" and isinstance(above, dict):
                above["../" + path[-1]] = above.pop(path[-1])
            elif value == "TWICE" and isinstance(above[path[-1]], list):
                above[path[-1]] *= 2
            else:
                above[path[-1]] = value
            yield f"{kind} = {str(value)[:20]!r}", changed
