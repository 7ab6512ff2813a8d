"""How far one rendering of an utterance is from another."""

import numpy as np

from edgepack.runtime.audio.features import mel_basis
from edgepack.runtime.audio.waveform import Recording

_WINDOW, _HOP_SECONDS, _BANDS, _ORDER = 1024, 0.005, 80, 24
_SILENT_DB, _FLOOR = 60.0, 1e-12
_COARSE = 2  # alignment looks at every second frame
_PESQ_RATE = 16000
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


def log_spectral_distance(actual: np.ndarray, wanted: np.ndarray) -> float:
    """Distance in dB of two log-amplitude (natural log) spectrograms [bands, frames].

    Mean over frames of the root mean square over bands. Infinite for another shape or a value
    that is not finite.
    """
    if actual.shape != wanted.shape or not np.isfinite(actual).all():
        return float("inf")
    decibel = 20.0 / np.log(10.0) * (actual.astype(np.float64) - wanted)
    return float(np.sqrt(np.square(decibel).mean(0)).mean())


def si_sdr(actual: np.ndarray, wanted: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB of two aligned waveforms [n].

    Minus infinity for another length or a value that is not finite.
    """
    if actual.shape != wanted.shape or not np.isfinite(actual).all():
        return float("-inf")
    one, other = actual.astype(np.float64), wanted.astype(np.float64)
    energy = float(other @ other)
    if energy == 0.0:
        return float("-inf")
    target = float(one @ other) / energy * other
    noise = one - target
    return float(10.0 * np.log10((target @ target + _FLOOR) / (noise @ noise + _FLOOR)))


def pesq(actual: np.ndarray, wanted: np.ndarray, rate: int) -> float | None:
    """Wide-band PESQ, 1 to 4.64, at 16 kHz.

    None if the pesq package is not installed, or finds no speech in `wanted`. 1 if `actual` has
    another length, a value that is not finite, or no speech.
    """
    try:
        import pesq as library
    except ImportError:
        return None
    if actual.shape != wanted.shape or not np.isfinite(actual).all():
        return 1.0
    at = [Recording("", x.astype(np.float32), rate).at(_PESQ_RATE) for x in (wanted, actual)]
    scores: list[float | None] = []
    for other in (at[0], at[1]):
        try:
            scores.append(float(library.pesq(_PESQ_RATE, at[0], other, "wb")))
        except library.NoUtterancesError:
            scores.append(None)
    return None if scores[0] is None else scores[1] or 1.0


def warped_distortion(actual: np.ndarray, wanted: np.ndarray, rate: int) -> float:
    """Mel-cepstral distortion in dB along the best alignment (dynamic time warping).

    The mean over the path with steps of one frame in either or both (Sakoe and Chiba, 1978).
    """
    one, other = (_cepstra(_mel_power(x, rate))[::_COARSE] for x in (actual, wanted))
    if not len(one) or not len(other):
        return float("inf")
    costs = _DECIBEL * np.sqrt(
        np.maximum(
            np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2.0 * one @ other.T, 0.0
        )
    )
    total = np.full((len(one) + 1, len(other) + 1), np.inf)
    length = np.zeros_like(total)
    total[0, 0] = 0.0
    # One antidiagonal after the other: its cells depend only on the two antidiagonals before.
    for diagonal in range(2, len(one) + len(other) + 1):
        i = np.arange(max(1, diagonal - len(other)), min(len(one), diagonal - 1) + 1)
        j = diagonal - i
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        choice = np.argmin([total[at] for at in before], 0)
        total[i, j] = costs[i - 1, j - 1] + np.choose(choice, [total[at] for at in before])
        length[i, j] = 1 + np.choose(choice, [length[at] for at in before])
    return float(total[-1, -1] / length[-1, -1])
