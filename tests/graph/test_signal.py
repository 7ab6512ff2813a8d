"""The signal blocks against numpy.fft and against float64."""

import numpy as np
import pytest
from evaluation import check, evaluate, random
from numpy_reference import hift

from edgepack.graph import signal
from edgepack.graph.net import Net, Value

SIZES = [(16, 4), (32, 8), (20, 5), (12, 4)]


@pytest.mark.parametrize(("size", "hop"), SIZES)
def test_stft_is_that_of_numpy(size: int, hop: int) -> None:
    x = random(1, 1, 30 * hop)
    bins = hift.stft(x[0, 0], size, hop)
    wanted = np.concatenate([bins.real, bins.imag])[None]
    check(lambda net, v: signal.stft(net, v, size, hop), wanted, x)


@pytest.mark.parametrize(("size", "hop"), SIZES)
def test_inverse_stft_is_that_of_numpy(size: int, hop: int) -> None:
    """Also of spectra that are no signal's, whose first and last bin have imaginary parts."""
    parts = random(2, 1, size // 2 + 1, 9)
    wanted = hift.inverse_stft(parts[0, 0] + 1j * parts[1, 0], size, hop)[None]
    check(lambda net, re, im: signal.inverse_stft(net, re, im, size, hop), wanted, *parts)


@pytest.mark.parametrize(("size", "hop"), SIZES)
@pytest.mark.parametrize("frames", [4, 50])
def test_stft_and_inverse_give_the_signal_back(size: int, hop: int, frames: int) -> None:
    def there_and_back(net: Net, x: Value) -> Value:
        bins = signal.stft(net, x, size, hop)
        real, imaginary = net.op.Split(bins, num_outputs=2, axis=1, _outputs=["real", "imaginary"])
        return signal.inverse_stft(net, real, imaginary, size, hop)

    x = random(1, 1, frames * hop)
    check(there_and_back, x[0], x)


def test_fraction_is_never_negative() -> None:
    x = np.array([-1.25, -1.0, 0.0, 0.75, 3.5], np.float32)
    check(signal.fraction, np.array([0.75, 0, 0, 0.75, 0.5]), x)


def test_frames_are_repeated() -> None:
    x = random(1, 5, 1)
    check(lambda net, v: signal.repeat_frames(net, v, 3), np.repeat(x, 3, axis=1), x)


def phase_error(cycles: np.ndarray, hop: int) -> float:
    """Largest difference from phases in float64, whole turns left aside."""
    _, frames, width = cycles.shape
    found = evaluate(lambda net, v: signal.frame_phases(net, v, hop, width), 3, cycles)
    assert found.shape == (1, frames * hop, width)
    centres, at = (np.arange(frames) + 0.5) * hop, np.arange(frames * hop) + 0.5
    summed = np.cumsum(cycles[0].astype(np.float64), axis=0) * hop
    wanted = np.stack([np.interp(at, centres, column) for column in summed.T], 1)
    error = found[0] - wanted
    return float(np.abs(error - np.round(error)).max())


@pytest.mark.parametrize(("frames", "hop"), [(1, 6), (2, 6), (50, 10), (1500, 480)])
def test_phases_follow_the_frames(frames: int, hop: int) -> None:
    cycles = np.random.default_rng(frames).uniform(0, 1, (1, frames, 2)).astype(np.float32)
    assert phase_error(cycles, hop) < 1e-4


def test_the_longest_utterance_keeps_its_phase() -> None:
    """At frequencies whose coarse and fine parts are together nearly a turn and a half a frame."""
    fine = np.random.default_rng(0).uniform(0.0009, 0.00096, (1, 15000, 1))
    assert phase_error((17 / 1024 + fine).astype(np.float32), 480) < 1e-4
