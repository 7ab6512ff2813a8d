"""Recordings, and resampling. Waveforms are float32 in ±1."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from edgepack.errors import UsageError

_ZEROS, _ROLLOFF = 6, 0.99
_LOWEST_RATE, _HIGHEST_RATE = 16000, 192_000  # Hz; lower rates lack a part of speech
# Usual sample rates have a large common divisor with 16 and 24 kHz, so the filter is small.
_COMMON_MULTIPLE, _LEAST_DIVISOR = 48_000, 25
_MOST_CHANNELS = 8
SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 30.0  # the speech tokenizer takes no more
_BLOCK_SECONDS = 1
_RESAMPLED_AT_ONCE = 1 << 14
_OVER = 8.0  # times full scale: samples above this are 16-bit numbers stored as floats
_LOUDEST = 32768.0  # full scale of 16-bit numbers
_FRAME_SECONDS = 0.05
_SILENT = 0.001  # -60 dB of full scale, in the loudest frame: nobody speaks there
_CANCELLED = 0.25  # of the power of a mix of independent channels: below it, channels cancel


@dataclass(frozen=True)
class Recording:
    """Mono sound [n] at `rate` Hz; `name` is for messages."""

    name: str
    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    @property
    def loudness(self) -> np.ndarray:
        """RMS of each frame of 50 ms, [n], without its mean, as a constant offset is not heard."""
        size = round(_FRAME_SECONDS * self.rate)
        whole = len(self.samples) // size
        frames = self.samples[: whole * size].reshape(whole, size)
        return np.std(frames, axis=1, dtype=np.float64)

    def at(self, rate: int) -> np.ndarray:
        """The samples at another rate, [n]."""
        return resample(self.samples, self.rate, rate)


def read(path: Path) -> Recording:
    """Read a sound file as `read_file` does; the error says how to convert one."""
    how = f"; convert it: ffmpeg -i {path} {path.stem}.wav" if path.is_file() else ""
    return _read(path, str(path), how)


def read_file(file: BinaryIO, name: str) -> Recording:
    """Read an opened sound file as mono: its channels averaged, or the loudest if they cancel out.

    Samples that are 16-bit numbers in a file of floats are scaled to ±1. Raises UsageError if it is
    unreadable, if its rate, channels or length are outside the allowed ranges, or if a sample is
    not finite or huge. The header is checked first; no more samples than allowed are decoded, even
    if the header is wrong.
    """
    return _read(file, name, "")


def _read(source: Path | BinaryIO, name: str, how: str) -> Recording:
    try:
        with soundfile.SoundFile(source) as file:
            rate, longest = file.samplerate, int(LONGEST_SECONDS * file.samplerate)
            _check(name, rate, file.channels, file.frames)
            blocks, known = [], 0
            while len(block := file.read(_BLOCK_SECONDS * rate, "float32", always_2d=True)):
                known += len(block)
                if known > longest:
                    raise wrong_length(name, known / rate)
                blocks.append(block)
    # TypeError for a .raw file, ValueError for a name that is not UTF-8.
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError) as error:
        raise UsageError(f"{name}: not a readable sound file ({error}){how}") from None
    samples = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    peak = np.abs(samples).max(initial=0.0)
    if not peak <= _LOUDEST:  # NaN is not
        raise UsageError(f"{name}: has samples that are not finite or beyond all use; record again")
    if peak > _OVER:
        samples /= _LOUDEST
    return Recording(name, _mixed(samples), rate)


def _mixed(channels: np.ndarray) -> np.ndarray:
    """Channels [n, c] as mono [n]; loudness is judged without a constant offset."""
    mixed: np.ndarray = channels.mean(1)
    count = channels.shape[1]
    if count > 1 and len(channels):
        power = np.var(channels, axis=0, dtype=np.float64)
        if np.var(mixed, dtype=np.float64) < _CANCELLED * power.sum() / count**2:
            return np.ascontiguousarray(channels[:, power.argmax()])
    return mixed


def require_heard(recording: Recording) -> None:
    """Raise UsageError for a recording in which nothing can be heard, or that is not in ±1."""
    peak = np.abs(recording.samples).max(initial=0.0)
    if not peak <= _OVER:
        raise UsageError(f"{recording.name}: samples of {peak:g}; they have to be in ±1")
    if recording.loudness.max(initial=0.0) < _SILENT:
        raise UsageError(f"{recording.name}: nothing is heard in it; record it again, louder")


def _check(name: str, rate: int, channels: int, frames: int) -> None:
    if rate < _LOWEST_RATE:
        raise UsageError(
            f"{name}: {rate} Hz is too low; use a recording of {_LOWEST_RATE} Hz or more"
        )
    if rate > _HIGHEST_RATE:
        raise UsageError(
            f"{name}: {rate} Hz is too high; use a recording of {_HIGHEST_RATE} Hz or less"
        )
    if math.gcd(rate, _COMMON_MULTIPLE) < _LEAST_DIVISOR:
        raise UsageError(
            f"{name}: {rate} Hz is a rate that nothing records at; convert it to 24000 or 48000 Hz"
        )
    if channels > _MOST_CHANNELS:
        raise UsageError(f"{name}: {channels} channels; use a recording of one or two")
    if frames > LONGEST_SECONDS * rate:
        raise wrong_length(name, frames / rate)


def wrong_length(name: str, seconds: float) -> UsageError:
    """The error for a recording that is too short or too long to make a voice of."""
    return UsageError(
        f"{name}: {seconds:.1f} s long; a recording has to be "
        f"{SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s"
    )


def resample(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """Band-limited resampling of [n] by a Hann-windowed sinc of 6 zero crossings, rolloff 0.99.

    Source: torchaudio.functional.resample with its defaults, which the original uses for prompts.
    Only non-zero taps are kept, so that the filter stays small for rates without a common divisor.
    """
    if old == new or not samples.size:
        return samples
    divisor = math.gcd(old, new)
    old, new = old // divisor, new // divisor
    base = min(old, new) * _ROLLOFF
    width = math.ceil(_ZEROS * old / base)
    taps = np.arange(-width, width + 2)
    padded = np.pad(samples, (width, width + 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps))
    count = math.ceil(new * len(samples) / old)
    found = np.empty(count, np.float32)
    for start in range(0, count, _RESAMPLED_AT_ONCE):
        outputs = np.arange(start, min(start + _RESAMPLED_AT_ONCE, count))
        before, phase = np.divmod(outputs * old, new)  # the sample before each output
        t = (taps / old - (phase / (new * old))[:, None]) * base
        t = np.clip(t, -_ZEROS, _ZEROS)
        kernel = np.sinc(t) * np.cos(np.pi * t / (2 * _ZEROS)) ** 2 * (base / old)
        found[outputs] = np.einsum("nt,nt->n", windows[before], kernel.astype(np.float32))
    return found
