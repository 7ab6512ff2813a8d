"""`hift.npz` of a causal vocoder: a mel that ends, and the same one that goes on."""

from typing import cast

import numpy as np

from edgepack.runtime.strategies.vocoder.causal_hift import CausalHiFT
from edgepack.verification.reference import NETWORK, WAVEFORM, BundleUnderTest, Vectors

_SINES = "m_source.l_sin_gen"
# The original adds the other branches of a level to the first one's output in place, so what was
# recorded as that output is their sum.
_RECORDED_AS = {"resblocks.0": "resblocks.sum.0"}


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file."""
    v.unused("rand_ini", "initial phases of the harmonics, which have no effect")
    vocoder = cast(CausalHiFT, subject.loaded.vocoder)
    mel, noise = v["mel"], v["sine_noise"]
    own = vocoder.noise(mel.shape[2], np.random.default_rng(0))
    v.compare("sine_noise", own, 0.0)
    for ending, final in (("final", True), ("partial", False)):
        sound = vocoder.synthesize(mel, noise, final=final)
        v.compare(f"f0_{ending}", sound.f0)
        v.compare(f"source_{ending}", sound.source, WAVEFORM)
        v.compare(f"wav_{ending}", sound.audio, WAVEFORM)
        if f"source_{ending}" in v:
            _from_source(v, subject, ending, final=final)


def _from_source(v: Vectors, subject: BundleUnderTest, ending: str, *, final: bool) -> None:
    """Audio and inner values of the recorded excitation."""
    vocoder = cast(CausalHiFT, subject.loaded.vocoder)
    settings, source, mel = vocoder.settings, v.arrays[f"source_{ending}"], v["mel"]
    noise = v["sine_noise"][:, : source.shape[2]]
    excited = vocoder.excitation_feeds(mel, noise, final=final)
    generated = vocoder.generator_feeds(mel, source, final=final)
    audio = vocoder.vocoder.run(generated)["audio"]
    ready = audio if final else audio[:, : -settings.frame]
    v.compare(f"wav_from_source_{ending}", ready)
    prefix = f"{ending}_tap."
    names = {name: name.removeprefix(prefix) for name in v if name.startswith(prefix)}
    names = {name: _RECORDED_AS.get(tap, tap) for name, tap in names.items()}
    taps = [tap for tap in names.values() if tap != _SINES]
    inner = subject.reveal("hift_source", excited, [_SINES])
    inner |= subject.reveal("hift", generated, taps)
    for name, tap in names.items():
        v.inner(name, inner.get(tap), WAVEFORM if tap == _SINES else NETWORK)
