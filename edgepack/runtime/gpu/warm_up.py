"""Calling every network once after loading, so that kernels are loaded and engines built."""

import time

import numpy as np

from edgepack.bundle import voices
from edgepack.runtime.loading import Loaded
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.solver import euler

_TOKENS = 16
_STEPS = 3  # the second call of a shape is captured, the third is as all others


def warm_up(loaded: Loaded) -> float:
    """Speak a few tokens with the first voice, if there is one; returns the seconds it took."""
    start = time.perf_counter()
    manifest, decoder = loaded.bundle.manifest, loaded.decoder
    if loaded.host.placement:
        loaded.host.placement.wanted.announce("warming up")
    decoder.language_model.reset()
    block = decoder.prefix([0] * _TOKENS)
    for _ in range(_STEPS):
        decoder.language_model.run({"embeddings": block})
        block = decoder.embed_speech([0])
    decoder.language_model.reset()
    if manifest.voices:
        _, voice = voices.read(loaded.bundle, None)
        tokens = np.arange(_TOKENS) % manifest.host.language_model.speech_tokens
        solver = euler(manifest.host.flow, _STEPS)
        mel = loaded.flow.mel(tokens.tolist(), Condition(voice.speaker), solver=solver)
        loaded.vocoder.synthesize(mel, loaded.vocoder.noise(mel.shape[2], None))
    return time.perf_counter() - start
