"""Networks of other sizes than the recorded ones, in both runtimes, against the numpy reference."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import random_cosyvoice2
import random_weights
from numpy_reference import flow, hift, lm
from random_configuration import Size
from random_cosyvoice2 import TINY
from support import GOLDEN, RUNTIMES, Build, Checkpoints

from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.runtime.loading import Loaded, load
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.solver import euler
from edgepack.runtime.strategies.flow.causal_chunks import CausalChunks
from edgepack.runtime.strategies.vocoder.hift import HiFT
from edgepack.verification.selftest import relative_error

LIMIT = 1e-4
LARGEST_SAMPLE, VOICED = 0.99, 10
LOOK_AHEAD, RATIO, SAMPLE_RATE, FRAME = 3, 2, 24000, 480
TWO_LEVELS = Size(
    text_rows=6208, speech=501, hidden=48, intermediate=72, layers=2, heads=4, kv_heads=2,
    encoder=32, encoder_heads=2, encoder_ff=40, encoder_blocks=1, chunk=6, channels=16,
    estimator_heads=2, head_width=20, blocks=1, mid_blocks=1, base=48, condition=12, harmonics=3,
    rates=[4, 5, 3], kernels=[8, 11, 7], fft=32, hop=8, res_kernels=[3, 5, 7],
    source_kernels=[3, 5, 7], dilations=[1, 3],
)  # fmt: skip
SIZES = {"tiny": TINY, "two-levels": TWO_LEVELS}


@dataclass(frozen=True)
class Subject:
    """A loaded bundle with the size and the tensors that it was made of."""

    size: Size
    loaded: Loaded
    tensors: Mapping[str, Mapping[str, np.ndarray]] = field(repr=False)

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(7)

    def mel(self, frames: int) -> np.ndarray:
        return self.rng.standard_normal((1, 80, frames), np.float32) * 2 - 3


def two_levels(size: Size) -> random_weights.Shapes:
    """Tensors of flow.pt whose estimator has a second channel level of the same width."""
    width = size.channels
    found: random_weights.Shapes = {}
    for name, shape in single_level(size).items():
        if "down_blocks.0.2." in name:
            found[name.replace("blocks.0.2", "blocks.0.2.conv")] = shape
            found[name.replace("blocks.0", "blocks.1")] = shape
        elif "up_blocks.0.2." in name:
            taps = (width, width, 4) if name.endswith("weight") else shape
            found[name.replace("blocks.0.2", "blocks.0.2.conv")] = taps
            found[name.replace("blocks.0", "blocks.1")] = shape
        else:
            found[name] = shape
            if "up_blocks.0" in name:
                found[name.replace("blocks.0", "blocks.1")] = shape
            if "mid_blocks.0" in name:
                found[name.replace("mid_blocks.0", "down_blocks.1")] = shape
    return found


def scattered(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random values also for the tensors that are all zeros or all ones in the tiny checkpoint."""
    value = plain_values(name, shape, seed)
    if len(shape) == 1 or name.endswith("original0"):
        value += np.random.default_rng([1, seed]).normal(0, 0.2, shape).astype(np.float32)
    if name == "f0_predictor.classifier.weight":
        value /= 10  # low enough that some frames are unvoiced
    return value


single_level, plain_values = random_cosyvoice2.flow_shapes, random_weights.values


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints, bundle: Build
) -> Callable[[str], tuple[Path, Path]]:
    """The checkpoint and the bundle of a model."""

    @cache
    def get(model: str) -> tuple[Path, Path]:
        if model == "tiny":
            return Path(checkpoints(model)), bundle(model)
        folder = tmp_path_factory.mktemp("two-levels")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(random_cosyvoice2, "flow_shapes", two_levels)
            patch.setattr(random_weights, "values", scattered)
            tokenizer = random_cosyvoice2.DEMO / "CosyVoice-BlankEN"
            random_cosyvoice2.write(folder / "checkpoint", TWO_LEVELS, tokenizer)
        request = BuildRequest(str(folder / "checkpoint"), ["intel-cpu"], folder, RUNTIMES)
        return folder / "checkpoint", build(request)[0].bundle.folder

    return get


