"""CosyVoice 1's networks in other sizes than the recorded ones, against the numpy reference."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from converted import convert
from cosyvoice3_sizes import Random, Tensors, hift_shapes
from numpy_reference import flow, hift, regulated_flow, relative_lm
from random_cosyvoice1_shapes import FlowSize, LMSize, flow_shapes, lm_shapes
from support import RUNTIMES

from edgepack.graph.net import Graph
from edgepack.graph.weights import Weights
from edgepack.model.networks.conformer import ConformerDims
from edgepack.model.networks.flow_unet import FlowUNetDims, flow_time, flow_unet
from edgepack.model.networks.hift_dims import HiFTDims
from edgepack.model.networks.regulated_flow_encoder import (
    RegulatedFlowEncoderDims,
    regulated_flow_encoder,
)
from edgepack.model.networks.sine_source import sine_source
from edgepack.model.networks.speaker import speaker_row
from edgepack.model.networks.text_encoder import TextEncoderDims, text_encoder
from edgepack.model.networks.transformer_lm import TransformerLMDims, transformer_lm
from edgepack.runtime.engines.session import Session
from edgepack.runtime.stages.length_regulation import stretched
from edgepack.verification.selftest import relative_error

LIMIT = 1e-4
ONE_HEAD = LMSize(
    TextEncoderDims(embedded=10, output=14, chunk=1, conformer=ConformerDims(16, 1, 20, 1)),
    TransformerLMDims(inputs=14, hidden=12, feed_forward=30, layers=1, heads=1, logits=33),
    speaker=8,
)
FIVE_HEADS = LMSize(
    TextEncoderDims(embedded=24, output=20, chunk=3, conformer=ConformerDims(36, 6, 50, 3)),
    TransformerLMDims(inputs=20, hidden=40, feed_forward=24, layers=4, heads=5, logits=101),
    speaker=30,
)
LMS = {"one-head": ONE_HEAD, "five-heads": FIVE_HEADS}

ONE_LEVEL = FlowSize(
    RegulatedFlowEncoderDims(50, 10, 12, 8, 2, ConformerDims(16, 1, 20, 1)),
    FlowUNetDims(mels=12, heads=1, head_width=10, groups=2),
    channels=6, levels=1, blocks=1, mid_blocks=2,
)  # fmt: skip
THREE_LEVELS = FlowSize(
    RegulatedFlowEncoderDims(300, 22, 20, 16, 5, ConformerDims(24, 4, 30, 3)),
    FlowUNetDims(mels=20, heads=3, head_width=4, groups=8),
    channels=16, levels=3, blocks=2, mid_blocks=1,
)  # fmt: skip
FLOWS = {"one-level": ONE_LEVEL, "three-levels": THREE_LEVELS}

VOCODER = HiFTDims(
    mels=20, base=24, harmonics=3, sample_rate=22050, rates=(5, 3), kernels=(11, 7), fft=16, hop=4,
    block_kernels=(3,), source_kernels=(5, 5), dilations=((1, 2),), source_dilations=((1,), (1,)),
    slope=0.1, limit=0.99, sine_amplitude=0.1, noise_deviation=0.003, threshold=10.0,
)  # fmt: skip
VOCODERS = {"odd-frame": VOCODER, "six-partials": replace(VOCODER, harmonics=5, rates=(2, 8))}


@dataclass(frozen=True)
class Network:
    """Sessions of a network's stages, and their weights."""

    sessions: dict[str, Session]
    tensors: Tensors


Make = Callable[[str, str], Network]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    @cache
    def get(name: str, runtime: str) -> Network:
        w, graphs = written(name)
        found = convert(graphs, tmp_path_factory.mktemp(name), runtime)
        return Network({stage: of.open(runtime) for stage, of in found.items()}, w.tensors)

    return get


def written(name: str) -> tuple[Weights, list[Graph]]:
    if name in LMS:
        size = LMS[name]
        w = Weights.of("llm.pt", Random(3).of(lm_shapes(size)))
        row = speaker_row(w / "spk_embed_affine_layer", size.model.inputs, size.speaker)
        graphs = [transformer_lm(w, size.model), text_encoder(w, size.text), row]
    elif name in FLOWS:
        of = FLOWS[name]
        w = Weights.of("flow.pt", Random(4).of(flow_shapes(of)))
        estimator = w / "decoder" / "estimator"
        graphs = [regulated_flow_encoder(w, of.encoder), flow_time(estimator, of.unet)]
        graphs.append(flow_unet(estimator, of.unet))
    else:
        w = Weights.of("hift.pt", Random(5).of(hift_shapes(VOCODERS[name], 9)))
        return w, [sine_source(w, VOCODERS[name])]
    w.assert_all_read([])
    return w, graphs


def close(actual: np.ndarray, wanted: np.ndarray, limit: float = LIMIT) -> None:
    assert relative_error(np.asarray(actual), wanted.astype(np.float32)) <= limit


def cases(names: Iterable[str]) -> list[Any]:
    """Every size in every runtime; but for the first, those that take long are slow tests."""
    _, *others = names
    slow = {*product(others, RUNTIMES[1:])}
    return [
        pytest.param(*case, marks=[pytest.mark.slow] if case in slow else [])
        for case in product(names, RUNTIMES)
    ]


