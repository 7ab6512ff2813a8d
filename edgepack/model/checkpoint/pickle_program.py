"""The pickle of a `.pt` file, read as a program over the two dozen opcodes that torch.save writes.

Python's unpickler imports objects and calls them; this one calls nothing. A global is only a name,
a storage is made only by its persistent record, and the result is plain data: dicts, lists, tuples,
text, numbers and numpy arrays. Any other opcode, global or argument is an IntegrityError that says
what it is and at which byte.
Source: Python's pickletools.py; torch/serialization.py and torch/_utils.py.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from edgepack.errors import IntegrityError

Read = Callable[[str, np.dtype[Any], int], np.ndarray]

# A full-size state dict takes about 15,000 opcodes.
_MAX_OPCODES = 300_000
_MAX_VALUES = 200_000
_MAX_DEPTH = 32
_MAX_NAME = 256
_MAX_AXES = 32
_MAX_BYTES = 1 << 62  # of an array with a length of zero, which takes none

_TORCH_SIZE = "torch.Size"
_ORDERED = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
}
_STATE = {"_metadata"}
_GLOBALS = frozenset({_TORCH_SIZE, _ORDERED, _TENSOR, _PARAMETER, *_DTYPES})


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    values: np.ndarray


def run(program: bytes, read: Read) -> Any:
    """The value that a pickle describes; `read(key, dtype, count)` gives the values of a storage.

    Raises IntegrityError for anything that torch.save does not write.
    """
    machine = _Machine(program, read)
    return _plain(machine.run(), [_MAX_VALUES], 0)


def _plain(value: Any, left: list[int], depth: int) -> Any:
    """A deep copy in which no container is shared; it may have `left[0]` values, counted down."""
    left[0] -= 1
    if left[0] < 0 or depth > _MAX_DEPTH:
        raise IntegrityError("unsafe: the pickle's values are nested or repeated without end")
    if type(value) is dict:
        return {key: _plain(item, left, depth + 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, left, depth + 1) for item in value)
    if isinstance(value, _Global | _Storage):
        raise IntegrityError("unsafe: the pickle has a storage or a global among its values")
    return value


class _Machine:
    """The stack, the marks and the memo of one run."""

    def __init__(self, program: bytes, read: Read) -> None:
        self._program, self._read = program, read
        self._at = 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks under marks
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MAX_OPCODES):
            code = self._take(1)[0]
            if code == _STOP:
                break
            step = _STEPS.get(code)
            if step is None:
                self.refuse(f"opcode {code:#04x}")
            step(self)
        else:
            self.refuse(f"more than {_MAX_OPCODES:,} opcodes")
        if self._below or len(self._stack) != 1 or self._at != len(self._program):
            self.refuse("an end that is none")
        return self._stack[0]

    def refuse(self, what: str) -> NoReturn:
        raise IntegrityError(f"unsafe: the pickle has {what} at byte {self._at}")

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._program):
            self.refuse(f"{count} bytes to read but ends")
        self._at, start = end, self._at
        return self._program[start:end]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _pop(self) -> Any:
        if not self._stack:
            self.refuse("too few values on its stack")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        if not self._below:
            self.refuse("no mark")
        above, self._stack = self._stack, self._below.pop()
        return above

    # Opcodes, in the order of pickletools.

    def number(self, form: str) -> None:
        self._stack.append(self._number(form))

    def long(self) -> None:
        size = self._take(1)[0]
        if size > 8:
            self.refuse(f"a whole number of {size} bytes")
        self._stack.append(int.from_bytes(self._take(size), "little", signed=True))

    def text(self, form: str) -> None:
        data = self._take(self._number(form))
        try:
            self._stack.append(data.decode())
        except UnicodeDecodeError:
            self.refuse("text that is not UTF-8")

    def constant(self, value: object) -> None:
        self._stack.append(value)

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def tuple_of_marked(self) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def empty(self, kind: type[dict[Any, Any]] | type[list[Any]]) -> None:
        self._stack.append(kind())

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def append(self, items: list[Any]) -> None:
        target = self._stack[-1] if self._stack else None
        if type(target) is not list:
            self.refuse("an item for what is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1] if self._stack else None
        if type(target) is not dict or len(items) % 2:
            self.refuse("an entry for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                self.refuse("a key that is neither text nor a whole number")
            target[key] = value

    def append_one(self) -> None:
        self.append([self._pop()])

    def append_marked(self) -> None:
        self.append(self._pop_mark())

    def set_one(self) -> None:
        value, key = self._pop(), self._pop()
        self.set_items([key, value])

    def set_marked(self) -> None:
        self.set_items(self._pop_mark())

    def put(self, form: str) -> None:
        self._remember(self._number(form))

    def memoize(self) -> None:
        self._remember(len(self._memo))

    def _remember(self, slot: int) -> None:
        if not self._stack:
            self.refuse("nothing to remember")
        self._memo[slot] = self._stack[-1]

    def get(self, form: str) -> None:
        slot = self._number(form)
        if slot not in self._memo:
            self.refuse(f"nothing remembered as {slot}")
        self._stack.append(self._memo[slot])

    def global_in_lines(self) -> None:
        names = []
        for _ in range(2):
            end = self._program.find(b"\n", self._at, self._at + _MAX_NAME)
            if end < 0:
                self.refuse("a global without a name")
            names.append(self._take(end - self._at).decode("ascii", "backslashreplace"))
            self._take(1)
        self._push_global(*names)

    def global_on_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.refuse("a global whose name is no text")
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in _GLOBALS:
            raise IntegrityError(f"unsafe: the pickle asks for {full[:_MAX_NAME]}")
        self._stack.append(_Global(full))

    def storage(self) -> None:
        match self._pop():
            case (str(tag), _Global(name), str(key), str(), count) if (
                tag == "storage" and name in _DTYPES and type(count) is int
            ):
                self._stack.append(_Storage(self._read(key, _DTYPES[name], count)))
            case _:
                self.refuse("a persistent record of something else than a storage")

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        name = function.name if isinstance(function, _Global) else ""
        match name, arguments:
            case "collections.OrderedDict", ():
                self._stack.append({})
            case "torch.Size", (tuple(size),) if _whole(size):
                self._stack.append(size)
            case "torch._utils._rebuild_tensor_v2", (
                _Storage(values), offset, tuple(size), tuple(stride), bool(), _, *_
            ) if _whole((offset,)) and _whole(size) and _whole(stride):  # fmt: skip
                self._stack.append(_view(values, offset, size, stride))
            case "torch._utils._rebuild_parameter", (np.ndarray() as value, bool(), _):
                self._stack.append(value)
            case _:
                self.refuse(f"a call of {name or 'a value'} with other arguments than torch's")

    def build(self) -> None:
        """Opcode BUILD, an object's state: torch writes one for a state dict, and it is ignored."""
        state = self._pop()
        target = self._stack[-1] if self._stack else None
        if type(target) is not dict or type(state) is not dict or not state.keys() <= _STATE:
            self.refuse("state for something else than a state dict")

    def frame(self) -> None:
        if self._number("<Q") > len(self._program) - self._at:
            self.refuse("a frame that is cut off")

    def protocol(self) -> None:
        if not 2 <= (version := self._take(1)[0]) <= 5:
            self.refuse(f"protocol {version}")


