"""Spectral features and the fixed noise, against recorded arrays of the original libraries."""

from collections.abc import Mapping

import numpy as np
import pytest
from support import GOLDEN

from edgepack.runtime.audio.features import kaldi_fbank, mel_basis, whisper_log_mel
from edgepack.runtime.stages.noise import standard_normal
from edgepack.runtime.strategies.prompt.log_mel import Record, log_mel


def settings(rate: int, fft: int, hop: int, high: float) -> Record:
    return Record(
        rate=rate, read_at=24000, fft=fft, hop=hop, window=fft, mels=80, low=0.0, high=high
    )


def close(actual: np.ndarray, wanted: np.ndarray | float, tolerance: float) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def recorded() -> Mapping[str, np.ndarray]:
    return dict(np.load(GOLDEN / "common" / "frontend.npz"))


@pytest.mark.parametrize(
    ("name", "rate", "fft", "hop", "high"),
    [
        ("mel24k_fmax8000", 24000, 1920, 480, 8000.0),
        ("mel24k_fmaxnone", 24000, 1920, 480, 12000.0),
        ("mel22k_fmax8000", 22050, 1024, 256, 8000.0),
    ],
)
def test_prompt_mel(
    recorded: Mapping[str, np.ndarray], name: str, rate: int, fft: int, hop: int, high: float
) -> None:
    mel = log_mel(recorded["wav_24k"][0], settings(rate, fft, hop, high))
    assert mel.dtype == np.float32
    close(mel.T[None], recorded[name], 2e-5)


def test_log_mel_of_the_speech_tokenizer(recorded: Mapping[str, np.ndarray]) -> None:
    mel = whisper_log_mel(recorded["wav_16k"][0])
    assert mel.dtype == np.float32
    close(mel, recorded["whisper_logmel128"], 2e-5)


def test_filter_bank_of_the_speaker_encoder(recorded: Mapping[str, np.ndarray]) -> None:
    fbank = kaldi_fbank(recorded["wav_16k"][0])
    assert fbank.dtype == np.float32
    close(fbank, recorded["fbank80"], 5e-4)
    close(fbank - fbank.mean(0), recorded["fbank80_meansub"], 5e-4)


@pytest.mark.parametrize(
    ("name", "rate", "fft", "bands", "high"),
    [
        ("mel_basis_24k_fmax8000", 24000, 1920, 80, 8000.0),
        ("mel_basis_24k_fmaxnone", 24000, 1920, 80, 12000.0),
        ("whisper_filters128", 16000, 400, 128, 8000.0),
    ],
)
def test_mel_filters(
    recorded: Mapping[str, np.ndarray], name: str, rate: int, fft: int, bands: int, high: float
) -> None:
    close(mel_basis(rate, fft, bands, 0.0, high), recorded[name], 1e-8)


def test_mel_filters_keep_to_their_band() -> None:
    basis = mel_basis(24000, 1920, 40, 300.0, 6000.0)
    heard = np.flatnonzero((basis > 1e-9).any(0)) * 24000 / 1920
    assert 300 < heard[0] < heard[-1] < 6000
    assert (basis >= 0).all()
    assert (np.diff(basis.argmax(1)) > 0).all()
    close(basis.sum(1) * 24000 / 1920, 1.0, 0.05)  # equal areas


def test_silence_is_the_floor_of_each_feature() -> None:
    silence = np.zeros(16000, np.float32)
    close(log_mel(silence, settings(24000, 1920, 480, 8000.0)), np.log(1e-5), 1e-5)
    close(whisper_log_mel(silence), (-10 + 4) / 4, 1e-6)
    close(kaldi_fbank(silence), np.log(np.finfo(np.float32).eps), 1e-5)


@pytest.mark.parametrize("samples", [8000, 8159, 8160])
def test_frames_are_those_that_fit_whole(samples: int) -> None:
    sound = np.zeros(samples, np.float32)
    assert len(log_mel(sound, settings(24000, 1920, 480, 8000.0))) == samples // 480
    assert whisper_log_mel(sound).shape == (1, 128, samples // 160)
    assert len(kaldi_fbank(sound)) == (samples - 400) // 160 + 1


def test_start_noise_is_the_table_of_the_original() -> None:
    recorded = np.load(GOLDEN / "common" / "noise.npz")
    table = standard_normal(0, (1, 80, 15000))
    assert table.dtype == np.float32
    close(table[0, :, :2000], recorded["rand_noise_head"], 1e-6)
    close(table[0, -1, -64:], recorded["rand_noise_tail"], 1e-6)


def test_start_noise_is_normal_and_differs_by_seed() -> None:
    one, other = (standard_normal(seed, (10, 1600)) for seed in (1, 2))
    for sample in (one, other):
        assert abs(sample.mean()) < 0.03
        assert abs(sample.std() - 1) < 0.03
        assert 0.64 < (np.abs(sample) < 1).mean() < 0.73
    assert abs((one * other).mean()) < 0.03
    assert np.array_equal(one, standard_normal(1, (10, 1600)))


@pytest.mark.parametrize("count", [1, 8, 24])
def test_start_noise_comes_in_blocks_of_sixteen(count: int) -> None:
    with pytest.raises(ValueError, match="not a multiple of 16"):
        standard_normal(0, (count,))
