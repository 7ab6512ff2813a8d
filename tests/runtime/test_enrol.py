"""Voices from recordings: the recorded prompt of the original, and what cannot be a prompt."""

from pathlib import Path

import numpy as np
import pytest
from fakes import Answer, Fake
from support import DATA, GOLDEN, RECORDED, RUNTIMES, Build

from edgepack.builder.carried import carry
from edgepack.bundle.bundle import open_bundle
from edgepack.bundle.host import HostLoops
from edgepack.bundle.manifest import Carried, Manifest
from edgepack.errors import GateError, UsageError
from edgepack.runtime.audio.enrol import Enroller, EnrolmentModel
from edgepack.runtime.audio.waveform import Recording
from edgepack.runtime.engines.session import Options, engine
from edgepack.verification.selftest import relative_error

FILES = {"speech_tokenizer": "speech_tokenizer_v2.onnx", "speaker_encoder": "campplus.onnx"}


@pytest.fixture
def manifest(bundle: Build) -> Manifest:
    """The demo voice's: its sizes of prompts are those of all CosyVoice2 models."""
    return open_bundle(bundle("demo")).manifest


def sizes(manifest: Manifest) -> tuple[int, HostLoops]:
    return manifest.sample_rate, manifest.host


def recording(seconds: float, rate: int = 24000) -> Recording:
    samples = np.random.default_rng(1).normal(0, 0.1, round(seconds * rate))
    return Recording("a.wav", samples.astype(np.float32), rate)


def fake(answer: Answer, *inputs: str) -> EnrolmentModel:
    return EnrolmentModel(Carried(file="", inputs=inputs, outputs=("out", "other")), Fake(answer))


def enroller(manifest: Manifest, tokens: int = 1000, embedding: float = 1.0) -> Enroller:
    """Networks that find up to a number of speech tokens, 25 a second, and a constant speaker."""
    found = np.arange(tokens, dtype=np.int32)[None]
    return Enroller(
        *sizes(manifest),
        fake(lambda feeds: {"out": found[:, : int(feeds["n"][0]) // 4]}, "mel", "n"),
        fake(lambda feeds: {"out": np.full((1, 192), embedding, np.float32)}, "fbank"),
    )


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if engine(name).reads_onnx])
@pytest.mark.parametrize("model", RECORDED)
def test_prompt_of_the_original_comes_out_again(
    manifest: Manifest, model: str, runtime: str, tmp_path: Path
) -> None:
    v = np.load(GOLDEN / model / "tts.npz")
    (tmp_path / "bundle").mkdir()

    def network(role: str) -> EnrolmentModel:
        carried = carry(DATA / "checkpoints" / model / FILES[role], tmp_path, f"bundle/{role}.onnx")
        return EnrolmentModel(
            carried, engine(runtime).open(tmp_path / carried.file, (), Options(1))
        )

    subject = Enroller(*sizes(manifest), *(network(role) for role in FILES))
    prompt_wav = Recording("prompt", v["api_prompt_wav"].astype(np.float32), 24000)
    voice = subject.voice(prompt_wav, v["api_prompt_text"][0].tolist())
    assert relative_error(voice.speaker[None], v["api_flow_embedding"]) < 1e-4
    assert voice.prompt
    assert np.array_equal(voice.prompt.text[None], v["api_prompt_text"])
    assert np.array_equal(voice.prompt.tokens[None], v["api_flow_prompt_speech_token"])
    assert relative_error(voice.prompt.mel[None], v["api_prompt_speech_feat"]) < 1e-4


@pytest.mark.parametrize("seconds", [0.5, 1.234, 30.0])
@pytest.mark.parametrize("rate", [16000, 24000, 44100])
def test_a_prompt_has_whole_tokens(manifest: Manifest, seconds: float, rate: int) -> None:
    prompt = enroller(manifest).prompt(recording(seconds, rate), [1, 2])
    assert abs(len(prompt.tokens) - 25 * seconds) <= 1
    assert prompt.mel.shape == (2 * len(prompt.tokens), 80)
    assert prompt.tokens.dtype == prompt.text.dtype == np.int64


@pytest.mark.parametrize(("tokens", "count"), [(10, 10), (1000, 25)])
def test_the_shorter_of_tokens_and_mel_decides(manifest: Manifest, tokens: int, count: int) -> None:
    prompt = enroller(manifest, tokens).prompt(recording(1.0), [])
    assert prompt.tokens.tolist() == list(range(count))
    assert prompt.mel.shape == (2 * count, 80)


def test_networks_are_given_their_features(manifest: Manifest) -> None:
    subject = enroller(manifest)
    subject.voice(recording(1.0), [])
    tokenizer, encoder = subject.speech_tokenizer.session, subject.speaker_encoder.session
    assert isinstance(tokenizer, Fake)
    assert isinstance(encoder, Fake)
    assert tokenizer.calls[0]["mel"].shape == (1, 128, 100)
    assert tokenizer.calls[0]["n"].tolist() == [100]
    assert tokenizer.calls[0]["n"].dtype == np.int32
    fbank = encoder.calls[0]["fbank"]
    assert fbank.shape == (1, 98, 80)
    np.testing.assert_allclose(fbank.mean(1), 0, atol=1e-4)


@pytest.mark.parametrize("seconds", [0.0, 0.49, 30.1])
def test_recordings_too_short_or_too_long_are_refused(manifest: Manifest, seconds: float) -> None:
    for use in (
        lambda: enroller(manifest).voice(recording(seconds), []),
        lambda: enroller(manifest).tokens(recording(seconds)),
    ):
        with pytest.raises(UsageError, match=rf"a\.wav: {seconds:.1f} s long; .* 0\.5 to 30 s"):
            use()


def test_silence_is_nobody(manifest: Manifest) -> None:
    silent = Recording("a.wav", np.full(24000, 0.5, np.float32), 24000)
    for use in (
        lambda: enroller(manifest).voice(silent, []),
        lambda: enroller(manifest).tokens(silent),
    ):
        with pytest.raises(UsageError, match=r"a\.wav: nothing is heard in it"):
            use()


def test_an_embedding_that_is_not_finite_is_refused(manifest: Manifest) -> None:
    with pytest.raises(GateError, match=r"a\.wav: the speaker encoder gave NaN"):
        enroller(manifest, embedding=np.nan).speaker(recording(1.0))
