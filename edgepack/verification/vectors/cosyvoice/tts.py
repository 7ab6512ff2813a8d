"""`tts.npz`: whole utterances, streamed and not, with all noise 0."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.strategies.flow.regulated import Regulated
from edgepack.runtime.strategies.schedule.overlapping_chunks import OverlappingChunks
from edgepack.runtime.strategies.vocoder.phased_hift import PhasedHiFT
from edgepack.verification.reference import UTTERANCE, BundleUnderTest, Vectors

# Audio of our own mel: its rounding errors are multiplied by f0 and the phase of whole chunks.
_OWN_MEL = 5e-2


@dataclass(frozen=True)
class _Recorded(PhasedHiFT):
    """Every piece of audio starts at the recorded phases, without noise."""

    start: np.ndarray

    def noise(self, frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """The recorded phases, and zeros."""
        return np.concatenate([self.start, super().noise(frames, None)[:, 1:]], 1)


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file."""
    condition = Condition(v["tts_embedding"], v.ids("tts_prompt_token"), v["tts_prompt_feat"])
    flow = cast(Regulated, subject.loaded.flow)
    chunks = cast(OverlappingChunks, subject.loaded.stream)
    own = cast(PhasedHiFT, subject.loaded.vocoder)
    phase = v["phase"].transpose(0, 2, 1)
    vocoder = _Recorded(own.settings, own.vocoder, own.excitation, window=own.window, start=phase)
    tokens = v.ids("tts_token")

    quiet = np.zeros((1, flow.settings.mels, flow.frames(tokens, condition)), np.float32)
    v.compare("offline_mel", flow.piece(tokens, condition, quiet, flow.solver).mel)
    mel = v.arrays["offline_mel"]
    sound = vocoder.synthesize(mel, vocoder.noise(mel.shape[2], None))
    v.compare("offline_wav", sound.audio, UTTERANCE)

    made = list(replace(chunks, vocoder=vocoder).run(tokens, condition, None))
    v.compare("stream_chunk_samples", _lengths(chunk.audio for chunk in made), 0.0)
    v.compare("stream_hift_frames", _lengths(chunk.mel for chunk in made), 0.0)
    wav = np.concatenate([chunk.audio for chunk in made], 1)
    v.compare("stream_wav", wav, _OWN_MEL)


def _lengths(values: Iterable[np.ndarray]) -> np.ndarray:
    return np.array([value.shape[-1] for value in values])
