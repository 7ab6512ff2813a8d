"""Networks that a checkpoint ships as ONNX and that a bundle takes over unchanged."""

import shutil
from pathlib import Path

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
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, checker and OS errors share no base class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise IntegrityError(
            f"{source}: not a valid ONNX file ({reason}); download it again"
        ) from None
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        raise IntegrityError(f"{source}: keeps weights in other files, which is unsafe; refused")
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
