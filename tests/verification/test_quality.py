"""Mel-cepstral distortion: what it hears and what it does not."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from support import GOLDEN

from edgepack.runtime.audio.features import mel_basis
from edgepack.verification.quality import mel_cepstral_distortion

RATE = 24000
AUDIBLE = 0.5  # dB; the limit for speech of the same tokens


@pytest.fixture(scope="module")
def recorded() -> Mapping[str, np.ndarray]:
    with np.load(GOLDEN / "demo-voice" / "sentences.npz") as arrays:
        return {key: arrays[f"{key}_wav"][0] for key in ("zh02", "en02", "en03")}


@pytest.fixture
def speech(recorded: Mapping[str, np.ndarray]) -> np.ndarray:
    return recorded["en02"]


def noise(level: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x + np.random.default_rng(0).normal(0, level, x.shape).astype(np.float32)


def muffled(samples: np.ndarray) -> np.ndarray:
    return np.convolve(samples, np.ones(4) / 4, "same")


def test_the_same_sound_is_at_no_distance(speech: np.ndarray) -> None:
    assert mel_cepstral_distortion(speech, speech, RATE) == 0


@pytest.mark.parametrize("gain", [0.5, 1.001, 2.0, -1.0])
def test_loudness_and_polarity_do_not_count(speech: np.ndarray, gain: float) -> None:
    assert mel_cepstral_distortion(gain * speech, speech, RATE) < 1e-4
    assert mel_cepstral_distortion(speech, gain * speech, RATE) < 1e-4


@pytest.mark.parametrize(
    "change",
    [noise(1e-3), lambda x: np.roll(x, 120), lambda x: np.roll(x, -2400), muffled, np.sign],
    ids=["noise", "5 ms late", "100 ms early", "muffled", "clipped"],
)
def test_what_is_audible_is_over_the_limit(
    speech: np.ndarray, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert mel_cepstral_distortion(change(speech), speech, RATE) > AUDIBLE


def test_rounding_is_below_the_limit(speech: np.ndarray) -> None:
    sixteen_bits = np.round(speech * 32767) / 32767
    assert 0 < mel_cepstral_distortion(sixteen_bits, speech, RATE) < AUDIBLE


def test_another_sentence_is_far_away(recorded: Mapping[str, np.ndarray]) -> None:
    one, other = (recorded[key][:60000] for key in ("en02", "en03"))
    there, back = (mel_cepstral_distortion(a, b, RATE) for a, b in ((one, other), (other, one)))
    assert there > 10
    assert there == pytest.approx(back, rel=0.1)


def test_more_noise_is_further_away(speech: np.ndarray) -> None:
    distances = [
        mel_cepstral_distortion(noise(level)(speech), speech, RATE)
        for level in (1e-5, 1e-4, 1e-3, 1e-2)
    ]
    assert distances == sorted(distances)


@pytest.mark.parametrize("order", [1, 3])
def test_a_slow_ripple_of_the_spectrum_is_one_coefficient(order: int) -> None:
    """A ripple of 0.1 in natural-log amplitude along the mel axis is c_d - c'_d = 0.1."""
    bands, size, ripple = 80, 4096, 0.1
    centres = mel_basis(RATE, size, bands, 0.0, RATE / 2).argmax(1) * RATE / size
    axis = np.interp(np.fft.rfftfreq(size, 1 / RATE), centres, (np.arange(bands) + 0.5) / bands)
    plain = np.fft.irfft(np.ones(size // 2 + 1))
    rippled = np.fft.irfft(np.exp(ripple * np.cos(np.pi * order * axis)))
    one, other = (np.roll(impulse, size // 2) for impulse in (rippled, plain))
    wanted = 10 * np.sqrt(2) / np.log(10) * ripple
    found = mel_cepstral_distortion(one, other, RATE)
    assert found == pytest.approx(wanted, rel=0.1)


def test_silence_of_the_original_is_not_listened_to(speech: np.ndarray) -> None:
    padded = np.concatenate([speech, np.zeros(RATE, np.float32)])
    hiss = padded.copy()
    hiss[-RATE // 2 :] = noise(1e-4)(hiss[-RATE // 2 :])
    assert mel_cepstral_distortion(hiss, padded, RATE) < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_infinitely_far(speech: np.ndarray, bad: float) -> None:
    broken = speech.copy()
    broken[17] = bad
    assert mel_cepstral_distortion(broken, speech, RATE) == np.inf


@pytest.mark.parametrize("count", [0, 1, -1])
def test_another_length_is_infinitely_far(speech: np.ndarray, count: int) -> None:
    other = np.append(speech, 0) if count == 1 else speech[:count]
    assert mel_cepstral_distortion(other, speech, RATE) == np.inf