@pytest.fixture(scope="module", params=product(SIZES, RUNTIMES), ids="-".join)
def subject(request: pytest.FixtureRequest, folders: Callable[[str], tuple[Path, Path]]) -> Subject:
    model, runtime = request.param
    checkpoint, built = folders(model)
    opened = open_checkpoint(checkpoint)
    tensors = {part: opened.tensors(part) for part in ("llm", "flow", "hift")}
    return Subject(SIZES[model], load(built, runtime, threads=1), tensors)


def close(actual: np.ndarray, wanted: np.ndarray) -> None:
    assert relative_error(actual, wanted) < LIMIT


def test_language_model_decodes_as_in_one_pass(subject: Subject) -> None:
    size, decoder = subject.size, subject.loaded.decoder
    text, spoken = [5, 0, size.text_rows - 1, 77], [3, size.speech - 1, 0, 9, 9, 250]
    block = decoder.prefix(text, Context((), spoken[:2]))
    rows = lm.prefix(subject.tensors["llm"], text, spoken)
    wanted = lm.speech_lm(
        subject.tensors["llm"],
        rows,
        heads=size.heads,
        kv_heads=size.kv_heads,
        rope_theta=1e6,
        eps=1e-6,
    )
    for _ in range(2):  # a second utterance starts afresh
        session = decoder.language_model
        session.reset()
        logits = [session.run({"embeddings": block})["logits"]]
        for token in spoken[2:]:
            logits.append(session.run({"embeddings": decoder.embed_speech([token])})["logits"])
        close(np.concatenate(logits), wanted.logits[block.shape[1] - 1 :])
        caches = session.caches()
        for layer in range(size.layers):
            close(caches[f"key_{layer}"][0], wanted.keys[layer])
            close(caches[f"value_{layer}"][0], wanted.values[layer])


def test_embedding_tables(subject: Subject) -> None:
    text, spoken = [1, 4000, 2], [0, subject.size.speech + 2]
    wanted = lm.prefix(subject.tensors["llm"], text, spoken)[None]
    assert np.array_equal(
        subject.loaded.decoder.prefix(text[1:], Context(text[:1], spoken)), wanted
    )


@pytest.mark.parametrize("final", [True, False], ids=["whole", "look-ahead"])
@pytest.mark.parametrize("chunked", [False, True], ids=["offline", "streaming"])
@pytest.mark.parametrize("count", [4, 25])
def test_encoder(subject: Subject, count: int, chunked: bool, final: bool) -> None:
    size, decoder = subject.size, subject.loaded.flow
    tokens = [int(token) for token in subject.rng.integers(0, size.speech, count)]
    embedding = subject.rng.standard_normal(192, np.float32)
    assert isinstance(decoder, CausalChunks)
    feeds = decoder.encoder_feeds(tokens, embedding, final=final, chunked=chunked)
    outputs = decoder.encoder.run(feeds)
    _, mu = flow.encode(
        subject.tensors["flow"],
        tokens,
        heads=size.encoder_heads,
        look_ahead=0 if final else LOOK_AHEAD,
        chunk=size.chunk if chunked else None,
    )
    close(outputs["mu"], mu.T[None])
    close(outputs["spk"], flow.speaker(subject.tensors["flow"], embedding))


