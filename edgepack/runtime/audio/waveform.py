"""Recordings, and resampling. Waveforms are float32 in ±1."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from edgepack.errors import UsageError

_ZEROS, _ROLLOFF = 6, 0.99
_LOWEST_RATE, _HIGHEST_RATE = 16000, 192_000  # below, speech lacks a part; above, nobody records
# What devices record at has a large divisor in common with 16 and 24 kHz, and a small filter.
_COMMON_MULTIPLE, _LEAST_DIVISOR = 48_000, 25
_MOST_CHANNELS = 8
SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 30.0  # the speech tokenizer hears no more
_BLOCK_SECONDS = 1
_RESAMPLED_AT_ONCE = 1 << 14
_OVER = 8.0  # above full scale nothing is recorded by this much: such samples are 16-bit numbers
_LOUDEST = 32768.0  # of those
_FRAME_SECONDS = 0.05
_SILENT = 0.001  # -60 dB of full scale, in the loudest frame: nobody speaks there
_CANCELLED = 0.25  # of the power that a mix of independent channels has


@dataclass(frozen=True)
class Recording:
    """Mono sound [n] at `rate` Hz; `name` is for messages."""

    name: str
    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.rate

    @property
    def loudness(self) -> np.ndarray:
        """RMS of each frame of 50 ms [n] about its mean: an offset is not heard."""
        size = round(_FRAME_SECONDS * self.rate)
        whole = len(self.samples) // size
        frames = self.samples[: whole * size].reshape(whole, size)
        return np.std(frames, axis=1, dtype=np.float64)

    def at(self, rate: int) -> np.ndarray:
        """The samples at another rate, [n]."""
        return resample(self.samples, self.rate, rate)


def read(path: Path) -> Recording:
    """A sound file, its channels averaged, or the loudest of them if they cancel each other.

    Samples that are 16-bit numbers in a file of floats are scaled to ±1. Raises UsageError if it is
    unreadable, if its rate, channels or length are beyond what can be enrolled, or if a sample is
    not finite or huge. The header decides first, and no more is decoded than is allowed, whatever
    it says.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate, longest = file.samplerate, int(LONGEST_SECONDS * file.samplerate)
            _check(path, rate, file.channels, file.frames)
            blocks, known = [], 0
            while len(block := file.read(_BLOCK_SECONDS * rate, "float32", always_2d=True)):
                known += len(block)
                if known > longest:
                    raise wrong_length(str(path), known / rate)
                blocks.append(block)
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError) as error:  # raw, no UTF-8
        how = f"; convert it: ffmpeg -i {path} {path.stem}.wav" if path.is_file() else ""
        raise UsageError(f"{path}: not a readable sound file ({error}){how}") from None
    samples = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    peak = np.abs(samples).max(initial=0.0)
    if not peak <= _LOUDEST:  # NaN is not
        raise UsageError(f"{path}: has samples that are not finite or beyond all use; record again")
    if peak > _OVER:
        samples /= _LOUDEST
    return Recording(str(path), _mixed(samples), rate)


def _mixed(channels: np.ndarray) -> np.ndarray:
    """Channels [n, c] as one [n]. Offsets do not count for how loud they are."""
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


def _check(path: Path, rate: int, channels: int, frames: int) -> None:
    if rate < _LOWEST_RATE:
        raise UsageError(
            f"{path}: {rate} Hz is too low; use a recording of {_LOWEST_RATE} Hz or more"
        )
    if rate > _HIGHEST_RATE:
        raise UsageError(
            f"{path}: {rate} Hz is too high; use a recording of {_HIGHEST_RATE} Hz or less"
        )
    if math.gcd(rate, _COMMON_MULTIPLE) < _LEAST_DIVISOR:
        raise UsageError(
            f"{path}: {rate} Hz is a rate that nothing records at; convert it to 24000 or 48000 Hz"
        )
    if channels > _MOST_CHANNELS:
        raise UsageError(f"{path}: {channels} channels; use a recording of one or two")
    if frames > LONGEST_SECONDS * rate:
        raise wrong_length(str(path), frames / rate)


def wrong_length(name: str, seconds: float) -> UsageError:
    """The error for a recording that is too short or too long to make a voice of."""
    return UsageError(
        f"{name}: {seconds:.1f} s long; a recording has to be "
        f"{SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s"
    )


def resample(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """Band-limited resampling of [n] by a Hann-windowed sinc of 6 zero crossings, rolloff 0.99.

    Source: torchaudio.functional.resample with its defaults, which prompts were made with. Only
    the taps that are not zero are kept, so that the filter is as small for rates without a common
    divisor as for others.
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
