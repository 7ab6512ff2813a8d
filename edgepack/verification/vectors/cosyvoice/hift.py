"""`hift.npz`: the vocoder, with the initial phases of its harmonics."""

from typing import cast

import numpy as np

from edgepack.runtime.strategies.vocoder.phased_hift import PhasedHiFT
from edgepack.verification.reference import WAVEFORM, BundleUnderTest, Vectors

_SINES = "m_source.l_sin_gen"


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file; the recorded phases and noise are channels-first."""
    vocoder, reveal = cast(PhasedHiFT, subject.loaded.vocoder), subject.reveal
    mel, phase = v["mel"], v["phase"].transpose(0, 2, 1)
    noise = np.ascontiguousarray(v["noise"].transpose(0, 2, 1))
    noisy = vocoder.synthesize(mel, np.concatenate([phase, noise], 1))
    v.compare("f0", noisy.f0)
    v.compare("source", noisy.source, WAVEFORM)
    v.compare("wav", noisy.audio, WAVEFORM)
    if "cache_source" in v:
        quiet = np.concatenate([phase, np.zeros_like(noise)], 1)
        cached = vocoder.synthesize(mel, quiet, v["cache_source"])
        v.compare("source_cached", cached.source, WAVEFORM)
        v.compare("wav_cached", cached.audio, WAVEFORM)
    if "sine_waves" in v:
        found = reveal("hift_source", {"mel": mel, "noise": noise, "phase": phase}, [_SINES])
        v.inner("sine_waves", found.get(_SINES), WAVEFORM)
    if "source" not in v:
        return
    inner = {name: name.removeprefix("tap.") for name in v if name.startswith("tap.")}
    found = reveal("hift", {"mel": mel, "source": v.arrays["source"]}, inner.values())
    for name, tap in inner.items():
        v.inner(name, found.get(tap))
