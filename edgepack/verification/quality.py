"""How far one rendering of an utterance is from another."""

import numpy as np

from edgepack.runtime.features import mel_basis

_WINDOW, _HOP_SECONDS, _BANDS, _ORDER = 1024, 0.005, 80, 24
_SILENT_DB, _FLOOR = 60.0, 1e-12
_DECIBEL = 10.0 * np.sqrt(2.0) / np.log(10.0)


def mel_cepstral_distortion(actual: np.ndarray, wanted: np.ndarray, rate: int) -> float:
    """Mel-cepstral distortion in dB of two time-aligned waveforms [n] of equal length.

    Mean over frames of `10 √2 / ln 10 · √Σ (c_d - c'_d)²`, d = 1 … 24, of mel cepstra of the
    natural-log amplitude spectrum (Kubichek, 1993), 5 ms apart. Frames of `wanted` more than
    60 dB below its loudest are skipped. Infinite for another length or a value that is not finite.
    """
    if actual.shape != wanted.shape or not np.isfinite(actual).all():
        return float("inf")
    power, reference = _mel_power(actual, rate), _mel_power(wanted, rate)
    level = reference.sum(1)
    heard = level > level.max() * 10 ** (-_SILENT_DB / 10)
    difference = _cepstra(power[heard]) - _cepstra(reference[heard])
    return float(_DECIBEL * np.sqrt(np.square(difference).sum(1)).mean())


def _mel_power(samples: np.ndarray, rate: int) -> np.ndarray:
    """Power in mel bands, [frames, bands]."""
    padded = np.pad(samples.astype(np.float64), _WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)
    frames = windows[:: round(rate * _HOP_SECONDS)] * np.hanning(_WINDOW)
    power = np.square(np.abs(np.fft.rfft(frames)))
    return power @ mel_basis(rate, _WINDOW, _BANDS, 0.0, rate / 2).T


def _cepstra(power: np.ndarray) -> np.ndarray:
    """Coefficients 1 … 24 of the cosine series of log amplitude along the mel axis."""
    log_amplitude = 0.5 * np.log(power + _FLOOR)
    k, d = np.arange(_BANDS) + 0.5, np.arange(1, _ORDER + 1)
    return log_amplitude @ (2.0 / _BANDS * np.cos(np.pi / _BANDS * np.outer(k, d)))
