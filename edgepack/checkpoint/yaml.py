"""hyperpyyaml configuration as data: tags become `Tagged` values, nothing is imported or called.

Source of the format: speechbrain/HyperPyYAML (`!new:`, `!name:`, `!apply:`, `!ref`).
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgepack.errors import IntegrityError, UsageError

_MAX_BYTES = 1 << 20
_KINDS = ("new", "name", "apply")
_PACKAGES = frozenset({"cosyvoice", "matcha", "omegaconf", "torch", "torchaudio", "whisper"})
_SEEDING = frozenset(
    {
        "random.seed",
        "numpy.random.seed",
        "torch.manual_seed",
        "torch.cuda.manual_seed_all",
    }
)
_REFERENCE = re.compile(r"<([\w]+)((?:\[[\w]+\])*)>")
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Tagged:
    """`!new:target value` and its kin, as data; `kind` is "new", "name" or "apply"."""

    kind: str
    target: str
    value: Any


@dataclass(frozen=True)
class _Reference:
    text: str


class _Loader(yaml.SafeLoader):
    """SafeLoader that keeps hyperpyyaml tags and refuses every other tag."""


def _content(loader: _Loader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node) or None
    raise ValueError(f"line {node.start_mark.line + 1} is not a scalar, list or mapping")


def _tagged(kind: str) -> Callable[[_Loader, str, yaml.Node], Tagged]:
    def construct(loader: _Loader, target: str, node: yaml.Node) -> Tagged:
        line = node.start_mark.line + 1
        allowed = target in _SEEDING if kind == "apply" else target.split(".")[0] in _PACKAGES
        if not allowed:
            raise IntegrityError(f"unsafe: line {line} asks for !{kind}:{target}")
        return Tagged(kind, target, _content(loader, node))

    return construct


def _refuse(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    raise IntegrityError(f"unsafe: line {node.start_mark.line + 1} has the tag {node.tag!r}")


for _kind in _KINDS:
    _Loader.add_multi_constructor(f"!{_kind}:", _tagged(_kind))


def _reference(loader: _Loader, node: yaml.Node) -> _Reference:
    return _Reference(str(_content(loader, node)))


_Loader.add_constructor("!ref", _reference)
_Loader.add_multi_constructor("!", _refuse)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse)


def load(path: Path) -> dict[str, Any]:
    """The top-level mapping of a hyperpyyaml file with every `!ref` resolved.

    Raises IntegrityError for a tag outside CosyVoice's own vocabulary and UsageError for text
    that is not YAML.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise IntegrityError(f"{path}: larger than 1 MiB, not a CosyVoice configuration; refused")
    try:
        tree = yaml.load(path.read_text("utf-8"), Loader=_Loader)  # noqa: S506  # a SafeLoader
        if not isinstance(tree, dict):
            raise UsageError("the top level is not a mapping")
        return {key: _resolve(value, tree, ()) for key, value in tree.items()}
    except (IntegrityError, UsageError) as error:
        raise type(error)(f"{path}: {error}; refused") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from None
    except RecursionError:
        raise IntegrityError(f"{path}: nested too deeply; refused") from None


def _resolve(value: Any, tree: Mapping[str, Any], busy: tuple[str, ...]) -> Any:
    """`value` with every reference below it replaced by what it points to."""
    if isinstance(value, Tagged):
        return Tagged(value.kind, value.target, _resolve(value.value, tree, busy))
    if isinstance(value, dict):
        return {key: _resolve(item, tree, busy) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, tree, busy) for item in value]
    if isinstance(value, _Reference):
        return _dereference(value.text, tree, busy)
    return value


def _dereference(text: str, tree: Mapping[str, Any], busy: tuple[str, ...]) -> Any:
    """`<key>`, `<key[sub]>` or arithmetic over such references."""

    def look_up(match: re.Match[str]) -> Any:
        key, path = match[1], re.findall(r"\w+", match[2])
        if match[0] in busy:
            raise UsageError(f"!ref {match[0]} refers to itself")
        node = tree
        for step in (key, *path):
            if isinstance(node, Tagged):
                node = node.value
            if not isinstance(node, dict) or step not in node:
                raise UsageError(f"!ref {match[0]} points to nothing")
            node = node[step]
        return _resolve(node, tree, (*busy, match[0]))

    whole = _REFERENCE.fullmatch(text.strip())
    if whole:
        return look_up(whole)
    replaced = _REFERENCE.sub(lambda match: str(look_up(match)), text)
    try:
        return _arithmetic(ast.parse(replaced.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return replaced


def _arithmetic(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_arithmetic(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _arithmetic(node.left), _arithmetic(node.right)
        return _ARITHMETIC[type(node.op)](left, right)
    raise ValueError("not arithmetic")
