"""The decoder with operators of ONNX Runtime alone: the same logits and caches as the hub's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgepack.builder.backend import Job, backend
from edgepack.graph.net import Graph
from edgepack.graph.weights import Weights
from edgepack.model.networks.speech_lm import SpeechLMDims, speech_lm
from edgepack.profiles.recipe import named
from edgepack.profiles.target import RuntimeOptions
from edgepack.runtime.engines.session import Options, engine

DIMS = SpeechLMDims(64, 96, 2, 4, 2, 32, 1e6, 1e-6, 40)
NARROW = 24  # heads that the operator does not rotate
POSITIONS = (9, 1, 1, 3, 70, 1)  # more in all than there are slots at first
FUSED = {"GroupQueryAttention": 2, "SkipSimplifiedLayerNormalization": 4}


def network(width: int = DIMS.head_width) -> Graph:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "norm.weight": (64,), "head.weight": (40, 64), "head.bias": (40,)
    }  # fmt: skip
    for p in ("layers.0", "layers.1"):
        for part, rows in (("q", 4 * width), ("k", 2 * width), ("v", 2 * width)):
            shapes[f"{p}.self_attn.{part}_proj.weight"] = (rows, 64)
            shapes[f"{p}.self_attn.{part}_proj.bias"] = (rows,)
        shapes[f"{p}.self_attn.o_proj.weight"] = (64, 4 * width)
        shapes |= {f"{p}.mlp.{part}_proj.weight": (96, 64) for part in ("gate", "up")}
        shapes[f"{p}.mlp.down_proj.weight"] = (64, 96)
        shapes[f"{p}.input_layernorm.weight"] = (64,)
        shapes[f"{p}.post_attention_layernorm.weight"] = (64,)
    w = Weights.of("random", {n: rng.standard_normal(s, np.float32) / 4 for n, s in shapes.items()})
    return speech_lm(w, w / "head", replace(DIMS, head_width=width))


@pytest.mark.parametrize("container", ["onnx", "ort"])
@pytest.mark.parametrize("batched", [False, True], ids=["grown", "batched"])
def test_a_fused_decoder_gives_the_logits_and_caches_of_the_hub(
    tmp_path: Path, container: str, *, batched: bool
) -> None:
    graph = network()
    hub = graph.save(tmp_path)
    (tmp_path / "out").mkdir()
    options = RuntimeOptions(container=container, batched=batched, fuse_decoder=True)
    job = Job(
        "speech_lm", hub, tmp_path / "out", graph.states, named("ort", "fp32"), options
    )  # fmt: skip
    file = backend("ort").convert(job)[0]
    if container == "onnx":
        kinds = [node.op_type for node in ir.load(file).graph]
        assert {kind: kinds.count(kind) for kind in FUSED} == FUSED
        assert "Softmax" not in kinds
    ort = engine("ort")
    ours, theirs = (ort.open(path, graph.states, Options(1)) for path in (file, hub))
    rng = np.random.default_rng(1)
    for count in POSITIONS:
        feeds = {"embeddings": rng.standard_normal((1, count, 64), np.float32)}
        near(ours.run(feeds)["logits"], theirs.run(feeds)["logits"])
    for name, wanted in theirs.caches().items():
        near(ours.caches()[name], wanted)


@pytest.mark.parametrize(("width", "fuse_decoder"), [(NARROW, True), (DIMS.head_width, False)])
def test_what_cannot_or_shall_not_be_fused_stays(
    tmp_path: Path, width: int, *, fuse_decoder: bool
) -> None:
    graph = network(width)
    hub = graph.save(tmp_path)
    (tmp_path / "out").mkdir()
    options = RuntimeOptions(container="onnx", fuse_decoder=fuse_decoder)
    job = Job("speech_lm", hub, tmp_path / "out", graph.states, named("ort", "fp32"), options)
    kinds = {node.op_type for node in ir.load(backend("ort").convert(job)[0]).graph}
    assert not kinds & set(FUSED)


def test_rows_write_their_keys_in_place_and_leave(tmp_path: Path) -> None:
    graph = network()
    hub = graph.save(tmp_path)
    rows = []
    for fuse_decoder in (True, False):
        folder = tmp_path / str(fuse_decoder)
        folder.mkdir()
        options = RuntimeOptions(container="onnx", batched=True, fuse_decoder=fuse_decoder)
        job = Job("speech_lm", hub, folder, graph.states, named("ort", "fp32"), options)
        session = engine("ort").open(backend("ort").convert(job)[0], graph.states, Options(1))
        rng = np.random.default_rng(1)
        found = session.rows()
        assert found
        for count in (9, 70, 3):  # rows of other lengths, each after its own prefill
            session.reset()
            session.run({"embeddings": rng.standard_normal((1, count, 64), np.float32)})
            found.join(session.caches())
        rows.append(found)
    ours, theirs = rows
    rng = np.random.default_rng(2)
    for step in range(80):  # more than there are slots at first
        if step == 40:  # the last takes its place, and the row of nobody is no longer empty
            ours.leave(0)
            theirs.leave(0)
        feeds = {"embeddings": rng.standard_normal((3 - (step >= 40), 1, 64), np.float32)}
        near(ours.run(feeds)["logits"], theirs.run(feeds)["logits"])


def near(found: np.ndarray, wanted: np.ndarray) -> None:
    """Within 1e-4 of the largest value."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * float(np.abs(wanted).max()))
