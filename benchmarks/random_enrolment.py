"""Stand-ins for the enrolment networks of a checkpoint, with the released interfaces."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SPEAKER, MELS = 192, 80


def speech_tokenizer(path: Path, codes: int) -> None:
    """A stand-in with the released interface: log-mel [1, 128, T] → one random code a 4 frames."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((codes, 128, 4), np.float32)
    nodes = [
        helper.make_node("Conv", ["feats", "weight"], ["scores"], strides=[4]),
        helper.make_node("ArgMax", ["scores"], ["wide"], axis=1, keepdims=0),
        helper.make_node("Cast", ["feats_length"], ["length"], to=TensorProto.INT64),
        helper.make_node("Div", ["length", "four"], ["tokens"]),
        helper.make_node("Slice", ["wide", "zero", "tokens", "one"], ["cut"]),
        helper.make_node("Cast", ["cut"], ["indices"], to=TensorProto.INT32),
    ]
    constants = {"four": [4], "zero": [0], "one": [1]}
    graph = helper.make_graph(
        nodes,
        "speech_tokenizer",
        [
            helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, 128, "T"]),
            helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
        ],
        [helper.make_tensor_value_info("indices", TensorProto.INT32, [1, "N"])],
        [numpy_helper.from_array(weight, "weight")]
        + [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items()],
    )
    _save_model(path, graph)


def speaker_encoder(path: Path) -> None:
    """A stand-in with the released interface: fbank [B, T, 80] → [B, 192]."""
    weight = np.random.default_rng(4).standard_normal((MELS, SPEAKER), np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["input", "time"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "speaker_encoder",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["B", "T", MELS])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", SPEAKER])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([1], np.int64), "time"),
        ],
    )
    _save_model(path, graph)


def _save_model(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
