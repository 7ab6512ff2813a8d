"""A voice from a recording, with the checkpoint's own speech tokenizer and speaker encoder.

Source: cosyvoice/cli/frontend.py (`frontend_zero_shot`, `_extract_*`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.bundle.host import HostLoops, strategy
from edgepack.bundle.manifest import Carried
from edgepack.bundle.voices import Prompt, Voice
from edgepack.errors import GateError
from edgepack.runtime.audio import features
from edgepack.runtime.audio.waveform import (
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    Recording,
    require_heard,
    wrong_length,
)
from edgepack.runtime.engines.session import Session

_RATE = 16000


@dataclass(frozen=True)
class EnrolmentModel:
    """An ONNX network of the checkpoint: its session, and the names of its inputs and outputs."""

    names: Carried
    session: Session

    def run(self, *inputs: np.ndarray) -> np.ndarray:
        """The first output for inputs in the network's own order."""
        outputs = self.session.run(dict(zip(self.names.inputs, inputs, strict=True)))
        return outputs[self.names.outputs[0]]


@dataclass(frozen=True)
class Enroller:
    """Makes voices and speech tokens out of recordings.

    `host` says what their prompts are: the flow how many tokens and frames, the features the mel.
    """

    sample_rate: int
    host: HostLoops
    speech_tokenizer: EnrolmentModel
    speaker_encoder: EnrolmentModel

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
        settings = self.host.prompt
        mel = strategy("prompt", settings)(recording.at(settings.read_at), settings)
        tokens = self.tokens(recording)
        count, frames = self.host.flow.prompt_lengths(len(tokens), len(mel))
        return Prompt(np.asarray(text, np.int64), tokens[:count], mel[:frames])

    def voice(self, recording: Recording, text: Sequence[int]) -> Voice:
        """A voice whose prompt is the recording."""
        return Voice(self.speaker(recording), self.prompt(recording, text))


def _checked(recording: Recording) -> Recording:
    if not SHORTEST_SECONDS <= recording.seconds <= LONGEST_SECONDS:
        raise wrong_length(recording.name, recording.seconds)
    require_heard(recording)
    return recording
