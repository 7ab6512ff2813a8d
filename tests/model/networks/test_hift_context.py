"""Frames around a window of the vocoder that its samples depend on, in sizes of all kinds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from converted import convert
from cosyvoice3_sizes import Random, hift_shapes

from edgepack.graph.weights import Weights
from edgepack.model.networks.hift import hift, hift_source
from edgepack.model.networks.hift_dims import HiFTDims
from edgepack.runtime.strategies.vocoder.hift import HiFT, Record

LONG_SOURCE = HiFTDims(
    mels=10, base=12, harmonics=2, sample_rate=16000, rates=(4, 2), kernels=(8, 4), fft=16, hop=4,
    block_kernels=(3, 7), source_kernels=(11, 11), dilations=((1, 3), (1, 3)),
    source_dilations=((1, 5), (1, 5)), slope=0.1, limit=100.0, sine_amplitude=0.1,
    noise_deviation=0.003, threshold=10.0,
)  # fmt: skip
LONG_BLOCKS = replace(
    LONG_SOURCE, rates=(4, 3), kernels=(16, 11), block_kernels=(11, 3), source_kernels=(3, 3),
    source_dilations=((1,), (1,)), dilations=((1, 5), (1, 2)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("dims", "gain"), [(LONG_SOURCE, 3.0), (LONG_BLOCKS, 2.0)], ids=["source", "blocks"]
)
def test_a_window_has_the_samples_of_the_whole(dims: HiFTDims, gain: float, tmp_path: Path) -> None:
    w = Weights.of("hift.pt", Random(5, gain).of(hift_shapes(dims, 7)))
    found = convert([hift_source(w, dims), hift(w, dims)], tmp_path, "ort")
    excitation, generator = (found[name].open("ort") for name in ("hift_source", "hift"))
    settings = Record(frame=dims.frame, partials=dims.harmonics + 1, context=dims.context)
    frames, rng = 12 * dims.context, np.random.default_rng(0)
    mel = rng.normal(-2, 1, (1, dims.mels, frames)).astype(np.float32)
    at_once = HiFT(settings, generator, window=frames, excitation=excitation)
    noise = at_once.noise(frames, rng)
    whole = at_once.synthesize(mel, noise).audio
    windowed = replace(at_once, window=dims.context).synthesize(mel, noise).audio
    assert 0.02 < np.abs(whole).mean() < 10
    np.testing.assert_allclose(windowed, whole, rtol=1e-5, atol=2e-5)
