"""YAML and JSON of unknown origin as plain trees, with limits on size and depth.

Of YAML only the core is read. Refused is what makes a small text large (anchors, aliases and merge
keys), what gives surprising values (numbers in base 60 or 8, dates), and every tag that the caller
does not explain. Keys are text and occur once. The depth of nesting is limited in both formats.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from edgepack.errors import IntegrityError, UsageError
from edgepack.files import charset

_MAX_YAML_BYTES = 32 << 10  # the largest released configuration has 7 kB
_MAX_JSON_BYTES = 1 << 20
_MAX_DEPTH = 32
_MAX_DIGITS = 18  # a whole number fits into 64 bits

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?([0-9]+)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)

Explain = Callable[[str, int, Any], Any]


def read_bytes(path: Path, most: int) -> bytes:
    """A text file of at most `most` bytes, without the byte-order mark that it may begin with.

    Raises UsageError if it cannot be read or has more.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError for a name with a NUL byte
        raise UsageError(f"{path}: cannot be read ({error})") from None
    if len(data) > most:
        size = f"{most >> 20} MiB" if most >> 20 else f"{most >> 10} KiB"
        raise UsageError(f"{path}: larger than {size}; not a file of this kind")
    return charset.unmarked(data)


def read_json(path: Path, most: int = _MAX_JSON_BYTES) -> Any:
    """A JSON document; raises UsageError if it is invalid, IntegrityError if nested too deeply."""
    data = read_bytes(path, most)
    try:
        tree = msgspec.json.decode(data.decode())
    except RecursionError:
        raise IntegrityError(f"{path}: nested too deeply; refused") from None
    except UnicodeDecodeError:
        raise charset.refused(path, data) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"{path}: not valid JSON: {error}") from None
    level = [tree]
    for _ in range(_MAX_DEPTH):
        level = [item for value in level for item in _items(value)]
    if level:
        raise IntegrityError(f"{path}: nested too deeply; refused")
    return tree


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def read_yaml(path: Path, explain: Explain | None = None) -> Any:
    """A YAML document.

    `explain(tag, line, content)` gives the value of a node with a tag of its own, whose content
    is a dict, a list, text, or None if it is empty. Raises UsageError for invalid YAML and
    IntegrityError for the parts of YAML that are refused here, each with the path and the line.
    """
    data = read_bytes(path, _MAX_YAML_BYTES)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise charset.refused(path, data) from None
    try:
        return _Reader(text, explain or _unknown).document()
    except (IntegrityError, UsageError) as error:
        raise type(error)(f"{path}: {error}; refused") from None
    except Exception as error:  # PyYAML's scanner raises more than its own, such as OverflowError
        raise UsageError(f"{path}: not valid YAML: {error}") from None


def _unknown(tag: str, line: int, _: Any) -> Any:
    raise IntegrityError(f"unsafe: line {line} has the tag {tag!r}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


class _Reader:
    """A tree from the events of PyYAML's parser, which builds nothing and does not recurse."""

    def __init__(self, text: str, explain: Explain) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._explain = explain

    def document(self) -> Any:
        value: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise UsageError("more than one document")
            elif isinstance(event, yaml.NodeEvent):
                value = self._node(event, 0)
        return value

    def _node(self, event: yaml.Event, depth: int) -> Any:
        line = _line(event)
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) or event.anchor:
            raise IntegrityError(f"unsafe: line {line} has an anchor or an alias")
        if depth > _MAX_DEPTH:
            raise IntegrityError(f"line {line} is nested too deeply")
        tag = None if event.tag == "!" else event.tag
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, line, tagged=tag is not None)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = [self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            value = self._mapping(depth)
        return value if tag is None else self._explain(tag, line, value)

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self._until(yaml.MappingEndEvent):
            line = _line(event)
            key = self._node(event, depth + 1)
            if not isinstance(key, str):
                raise UsageError(f"line {line} has a key that is not text")
            if key == "<<":
                raise IntegrityError(f"unsafe: line {line} has a merge key")
            if key in found:
                raise UsageError(f"line {line} has {key[:64]!r} a second time")
            found[key] = self._node(next(self._events), depth + 1)
        return found

    def _scalar(self, event: yaml.ScalarEvent, line: int, *, tagged: bool) -> Any:
        text: str = event.value
        text.encode()  # raises UnicodeEncodeError for a lone surrogate
        if tagged:
            return text or None
        if not event.implicit[0]:
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if whole := _WHOLE.fullmatch(text):
            if len(whole[1]) > _MAX_DIGITS:
                raise IntegrityError(f"line {line} has a number of {len(whole[1])} digits")
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text