_STOP = ord(".")
_STEPS: Mapping[int, Callable[[_Machine], None]] = {
    ord("J"): lambda m: m.number("<i"),
    ord("K"): lambda m: m.number("<B"),
    ord("M"): lambda m: m.number("<H"),
    ord("G"): lambda m: m.number(">d"),
    0x8A: _Machine.long,
    ord("X"): lambda m: m.text("<I"),
    0x8C: lambda m: m.text("<B"),
    ord("N"): lambda m: m.constant(None),
    0x88: lambda m: m.constant(True),
    0x89: lambda m: m.constant(False),
    ord("]"): lambda m: m.empty(list),
    ord("}"): lambda m: m.empty(dict),
    ord("("): _Machine.mark,
    ord(")"): lambda m: m.tuple_of(0),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): _Machine.tuple_of_marked,
    ord("a"): _Machine.append_one,
    ord("e"): _Machine.append_marked,
    ord("s"): _Machine.set_one,
    ord("u"): _Machine.set_marked,
    ord("q"): lambda m: m.put("<B"),
    ord("r"): lambda m: m.put("<I"),
    0x94: _Machine.memoize,
    ord("h"): lambda m: m.get("<B"),
    ord("j"): lambda m: m.get("<I"),
    ord("c"): _Machine.global_in_lines,
    0x93: _Machine.global_on_stack,
    ord("Q"): _Machine.storage,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
    0x80: _Machine.protocol,
    0x95: _Machine.frame,
}


def _whole(numbers: tuple[Any, ...]) -> bool:
    return len(numbers) <= _MAX_AXES and all(type(n) is int for n in numbers)


def _view(
    values: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> np.ndarray:
    """A strided view of a storage (`torch._utils._rebuild_tensor_v2`), checked to lie within it.

    Offset and strides count values. They are Python integers, which cannot overflow.
    """
    if len(size) != len(stride):
        raise IntegrityError(f"unsafe: a tensor has {len(size)} lengths and {len(stride)} strides")
    if min((offset, *size, *stride)) < 0:
        raise IntegrityError("unsafe: a tensor has a negative offset, size or stride")
    count = math.prod(size)
    if count == 0:
        if math.prod(n for n in size if n) * values.itemsize > _MAX_BYTES:
            raise IntegrityError(f"unsafe: an empty tensor of {size}")
        return np.empty(size, values.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= values.size:
        raise IntegrityError(
            f"unsafe: a tensor of {size} reaches beyond its storage of {values.size} values"
        )
    if count > values.size:
        raise IntegrityError(
            f"unsafe: a tensor of {size} is larger than its storage of {values.size} values"
        )
    # The stride of a length of one is never taken, and may be any number.
    steps = [values.itemsize * (s if n > 1 else 1) for n, s in zip(size, stride, strict=True)]
    view = np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)
    return np.asarray(view)
