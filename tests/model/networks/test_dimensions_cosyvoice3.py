"""CosyVoice3's networks in other sizes than the recorded ones, against the numpy reference."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import msgspec
import numpy as np
import pytest
from converted import convert
from cosyvoice3_sizes import FlowSize, Random, Tensors, flow_shapes, hift_shapes
from numpy_reference import causal_hift, dit
from numpy_reference.flow import speaker
from numpy_reference.hift import source
from support import RUNTIMES

from edgepack.graph.weights import Weights
from edgepack.model.networks.causal_hift import causal_hift as hift
from edgepack.model.networks.causal_hift import causal_hift_source
from edgepack.model.networks.flow_dit import FlowDiTDims, flow_dit, flow_dit_time
from edgepack.model.networks.flow_front import FlowFrontDims, flow_front
from edgepack.model.networks.hift_dims import CausalHiFTDims
from edgepack.runtime.engines.session import Session
from edgepack.runtime.strategies.vocoder.causal_hift import CausalHiFT, Record
from edgepack.verification.selftest import relative_error

LIMIT = 1e-4
ROUNDED = 2e-4  # of audio: rounding errors of f0 in a shorter mel, amplified by the phase
ONE_HEAD = FlowSize(
    FlowFrontDims(vocabulary=101, between=14, mels=20, speaker=24, look_ahead=2, ratio=3),
    FlowDiTDims(mels=20, hidden=12, layers=1, heads=1, head_width=6),
    groups=3, taps=5, sinusoids=8, feed_forward=36, second_taps=4,
)  # fmt: skip
LONG_SKIP = FlowSize(
    FlowFrontDims(vocabulary=300, between=40, mels=10, speaker=16, look_ahead=5, ratio=1),
    FlowDiTDims(mels=10, hidden=24, layers=3, heads=3, head_width=10),
    groups=8, taps=31, sinusoids=20, feed_forward=30, long_skip=True,
)  # fmt: skip
FLOWS = {"one-head": ONE_HEAD, "long-skip": LONG_SKIP}

TWO_LEVELS = CausalHiFTDims(
    mels=20, base=24, harmonics=3, sample_rate=16000, rates=(5, 4), kernels=(11, 6), fft=32, hop=8,
    block_kernels=(3, 5), source_kernels=(9, 5), dilations=((1, 2), (1, 3)),
    source_dilations=((1, 4), (1,)), slope=0.2, limit=0.9, sine_amplitude=0.2,
    noise_deviation=0.01, threshold=85.0, ahead=2, pitch_ahead=5,
)  # fmt: skip
ONE_LEVEL = replace(
    TWO_LEVELS, mels=8, base=10, harmonics=5, rates=(6,), kernels=(7,), fft=16, hop=4,
    block_kernels=(7,), source_kernels=(3,), dilations=((1, 3, 5),), source_dilations=((1, 2),),
    ahead=6, pitch_ahead=1,
)  # fmt: skip
VOCODERS = {"two-levels": TWO_LEVELS, "one-level": ONE_LEVEL}
CONDITION = 9


@dataclass(frozen=True)
class Network:
    """Sessions of a network's stages, and their weights."""

    sessions: dict[str, Session]
    tensors: Tensors


Networks = Callable[[str, str], Network]


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    @cache
    def get(name: str, runtime: str) -> Network:
        size = FLOWS[name]
        w = Weights.of("flow.pt", Random(3).of(flow_shapes(size)))
        estimator = w / "decoder" / "estimator"
        graphs = [flow_front(w, size.front), flow_dit_time(estimator, size.transformer)]
        graphs.append(flow_dit(estimator, size.transformer))
        w.assert_all_read([])
        found = convert(graphs, tmp_path_factory.mktemp("flow"), runtime)
        return Network({stage: of.open(runtime) for stage, of in found.items()}, w.tensors)

    return get


@pytest.fixture(scope="module")
def vocoders(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    @cache
    def get(name: str, runtime: str) -> Network:
        dims = VOCODERS[name]
        w = Weights.of("hift.pt", Random(4).of(hift_shapes(dims, CONDITION)))
        graphs = [causal_hift_source(w, dims), hift(w, dims)]
        w.assert_all_read([])
        found = convert(graphs, tmp_path_factory.mktemp("hift"), runtime)
        return Network({stage: of.open(runtime) for stage, of in found.items()}, w.tensors)

    return get


def close(actual: np.ndarray, wanted: np.ndarray, limit: float = LIMIT) -> None:
    assert relative_error(np.asarray(actual), wanted.astype(np.float32)) <= limit


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("ends", [True, False], ids=["ends", "goes-on"])
def test_front(flows: Networks, name: str, runtime: str, ends: bool) -> None:
    network, size = flows(name, runtime), FLOWS[name].front
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, size.vocabulary, 17)
    embedding = rng.standard_normal(size.speaker).astype(np.float32)
    given = [*tokens, *[0] * size.look_ahead] if ends else tokens
    feeds: dict[str, np.ndarray] = {
        "tokens": np.asarray(given, np.int64)[None],
        "look_ahead": np.array([not ends], np.float32),
        "speaker": embedding[None],
    }
    found = network.sessions["flow_encoder"].run(feeds)
    ahead = 0 if ends else size.look_ahead
    wanted = dit.condition(network.tensors, tokens.tolist(), look_ahead=ahead, ratio=size.ratio)
    close(found["mu"], wanted.T[None])
    close(found["spk"], speaker(network.tensors, embedding))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(("frames", "chunk"), [(1, None), (23, None), (23, 4), (40, 40)])
