"""Spectral features of prompts: the speech tokenizer's log-mel, fbank, and what they are made of.

Sources: openai/whisper audio.py (`log_mel_spectrogram`), torchaudio.compliance.kaldi (`fbank`),
librosa.filters.mel (Slaney).
"""

from functools import lru_cache

import numpy as np

_SLANEY_HZ, _SLANEY_MEL, _SLANEY_STEP = 1000.0, 15.0, 27.0 / np.log(6.4)
_WHISPER_RATE, _WHISPER_FFT, _WHISPER_HOP, _WHISPER_MELS = 16000, 400, 160, 128
_KALDI_RATE, _KALDI_WINDOW, _KALDI_SHIFT, _KALDI_FFT = 16000, 400, 160, 512
_KALDI_LOW, _KALDI_PREEMPHASIS, _KALDI_POVEY = 20.0, 0.97, 0.85


def whisper_log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel of 16 kHz [n] in 128 bands, [1, 128, frames], scaled to about ±1."""
    padded = np.pad(samples, _WHISPER_FFT // 2, mode="reflect")
    cut = framed(padded, _WHISPER_FFT, _WHISPER_HOP)[:-1]
    power = np.square(np.abs(np.fft.rfft(cut * hann(_WHISPER_FFT))))
    basis = mel_basis(_WHISPER_RATE, _WHISPER_FFT, _WHISPER_MELS, 0.0, _WHISPER_RATE / 2)
    log = np.log10(np.maximum(power @ basis.T, 1e-10))
    return ((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0).T[None].astype(np.float32)


def kaldi_fbank(samples: np.ndarray, bands: int = 80) -> np.ndarray:
    """Log mel filter bank energies of 16 kHz [n], [frames, bands], without dither."""
    cut = framed(samples, _KALDI_WINDOW, _KALDI_SHIFT)
    cut = cut - cut.mean(1, keepdims=True)
    previous = np.concatenate([cut[:, :1], cut[:, :-1]], 1)
    povey = np.hanning(_KALDI_WINDOW) ** _KALDI_POVEY
    emphasized = (cut - _KALDI_PREEMPHASIS * previous) * povey
    power = np.square(np.abs(np.fft.rfft(emphasized, _KALDI_FFT)))[:, : _KALDI_FFT // 2]
    energies = power @ _kaldi_triangles(bands).T
    return np.log(np.maximum(energies, np.finfo(np.float32).eps)).astype(np.float32)


@lru_cache
def mel_basis(rate: int, fft: int, bands: int, low: float, high: float) -> np.ndarray:
    """Slaney's mel filters of equal area, [bands, fft / 2 + 1]."""
    edges = _slaney_hz(np.linspace(_slaney_mel(low), _slaney_mel(high), bands + 2))
    bins = np.linspace(0.0, rate / 2, fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    area = 2.0 / (edges[2:] - edges[:-2])
    return triangles * area[:, None]


@lru_cache
def _kaldi_triangles(bands: int) -> np.ndarray:
    """Triangles equally spaced and linear in mel, [bands, fft / 2]."""
    edges = np.linspace(_htk_mel(_KALDI_LOW), _htk_mel(_KALDI_RATE / 2), bands + 2)
    bins = _htk_mel(np.arange(_KALDI_FFT // 2) * _KALDI_RATE / _KALDI_FFT)
    step = edges[1] - edges[0]
    return np.maximum(0.0, 1.0 - np.abs(bins - edges[1:-1, None]) / step)


def framed(samples: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Overlapping frames that fit whole, [count, size], as float64."""
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), size)
    return windows[::hop]


def hann(size: int) -> np.ndarray:
    """Periodic Hann window."""
    return np.hanning(size + 1)[:-1]


def _htk_mel(hz: np.ndarray | float) -> np.ndarray:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


def _slaney_mel(hz: float) -> float:
    if hz < _SLANEY_HZ:
        return hz * 3.0 / 200.0
    return float(_SLANEY_MEL + np.log(hz / _SLANEY_HZ) * _SLANEY_STEP)


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    linear = mel * 200.0 / 3.0
    bent = _SLANEY_HZ * np.exp((mel - _SLANEY_MEL) / _SLANEY_STEP)
    return np.where(mel < _SLANEY_MEL, linear, bent)
