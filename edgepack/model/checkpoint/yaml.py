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

from edgepack.errors import IntegrityError, UsageError
from edgepack.files.documents import read_yaml

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
_FORMULA = re.compile(r"[0-9.eE+\-*/%() ]{1,100}")
_MAX_TEXT = 4096
_MAX_NUMBER = 1 << 63
_MAX_VALUES = 20_000  # with all references resolved; released configurations have 300
_MAX_CHAIN = 16  # references that lead to references


@dataclass(frozen=True)
class Tagged:
    """`!new:target value` and its kin, as data; `kind` is "new", "name" or "apply"."""

    kind: str
    target: str
    value: Any


@dataclass(frozen=True)
class _Reference:
    text: str


def load(path: Path) -> dict[str, Any]:
    """The top-level mapping of a hyperpyyaml file with every `!ref` resolved.

    Raises IntegrityError for a tag that CosyVoice does not use and for references that expand to
    too many values, and UsageError for text that is not YAML.
    """
    tree = read_yaml(path, _explained)
    try:
        if not isinstance(tree, dict):
            raise UsageError("the top level is not a mapping")
        return _Resolver(tree).resolved()
    except (IntegrityError, UsageError) as error:
        raise type(error)(f"{path}: {error}; refused") from None


def _explained(tag: str, line: int, content: Any) -> Any:
    """The value of a node with a tag."""
    if tag == "!ref":
        return _Reference(str(content))
    kind, _, target = tag.removeprefix("!").partition(":")
    if kind not in _KINDS or not tag.startswith("!"):
        raise IntegrityError(f"unsafe: line {line} has the tag {tag!r}")
    allowed = target in _SEEDING if kind == "apply" else target.split(".")[0] in _PACKAGES
    if not allowed:
        raise IntegrityError(f"unsafe: line {line} asks for !{kind}:{target}")
    return Tagged(kind, target, content)


class _Resolver:
    """A tree whose references are replaced by copies of what they point to, within a budget."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._tree = tree
        self._left = _MAX_VALUES

    def resolved(self) -> dict[str, Any]:
        return {key: self._resolve(value, ()) for key, value in self._tree.items()}

    def _resolve(self, value: Any, busy: tuple[str, ...]) -> Any:
        """`value` with every reference below it replaced by what it points to."""
        self._left -= 1
        if self._left < 0 or len(busy) > _MAX_CHAIN:
            raise IntegrityError("unsafe: its references multiply or are nested too deeply")
        if isinstance(value, Tagged):
            return Tagged(value.kind, value.target, self._resolve(value.value, busy))
        if isinstance(value, dict):
            return {key: self._resolve(item, busy) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolve(item, busy) for item in value]
        if isinstance(value, _Reference):
            return self._dereference(value.text.strip(), busy)
        return value

    def _dereference(self, text: str, busy: tuple[str, ...]) -> Any:
        """`<key>`, `<key[sub]>`, or text or arithmetic over such references."""
        whole = _REFERENCE.fullmatch(text)
        if whole:
            return self._look_up(whole, busy)
        replaced = _REFERENCE.sub(lambda match: self._written(match, busy), text)
        if len(replaced) > _MAX_TEXT:
            raise IntegrityError(f"unsafe: !ref {text[:64]} has {len(replaced)} characters")
        if not _FORMULA.fullmatch(replaced):
            return replaced
        try:
            return _arithmetic(ast.parse(replaced, mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError):
            return replaced

    def _look_up(self, match: re.Match[str], busy: tuple[str, ...]) -> Any:
        if match[0] in busy:
            raise UsageError(f"!ref {match[0]} refers to itself")
        node: Any = self._tree
        for step in (match[1], *re.findall(r"\w+", match[2])):
            if isinstance(node, Tagged):
                node = node.value
            if not isinstance(node, dict) or step not in node:
                raise UsageError(f"!ref {match[0]} points to nothing")
            node = node[step]
        return self._resolve(node, (*busy, match[0]))

    def _written(self, match: re.Match[str], busy: tuple[str, ...]) -> str:
        """The value that a reference inside a text points to, as text; it has to be a scalar."""
        value = self._look_up(match, busy)
        if isinstance(value, Tagged | dict | list) or len(text := str(value)) > _MAX_TEXT:
            raise IntegrityError(f"unsafe: !ref {match[0]} is too much to be part of a text")
        return text


def _arithmetic(node: ast.expr) -> float:
    value: float
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        value = node.value
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = -_arithmetic(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _arithmetic(node.left), _arithmetic(node.right)
        value = _ARITHMETIC[type(node.op)](left, right)
    else:
        raise ValueError("not arithmetic")
    if isinstance(value, int) and abs(value) >= _MAX_NUMBER:
        raise IntegrityError("a number of more than 64 bits")
    return value
