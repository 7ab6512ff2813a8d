"""Speaker, text, then its speech: a decoder that is given an encoded text and a row of its speaker.

Source: cosyvoice/llm/llm.py (`TransformerLM.inference`).
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.bundle.arrays import AnyShape
from edgepack.bundle.host import HostLoops, LanguageModelPart, Signature
from edgepack.bundle.ranges import Id
from edgepack.errors import UsageError
from edgepack.runtime.engines.session import Session
from edgepack.runtime.stages.decode import NOTHING, Context, SpeechDecoder
from edgepack.runtime.stages.sampling import Sampler


class Record(LanguageModelPart, frozen=True, tag="speaker_then_text"):
    """`start`, `task` and the speech tokens are rows of the speech table; other ids stop."""

    start: Id
    task: Id

    def networks(self, host: HostLoops) -> Mapping[str, Signature]:
        """The text's encoder and the speaker's row besides."""
        rows: tuple[str, AnyShape] = ("f", (1, None, None))
        return {
            **super().networks(host),
            "text_encoder": Signature({"embeddings": rows}, {"encoded": rows}),
            "speaker_row": Signature(
                {"speaker": ("f", (1, None))}, {"embeddings": ("f", (1, 1, None))}
            ),
        }

    def misfit(self, calls: Mapping[str, Any]) -> str:
        """Rows of different widths: of the text's table and encoder, and of the decoder."""
        width = calls["language_model"][0][0]["embeddings"].shape[2]
        table = calls["text_table"][0][1]["embeddings"].shape[2]
        given, encoded = calls["text_encoder"][0]
        if given["embeddings"].shape[2] != table or not table:
            return "text table and text encoder differ in width"
        others = (encoded["encoded"], calls["speech_table"][0][1]["embeddings"])
        row = calls["speaker_row"][0][1]["embeddings"]
        if not width or any(rows.shape[2] != width for rows in (*others, row)):
            return "what the language model is given differs in width"
        return ""

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Ids of two meanings."""
        yield from super().problems(host)
        if min(self.start, self.task) < self.speech_tokens:
            yield "a speech token is also one that steers"

    def beyond(self, speech_rows: int, logits: int) -> str:
        """Which ids are no rows of the speech table or no logits, in words; or ""."""
        if max(self.start, self.task) >= speech_rows:
            return "start and task are no rows of the speech table"
        return super().beyond(speech_rows, logits)


@dataclass(frozen=True)
class SpeakerThenText(SpeechDecoder):
    """Prompt's text and text are encoded together, so nothing of the input is known beforehand."""

    settings: Record
    text_encoder: Session
    speaker_row: Session

    def encode_text(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of a text, [1, n, D]; none of an empty one."""
        if not ids:
            return self.embed_speech([self.settings.start])[:, :0]
        return self.text_encoder.run({"embeddings": self.embed_text(ids)})["encoded"]

    def embed_speaker(self, speaker: np.ndarray) -> np.ndarray:
        """The row of a speaker embedding, [1, 1, D]."""
        row = np.asarray(speaker, np.float32).reshape(1, -1)
        return self.speaker_row.run({"speaker": row})["embeddings"]

    def beginning(self, context: Context) -> None:
        """Nothing: the encoder reads the prompt's text and the text as one."""
        return

    def rest(self, text: Sequence[int], context: Context) -> np.ndarray:
        """Start, speaker if there is one, the prompt's text and the text, task, its speech."""
        rows = [self.embed_speech([self.settings.start])]
        if context.speaker is not None:
            rows.append(self.embed_speaker(context.speaker))
        rows.append(self.encode_text([*context.text, *text]))
        rows.append(self.embed_speech([self.settings.task, *context.tokens]))
        return np.concatenate(rows, 1)

    def generate_streaming(
        self, pieces: Iterable[Sequence[int]], sampler: Sampler, context: Context = NOTHING
    ) -> Generator[int, None, None]:
        """Raises UsageError: this language model reads a text as a whole."""
        raise UsageError(
            "this model reads a text as a whole and not while it arrives; give it at once"
        )
        yield


STRATEGY = SpeakerThenText
