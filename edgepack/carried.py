"""Networks that a checkpoint ships as ONNX and that a bundle takes over unchanged."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.manifest import Carried

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def carry(source: Path, folder: Path, relative: str) -> Carried:
    """Copy an ONNX file into a bundle and read the names of its inputs and outputs.

    Raises IntegrityError if it is not ONNX or refers to other files, UnsupportedError for
    operators of a foreign domain.
    """
    try:
        model = onnx.load(source, load_external_data=False)
    except Exception as error:  # protobuf and OS errors share no base class
        raise _invalid(source, error) from None
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _tensors(model)):
        raise IntegrityError(f"{source}: keeps weights in other files, which is unsafe; refused")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # nor do the checker's
        raise _invalid(source, error) from None
    foreign = {node.domain for node in model.graph.node} - _DOMAINS
    if foreign:
        raise UnsupportedError(f"{source}: uses operators of {', '.join(sorted(foreign))}")
    target = folder / relative
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    weights = {tensor.name for tensor in model.graph.initializer}
    return Carried(
        file=relative,
        inputs=tuple(v.name for v in model.graph.input if v.name not in weights),
        outputs=tuple(v.name for v in model.graph.output),
    )


def _invalid(source: Path, error: Exception) -> IntegrityError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return IntegrityError(f"{source}: not a valid ONNX file ({reason}); download it again")


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor of a protobuf message, also in attributes, inner graphs and functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(inner)
