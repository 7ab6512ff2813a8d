"""A voice from a recording, with the checkpoint's own speech tokenizer and speaker encoder.

Source: cosyvoice/cli/frontend.py (`frontend_zero_shot`, `_extract_*`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.errors import GateError
from edgepack.manifest import Carried, MelSpectrogram
from edgepack.runtime import features
from edgepack.runtime.audio import (
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    Recording,
    require_heard,
    wrong_length,
)
from edgepack.runtime.session import Session
from edgepack.voices import Prompt, Voice

_RATE = 16000


@dataclass(frozen=True)
class Model:
    """A carried-over network: its session, and the names it gives its inputs and outputs."""

    names: Carried
    session: Session

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """The first output for inputs in the network's own order."""
        outputs = self.session.run(dict(zip(self.names.inputs, inputs, strict=True)))
        return outputs[self.names.outputs[0]]


@dataclass(frozen=True)
class Enroller:
    """Makes voices and speech tokens out of recordings.

    Prompts have `ratio` mel frames a token, of audio at `sample_rate`.
    """

    sample_rate: int
    ratio: int
    prompt_mel: MelSpectrogram
    speech_tokenizer: Model
    speaker_encoder: Model

    def tokens(self, recording: Recording) -> np.ndarray:
        """Speech tokens [n] of a recording of at most 30 s."""
        mel = features.whisper_log_mel(_checked(recording).at(_RATE))
        length = np.array([mel.shape[2]], np.int32)
        return self.speech_tokenizer.run(mel, length).reshape(-1).astype(np.int64)

    def speaker(self, recording: Recording) -> np.ndarray:
        """Speaker embedding [d] of a recording."""
        fbank = features.kaldi_fbank(_checked(recording).at(_RATE))
        embedding = self.speaker_encoder.run((fbank - fbank.mean(0))[None]).reshape(-1)
        if not np.isfinite(embedding).all():
            raise GateError(
                f"{recording.name}: the speaker encoder gave NaN; try another recording"
            )
        return embedding

    def prompt(self, recording: Recording, text: Sequence[int]) -> Prompt:
        """The recording as a prompt; `text` are the token ids of its transcript."""
        audio = recording.at(self.sample_rate)
        mel = features.prompt_mel(audio, self.sample_rate, self.prompt_mel)
        tokens = self.tokens(recording)
        count = min(len(mel) // self.ratio, len(tokens))
        return Prompt(np.asarray(text, np.int64), tokens[:count], mel[: self.ratio * count])

    def voice(self, recording: Recording, text: Sequence[int]) -> Voice:
        """A voice whose prompt is the recording."""
        return Voice(self.speaker(recording), self.prompt(recording, text))


def _checked(recording: Recording) -> Recording:
    if not SHORTEST_SECONDS <= recording.seconds <= LONGEST_SECONDS:
        raise wrong_length(recording.name, recording.seconds)
    require_heard(recording)
    return recording
