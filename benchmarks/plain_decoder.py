"""One step of the language model as exporters write it, to hold ours against.

Queries, keys, values, gate and up are products of their own, keys and values of a group are copied
for each of its heads, and nothing is fused by hand. Weights are random and stored as ours are.
"""

import logging
import math
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from random_configuration import Size

from edgepack.bundle.stages import Use
from edgepack.graph import layers
from edgepack.graph.net import Net, Value
from edgepack.graph.weights import Parameter, Weights

_EPSILON = 1e-6
_THETA = 1e6
_WARM_UP = 5


def write(path: Path, size: Size, bits: int, block: int) -> None:
    """Write the step, quantized, with its weights beside it."""
    folder = path.parent / f"{path.stem}.fp32"
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    whole = _step(size).finish(()).save(folder)
    quantizer = MatMulNBitsQuantizer(
        onnx.load(whole), bits=bits, block_size=block, is_symmetric=bits == 8, accuracy_level=4
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(path), True)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def open_step(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """The step, with threads that sleep while they wait, as ours have."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def feeds(size: Size, past: int) -> dict[str, onnxruntime.OrtValue]:
    """One token after `past` others."""
    width = size.hidden // size.heads
    shape = (1, size.kv_heads, past, width)
    rng = np.random.default_rng(0)
    arrays = {"embeddings": rng.standard_normal((1, 1, size.hidden), np.float32)}
    for i in range(size.layers):
        for kind in ("key", "value"):
            arrays[f"past_{kind}_{i}"] = rng.standard_normal(shape, np.float32)
    return {n: onnxruntime.OrtValue.ortvalue_from_numpy(a) for n, a in arrays.items()}


def timed(path: Path, size: Size, past: int, count: int, *, threads: int) -> list[float]:
    """Seconds of each of `count` steps, after a few that warm up."""
    session, given = open_step(path, threads), feeds(size, past)
    names = [output.name for output in session.get_outputs()]
    seconds = []
    for number in range(_WARM_UP + count):
        start = time.perf_counter()
        session.run_with_ort_values(names, given)
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - start)
    return seconds


def _step(size: Size) -> Net:
    net = Net("plain_decoder", Use(role="vocoder"))
    op = net.op
    width, group = size.hidden // size.heads, size.heads // size.kv_heads
    rng = np.random.default_rng(1)

    def random(name: str, *shape: int) -> Parameter:
        scale = np.float32(math.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 1.0)
        return Parameter(name, shape, lambda: rng.standard_normal(shape, np.float32) * scale)

    def product(x: Value, name: str, inputs: int, outputs: int) -> Value:
        return op.MatMul(x, net.parameter(random(name, inputs, outputs)))

    def norm(x: Value, name: str) -> Value:
        one = {f"{name}.weight": np.ones(size.hidden, np.float32)}
        return layers.rms_norm(net, x, Weights.of(name, one) / name, _EPSILON)

    def rotated(x: Value, cos: Value, sin: Value) -> Value:
        first, second = op.Split(x, axis=-1, num_outputs=2, _outputs=2)
        turned = op.Concat(op.Neg(second), first, axis=-1)
        return op.Add(op.Mul(x, cos), op.Mul(turned, sin))

    def repeated(x: Value) -> Value:
        wide = op.Expand(op.Unsqueeze(x, [2]), [1, size.kv_heads, group, 1, width])
        return op.Reshape(wide, [1, size.heads, -1, width])

    x = net.input("embeddings", [1, "n", size.hidden])
    axes: list[int | str] = [1, size.kv_heads, "past", width]
    past = [
        (net.input(f"past_key_{i}", axes), net.input(f"past_value_{i}", axes))
        for i in range(size.layers)
    ]
    before, count = layers.length(net, past[0][0], 2), layers.length(net, x, 1)
    index = op.Add(layers.positions(net, count), before)
    half = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequency = net.constant("frequency", (1.0 / _THETA**half).astype(np.float32))
    angle = op.Mul(op.Unsqueeze(op.Cast(index, to=1), [1]), frequency)
    angle = op.Concat(angle, angle, axis=-1)
    cos, sin = op.Cos(angle), op.Sin(angle)
    every = layers.positions(net, op.Add(before, count))
    late = op.Greater(op.Unsqueeze(every, [0]), op.Unsqueeze(index, [1]))
    mask = op.Where(late, layers.MASKED, 0.0)
    for i, (past_key, past_value) in enumerate(past):
        h = norm(x, f"norm1_{i}")
        heads = {"q": size.heads, "k": size.kv_heads, "v": size.kv_heads}
        parts = {}
        for name, number in heads.items():
            y = product(h, f"{name}_{i}", size.hidden, number * width)
            y = op.Add(y, net.parameter(random(f"{name}_bias_{i}", number * width)))
            parts[name] = layers.split_heads(net, y, number, width)
        q, k = rotated(parts["q"], cos, sin), rotated(parts["k"], cos, sin)
        k, v = op.Concat(past_key, k, axis=2), op.Concat(past_value, parts["v"], axis=2)
        net.output(f"key_{i}", k, [1, size.kv_heads, "past + n", width])
        net.output(f"value_{i}", v, [1, size.kv_heads, "past + n", width])
        scores = op.MatMul(q, op.Transpose(repeated(k), perm=[0, 1, 3, 2]))
        y = layers.attend(net, op.Mul(scores, width**-0.5), mask, repeated(v))
        y = layers.merge_heads(net, y, size.heads, width)
        x = op.Add(x, product(y, f"o_{i}", size.hidden, size.hidden))
        h = norm(x, f"norm2_{i}")
        gate = layers.silu(net, product(h, f"gate_{i}", size.hidden, size.intermediate))
        y = op.Mul(gate, product(h, f"up_{i}", size.hidden, size.intermediate))
        x = op.Add(x, product(y, f"down_{i}", size.intermediate, size.hidden))
    logits = product(norm(x, "norm"), "head", size.hidden, size.speech + 3)
    net.output("logits", logits, [1, "n", size.speech + 3])
    return net