@pytest.mark.parametrize(("name", "runtime"), cases(LMS))
def test_text_and_speaker(make: Make, name: str, runtime: str) -> None:
    network, size = make(name, runtime), LMS[name]
    rng = np.random.default_rng(0)
    for count in (1, 23):
        rows = rng.standard_normal((1, count, size.text.embedded), np.float32)
        found = network.sessions["text_encoder"].run({"embeddings": rows})["encoded"]
        heads, chunk = size.text.conformer.heads, size.text.chunk
        close(found[0], relative_lm.encode_text(network.tensors, rows[0], heads=heads, chunk=chunk))
    speaker = rng.standard_normal((1, size.speaker), np.float32)
    found = network.sessions["speaker_embedding"].run({"speaker": speaker})["embeddings"]
    close(found[0], flow.speaker(network.tensors, speaker))


@pytest.mark.parametrize(("name", "runtime"), cases(LMS))
def test_language_model_decodes_as_in_one_pass(make: Make, name: str, runtime: str) -> None:
    network, size = make(name, runtime), LMS[name].model
    session = network.sessions["speech_lm"]
    rows = np.random.default_rng(1).standard_normal((1, 300, size.inputs), np.float32)
    wanted = relative_lm.language_model(network.tensors, rows[0], heads=size.heads)
    for _ in range(2):  # a second utterance starts afresh
        session.reset()
        start = 0
        for count in (290, 1, 1, 5, 3):  # more than the slots that there are at first
            found = session.run({"embeddings": rows[:, start : start + count]})["logits"]
            start += count
            close(found[0], wanted.logits[start - 1])
        caches = session.caches()
        for layer in range(size.layers):
            close(caches[f"key_{layer}"][0], wanted.keys[layer])
            close(caches[f"value_{layer}"][0], wanted.values[layer])


@pytest.mark.parametrize(("name", "runtime"), cases(FLOWS))
def test_encoder(make: Make, name: str, runtime: str) -> None:
    network, size = make(name, runtime), FLOWS[name].encoder
    rng = np.random.default_rng(2)
    for count, frames in ((19, 33), (4, 31), (40, 25)):
        tokens = rng.integers(0, size.vocabulary, count)
        speaker = rng.standard_normal((1, size.speaker), np.float32)
        places = stretched(count, frames)
        feeds = {"tokens": tokens[None], "speaker": speaker, **places._asdict()}
        found = network.sessions["flow_encoder"].run(feeds)
        x = regulated_flow.encode(network.tensors, tokens.tolist(), heads=size.conformer.heads)
        centres = (np.arange(count) + 0.5) / count
        at = (np.arange(frames) + 0.5) / frames
        between = np.stack([np.interp(at, centres, column) for column in x.T], 1)
        close(found["mu"][0], regulated_flow.regulate(network.tensors, between).T)
        close(found["spk"], flow.speaker(network.tensors, speaker))


@pytest.mark.parametrize(("name", "runtime"), cases(FLOWS))
def test_estimator_step(make: Make, name: str, runtime: str) -> None:
    network, unet = make(name, runtime), FLOWS[name].unet
    rng = np.random.default_rng(3)
    for frames in (5, 22, 47):
        x, mu, cond = rng.standard_normal((3, 1, unet.mels, frames), np.float32)
        spk, t = rng.standard_normal((1, unet.mels), np.float32), np.array([0.37], np.float32)
        shift = network.sessions["flow_time"].run({"t": t})["shift"]
        found = network.sessions["flow_estimator"].run(
            {"x": x, "mu": mu, "cond": cond, "spk": spk, "shift": shift,
             "step": np.array([0.5], np.float32), "chunk": np.array([frames])}
        )  # fmt: skip
        wanted = regulated_flow.estimate(
            network.tensors,
            *(value.astype(np.float64) for value in (x, mu, t, spk, cond)),
            heads=unet.heads,
            groups=unet.groups,
        )
        close(found["velocity"], wanted)
        close(found["next"], x + 0.5 * wanted)


@pytest.mark.parametrize(("name", "runtime"), cases(VOCODERS))
def test_source(make: Make, name: str, runtime: str) -> None:
    network, dims = make(name, runtime), VOCODERS[name]
    rng = np.random.default_rng(4)
    for frames in (1, 2, 60):
        mel = rng.standard_normal((1, dims.mels, frames), np.float32)
        partials = dims.harmonics + 1
        noise = rng.standard_normal((1, frames * dims.frame, partials), np.float32)
        phase = rng.uniform(-np.pi, np.pi, (1, 1, partials)).astype(np.float32)
        feeds = {"mel": mel, "noise": noise, "phase": phase}
        found = network.sessions["hift_source"].run(feeds)
        close(found["f0"][0], hift.pitch(network.tensors, mel.astype(np.float64)))
        # From the graph's own pitch: the phase magnifies its rounding as the utterance goes on.
        waves = regulated_flow.sines(
            found["f0"][0], noise[0], phase[0, 0], frame=dims.frame, sample_rate=dims.sample_rate
        )
        close(found["source"][0, 0], hift.source(network.tensors, waves), 5e-4)
        voiced = found["f0"] > dims.threshold
        assert frames < 60 or voiced.any()