@pytest.mark.parametrize("frames", [1, 22, 47])
@pytest.mark.parametrize("chunk", [None, 10])
def test_estimator_step(subject: Subject, frames: int, chunk: int | None) -> None:
    x, mu, cond = subject.rng.standard_normal((3, 1, 80, frames), np.float32)
    spk = subject.rng.standard_normal((1, 80), np.float32)
    t = np.array([0.37], np.float32)
    rows = [np.concatenate([y, np.zeros_like(y)]) for y in (mu, spk, cond)]
    shift = subject.loaded.flow.time_embedding.run({"t": t})["shift"]
    velocities = subject.loaded.flow.velocity_field(mu, spk, cond, chunked=False)
    velocities = replace(velocities, constants={"chunk": np.array([chunk or frames])})
    weights = np.array([1.7 * 0.25, -0.7 * 0.25], np.float32)
    moved, velocity = velocities.step(x, shift, weights)
    guided, free = flow.estimate(
        subject.tensors["flow"],
        np.concatenate([x, x]),
        rows[0],
        np.repeat(t, 2),
        *rows[1:],
        heads=subject.size.estimator_heads,
        chunk=chunk,
    )
    close(velocity, np.stack([guided, free]))
    close(moved, x + 0.25 * (1.7 * guided - 0.7 * free))
    moved, velocity = velocities.step(x, shift, np.array([0.5], np.float32))
    close(velocity, guided[None])
    close(moved, x + 0.5 * guided)


@pytest.mark.parametrize(("final", "chunked"), [(True, False), (False, True)])
def test_solved_mel(subject: Subject, final: bool, chunked: bool) -> None:
    size, tensors = subject.size, subject.tensors["flow"]
    prompt, tokens = [7, 1, 1, 400], [2, 3, 44, 0, 500, 9, 10, 11, 12]
    embedding = subject.rng.standard_normal(192, np.float32)
    prompt_mel = subject.mel(RATIO * len(prompt))[0].T
    _, mu = flow.encode(
        tensors,
        [*prompt, *tokens],
        heads=size.encoder_heads,
        look_ahead=0 if final else LOOK_AHEAD,
        chunk=size.chunk if chunked else None,
    )
    cond = np.zeros((1, 80, len(mu)))
    cond[:, :, : len(prompt_mel)] = prompt_mel.T
    wanted = flow.solve(
        tensors,
        np.load(GOLDEN / "common" / "noise.npz")["rand_noise_head"][None],
        mu.T[None],
        flow.speaker(tensors, embedding),
        cond,
        heads=size.estimator_heads,
        steps=4,
        chunk=size.chunk * RATIO if chunked else None,
    )
    condition = Condition(embedding, prompt, prompt_mel)
    solver = euler(subject.loaded.flow.settings, 4)
    mel = subject.loaded.flow.mel(tokens, condition, final=final, chunked=chunked, solver=solver)
    close(mel, wanted.end[:, :, len(prompt_mel) :])


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_pitch_and_source(subject: Subject, frames: int) -> None:
    tensors, mel = subject.tensors["hift"], subject.mel(frames)
    shape = (1, frames * FRAME, subject.size.harmonics + 1)
    noise = subject.rng.standard_normal(shape, np.float32)
    vocoder = subject.loaded.vocoder
    assert isinstance(vocoder, HiFT)
    outputs = vocoder.excitation.run({"mel": mel, "noise": noise})
    close(outputs["f0"][0], hift.pitch(tensors, mel))
    # From the graph's own pitch: the phase magnifies its rounding as the utterance goes on.
    waves = hift.sines(outputs["f0"][0], noise[0], frame=FRAME, sample_rate=SAMPLE_RATE)
    close(outputs["source"][0, 0], hift.source(tensors, waves))
    if frames == 30:
        assert 0.1 < (outputs["f0"] > VOICED).mean() < 0.9  # some frames are voiced


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_vocoder(subject: Subject, frames: int) -> None:
    size, mel = subject.size, subject.mel(frames)
    source = subject.rng.uniform(-0.3, 0.3, (1, 1, frames * FRAME)).astype(np.float32)
    outputs = subject.loaded.vocoder.vocoder.run({"mel": mel, "source": source})
    audio = hift.vocode(
        subject.tensors["hift"],
        mel,
        source[0, 0],
        rates=size.rates,
        fft=size.fft,
        hop=size.hop,
        dilations=[size.dilations] * len(size.res_kernels),
        source_dilations=[size.dilations] * len(size.source_kernels),
    )
    close(outputs["audio"][0], audio)
    assert 0.1 < (np.abs(audio) == LARGEST_SAMPLE).mean() < 0.7  # some samples are clipped
