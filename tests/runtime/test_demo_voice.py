"""The demo voice against what the original implementation made of it, in both runtimes."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from support import GOLDEN, RUNTIMES, Build

from edgepack.bundle import voices
from edgepack.runtime.loading import Loaded, load
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.sampling import inverse_cdf, repetition_aware
from edgepack.verification.quality import mel_cepstral_distortion
from edgepack.verification.selftest import relative_error

FOLDER = GOLDEN / "demo-voice"
SENTENCES = json.loads((FOLDER / "sentences.json").read_text("utf-8"))


@pytest.fixture(scope="module", params=RUNTIMES)
def demo(request: pytest.FixtureRequest, bundle: Build) -> Loaded:
    return load(bundle("demo"), request.param, threads=2)


@pytest.fixture(scope="module")
def recorded() -> Mapping[str, np.ndarray]:
    return dict(np.load(FOLDER / "sentences.npz"))


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence["key"])
def test_a_sentence_is_that_of_the_original(
    demo: Loaded, recorded: Mapping[str, np.ndarray], sentence: Mapping[str, str]
) -> None:
    v = {name: recorded[f"{sentence['key']}_{name}"] for name in ("text_ids", "tokens", "u")}
    (text,) = demo.frontend.utterances(sentence["text"])
    ids = demo.frontend.ids(text)
    assert ids == v["text_ids"].tolist()
    uniforms = iter(v["u"].tolist())
    sampler = repetition_aware(demo.decoder.settings.sampling, inverse_cdf(lambda: next(uniforms)))
    tokens, ended = demo.decoder.collect(demo.decoder.generate(ids, sampler))
    assert ended
    assert tokens == v["tokens"].tolist()
    assert not list(uniforms)

    _, voice = voices.read(demo.bundle, sentence["speaker"])
    mel = demo.flow.mel(tokens, Condition(voice.speaker))
    assert relative_error(mel, recorded[f"{sentence['key']}_mel"]) < 1e-4

    audio = demo.vocoder.synthesize(mel, demo.vocoder.noise(mel.shape[2], None)).audio
    wanted = recorded[f"{sentence['key']}_wav"]
    assert mel_cepstral_distortion(audio[0], wanted[0], demo.bundle.manifest.sample_rate) < 0.5
