"""Networks that a checkpoint ships as ONNX and that a bundle takes over."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from edgepack.builder import pooling
from edgepack.bundle.manifest import Carried
from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.process import shortage
from edgepack.report import Step, silent

_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def carry(source: Path, folder: Path, relative: str, warn: Step = silent) -> Carried:
    """Copy an ONNX file into a bundle and read the names of its inputs and outputs.

    Operators that newer runtimes compute in another way are written as what they meant; `warn` is
    told of those that cannot be. Raises IntegrityError if it is not ONNX or refers to other files,
    UnsupportedError for operators of a foreign domain.
    """
    try:
        model = onnx.load(source, load_external_data=False)
    except Exception as error:  # protobuf and OS errors share no base class
        if shortage.of_memory(error):
            raise
        raise _invalid(source, error) from None
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _within(model, onnx.TensorProto)):
        raise IntegrityError(f"{source}: keeps weights in other files, which is unsafe; refused")
    try:
        onnx.checker.check_model(model)
        graph = ir.from_proto(model)
        doubts, settled = pooling.doubts(graph), None
        if pooling.settle(graph):
            settled = ir.to_proto(graph)
            onnx.checker.check_model(settled)
    except Exception as error:  # nor do the checker's
        if shortage.of_memory(error):
            raise
        raise _invalid(source, error) from None
    foreign = {node.domain for node in _within(model, onnx.NodeProto)} - _DOMAINS
    if foreign:
        raise UnsupportedError(f"{source}: uses operators of {', '.join(sorted(foreign))}")
    for doubt in doubts:
        warn(f"{source.name}: {doubt}")
    target = folder / relative
    target.parent.mkdir(exist_ok=True)
    if settled:
        target.write_bytes(settled.SerializeToString())
    else:
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


def _within(message: Any, kind: type[Any]) -> Iterator[Any]:
    """Every message of a kind in a protobuf message: in attributes, inner graphs and functions."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _within(inner, kind)
