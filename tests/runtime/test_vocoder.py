"""Vocoding in windows: what is asked of the network, and that the audio is the same."""

import itertools
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from fakes import Fake, fed, vocoder
from support import RUNTIMES, Build

from edgepack.runtime.loading import load
from edgepack.runtime.strategies.vocoder.hift import HiFT

FRAMES = 120


MODELS = ["demo", "cosyvoice1-s1", "cosyvoice2-s1", "cosyvoice3-s1", "tiny"]
SHORT = {("ort", "cosyvoice3-s1"), ("ort", "tiny")}
CASES = [
    pytest.param(*case, marks=() if "demo" in case or case in SHORT else pytest.mark.slow)
    for case in itertools.product(RUNTIMES, MODELS)
]


@pytest.mark.parametrize(("runtime", "model"), CASES)
def test_windows_have_the_samples_of_the_whole(bundle: Build, model: str, runtime: str) -> None:
    whole = load(bundle(model), runtime, 2).vocoder
    rng = np.random.default_rng(0)
    mel = rng.normal(-4, 2, (1, 80, FRAMES)).astype(np.float32)
    noise = whole.noise(FRAMES, rng)
    at_once = whole.synthesize(mel, noise)
    in_windows = replace(whole, window=50).synthesize(mel, noise)
    assert at_once.audio.shape == in_windows.audio.shape
    # Sums of longer filters: the causal vocoder's windows differ by 3.3e-5 in OpenVINO.
    atol = 5e-5 if model == "cosyvoice3-s1" else 2e-5
    np.testing.assert_allclose(in_windows.audio, at_once.audio, rtol=0, atol=atol)
    np.testing.assert_array_equal(in_windows.source, at_once.source)


def test_less_context_would_be_heard(bundle: Build) -> None:
    whole = load(bundle("cosyvoice2-s1"), "ort", 2).vocoder
    assert isinstance(whole, HiFT)
    assert whole.settings.context == 16
    rng = np.random.default_rng(0)
    mel = rng.normal(-4, 2, (1, 80, FRAMES)).astype(np.float32)
    noise = whole.noise(FRAMES, rng)
    settings = msgspec.structs.replace(whole.settings, context=8)
    short = replace(whole, settings=settings, window=50).synthesize(mel, noise).audio
    assert np.abs(short - whole.synthesize(mel, noise).audio).max() > 1e-4


def test_windows_are_equal_and_have_their_surroundings() -> None:
    subject = replace(vocoder(), window=50)
    mel = np.arange(4 * FRAMES, dtype=np.float32).reshape(1, 4, FRAMES)
    sound = subject.synthesize(mel, subject.noise(FRAMES, None))
    assert isinstance(subject.vocoder, Fake)
    ranges = [(int(m[0, 0, 0]), int(m[0, 0, -1]) + 1) for m in fed(subject.vocoder, "mel")]
    assert ranges == [(0, 72), (24, 96), (48, 120)]
    assert [s.shape[2] for s in fed(subject.vocoder, "source")] == [
        480 * (end - start) for start, end in ranges
    ]
    assert len(fed(subject.excitation, "mel")) == 1
    np.testing.assert_array_equal(sound.audio[0, ::480], np.arange(FRAMES))


def test_what_is_short_is_vocoded_at_once() -> None:
    subject = vocoder()
    mel = np.zeros((1, 4, subject.window), np.float32)
    subject.synthesize(mel, subject.noise(subject.window, None))
    assert len(fed(subject.vocoder, "mel")) == 1