def test_estimator(
    flows: Networks, name: str, runtime: str, frames: int, chunk: int | None
) -> None:
    network, size = flows(name, runtime), FLOWS[name].transformer
    rng = np.random.default_rng(1)
    x, mu, cond = rng.standard_normal((3, 1, size.mels, frames)).astype(np.float32)
    spk, t = rng.standard_normal((1, size.mels)).astype(np.float32), np.array([0.3], np.float32)
    feeds = {
        "x": x, "mu": mu, "cond": cond, "spk": spk,
        "shift": network.sessions["flow_time"].run({"t": t})["shift"],
        "step": np.array([0.25], np.float32),
        "chunk": np.array([chunk or frames], np.int64),
    }  # fmt: skip
    found = network.sessions["flow_estimator"].run(feeds)
    wanted = dit.estimate(network.tensors, x, mu, t, spk, cond, heads=size.heads, chunk=chunk)
    close(found["velocity"], wanted)
    close(found["next"], x + 0.25 * wanted)


def vocoder(dims: CausalHiFTDims, network: Network, window: int) -> CausalHiFT:
    settings = Record(
        frame=dims.frame, partials=dims.harmonics + 1, context=dims.context, ahead=dims.ahead,
        pitch_ahead=dims.pitch_ahead, overhang=dims.fft // 2, noise_seed=0, noise_skip=7,
        noise_frames=1000,
    )  # fmt: skip
    of = network.sessions
    return CausalHiFT(settings, of["hift"], window=window, excitation=of["hift_source"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", VOCODERS)
@pytest.mark.parametrize("final", [True, False], ids=["ends", "goes-on"])
def test_vocoder(vocoders: Networks, name: str, runtime: str, final: bool) -> None:
    dims, network = VOCODERS[name], vocoders(name, runtime)
    rng = np.random.default_rng(2)
    mel = rng.normal(-2, 1, (1, dims.mels, 40)).astype(np.float32)
    subject = vocoder(dims, network, window=1000)
    noise = subject.noise(40, rng)
    sound = subject.synthesize(mel, noise, final=final)
    close(sound.f0[0], causal_hift.pitch(network.tensors, mel, final=final))
    assert 0.1 < (sound.f0 > dims.threshold).mean() < 0.95  # some frames are voiced
    samples = sound.f0.shape[1] * dims.frame
    waves = causal_hift.sines(
        sound.f0[0], noise[0, :samples], frame=dims.frame, sample_rate=dims.sample_rate,
        amplitude=dims.sine_amplitude, deviation=dims.noise_deviation, threshold=dims.threshold,
    )  # fmt: skip
    close(sound.source[0, 0], source(network.tensors, waves))
    audio = causal_hift.vocode(
        network.tensors, mel[:, :, : sound.f0.shape[1]], sound.source[0, 0], final=final,
        rates=dims.rates, fft=dims.fft, hop=dims.hop, dilations=dims.dilations,
        source_dilations=dims.source_dilations, slope=dims.slope, limit=dims.limit,
    )  # fmt: skip
    close(sound.audio[0], audio)
    assert 0.02 < np.abs(audio).mean() < 0.8


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", VOCODERS)
def test_audio_in_windows_and_in_parts_is_that_of_the_whole(
    vocoders: Networks, name: str, runtime: str
) -> None:
    dims, network = VOCODERS[name], vocoders(name, runtime)
    rng, frames = np.random.default_rng(3), 90 + 2 * dims.context
    mel = rng.normal(-2, 1, (1, dims.mels, frames)).astype(np.float32)
    subject = vocoder(dims, network, window=10000)
    noise = subject.noise(frames, rng)
    whole = subject.synthesize(mel, noise).audio
    windowed = replace(subject, window=17).synthesize(mel, noise).audio
    np.testing.assert_allclose(windowed, whole, rtol=0, atol=ROUNDED)
    parts, spoken = [], 0
    for end in (5, 41, 60, frames):
        known = replace(subject, window=25).synthesize(
            mel[:, :, :end], noise, final=end == frames, start=spoken
        )
        parts.append(known.audio)
        spoken += known.audio.shape[1] // dims.frame
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=ROUNDED)
    settings = msgspec.structs.replace(subject.settings, context=dims.context // 3)
    short = replace(subject, settings=settings, window=17).synthesize(mel, noise).audio
    assert np.abs(short - whole).max() > 1e-3  # as less context would be heard
