"""`hift.npz`: the vocoder."""

from typing import cast

import numpy as np

from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.strategies.vocoder.hift import HiFT
from edgepack.verification.reference import WAVEFORM, BundleUnderTest, Vectors

_SINES = "m_source.l_sin_gen"
# The original adds the other branches of a level to the first branch's output in place, so the
# recorded output of the first branch is the sum of all.
_RECORDED_AS = {"resblocks.0": "resblocks.sum.0"}


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file."""
    vocoder = cast(HiFT, subject.loaded.vocoder)
    mel, noise = v["mel"], v["noise"]
    quiet = np.zeros_like(noise)
    noisy = vocoder.synthesize(mel, noise)
    v.compare("f0", noisy.f0)
    v.compare("source", noisy.source, WAVEFORM)
    v.compare("wav", noisy.audio, WAVEFORM)
    silent = vocoder.synthesize(mel, quiet)
    v.compare("source_zero_noise", silent.source, WAVEFORM)
    v.compare("wav_zero_noise", silent.audio, WAVEFORM)
    if "cache_source" in v:
        cached = vocoder.synthesize(mel, quiet, v["cache_source"])
        v.compare("source_cached", cached.source, WAVEFORM)
        v.compare("wav_cached", cached.audio, WAVEFORM)
    v.unused("rand_ini", "initial phases of the harmonics, which have no effect")
    _inner(v, subject, vocoder, {"mel": mel, "noise": noise})


def _inner(v: Vectors, subject: BundleUnderTest, vocoder: HiFT, given: Feeds) -> None:
    generator, mel = vocoder.vocoder, given["mel"]
    inner = {n: n.removeprefix("tap.") for n in v if n.startswith("tap.")}
    inner = {name: _RECORDED_AS.get(tap, tap) for name, tap in inner.items()}
    if "sine_waves" in v:
        found = subject.reveal("hift_source", given, [_SINES])
        v.inner("sine_waves", found.get(_SINES), WAVEFORM)
    if "source" in v:
        feeds = {"mel": mel, "source": v.arrays["source"]}
        v.compare("wav_from_source", generator.run(feeds)["audio"])
        found = subject.reveal("hift", feeds, inner.values())
        for name, tap in inner.items():
            v.inner(name, found.get(tap))
    if "stft_real" in v and "source_zero_noise" in v:
        feeds = {"mel": mel, "source": v.arrays["source_zero_noise"]}
        spectrum = subject.reveal("hift", feeds, ["stft"]).get("stft")
        frames = v.arrays["stft_real"].shape[2]
        halves = (None, None) if spectrum is None else np.split(spectrum[:, :, :frames], 2, axis=1)
        v.inner("stft_real", halves[0])
        v.inner("stft_imag", halves[1])
