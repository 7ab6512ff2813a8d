"""Text, then its speech: a decoder that is given start, text, task, and speech of a prompt.

Source: cosyvoice/llm/llm.py (`Qwen2LM.inference`, `inference_bistream`).
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.bundle.host import HostLoops, LanguageModelPart
from edgepack.bundle.ranges import Few, Id, Length
from edgepack.runtime.stages.decode import NOTHING, Context, SpeechDecoder
from edgepack.runtime.stages.sampling import Sampler
from edgepack.runtime.stages.silence import Silence


class Record(LanguageModelPart, frozen=True, tag="text_then_speech"):
    """`start`, `task` and the speech tokens are rows of the speech table; `end` and `fill` steer.

    `mix` is how many text, then speech tokens alternate when text is streamed. Of a run of tokens
    that are `silent` only the first `longest_silence` are made to sound.
    """

    start: Id
    task: Id
    end: Id
    fill: Id
    mix: tuple[Few, Few]
    silent: tuple[Id, ...] = ()
    longest_silence: Length = 0

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Ids of two meanings."""
        yield from super().problems(host)
        if min(self.end, self.fill, self.start, self.task) < self.speech_tokens:
            yield "a speech token is also one that stops or steers"

    def beyond(self, speech_rows: int, logits: int) -> str:
        """Which ids are no rows of the speech table or no logits, in words; or ""."""
        if max(self.start, self.task) >= speech_rows:
            return "start and task are no rows of the speech table"
        if max(self.end, self.fill, self.masked_before_min) >= logits:
            return "end and fill are no ids of the logits"
        return ""


@dataclass(frozen=True)
class TextThenSpeech(SpeechDecoder):
    """The prompt's text is read before the text, its speech after the task."""

    settings: Record

    def keeper(self) -> Callable[[int], bool]:
        """Whether a token is made to sound: not if it makes a silence too long."""
        silence = Silence(frozenset(self.settings.silent), self.settings.longest_silence)
        return silence.keeper()

    @property
    def block(self) -> int:
        """Text ids between blocks of speech."""
        return self.settings.mix[0]

    def beginning(self, context: Context) -> np.ndarray:
        """Start and the prompt's text."""
        start = self.embed_speech([self.settings.start])
        text = self.embed_text([*context.opening, *context.text])
        return np.concatenate([start, text], 1)

    def rest(self, text: Sequence[int], context: Context) -> np.ndarray:
        """Text, task, the prompt's speech tokens."""
        after = self.embed_speech([self.settings.task, *context.tokens])
        return np.concatenate([self.embed_text(text), after], 1)

    def generate_streaming(
        self, pieces: Iterable[Sequence[int]], sampler: Sampler, context: Context = NOTHING
    ) -> Generator[int, None, None]:
        """Speech tokens while the text still arrives, in alternating blocks of text and speech.

        If the text ends right after a block was filled, that block's last embedding is fed twice:
        so does the original.
        """
        settings = self.settings
        text_block, speech_block = settings.mix
        waiting = self.embed_text(context.text)
        spoken = self.embed_speech(context.tokens)
        block = self.embed_speech([settings.start])
        if context.opening:
            block = np.concatenate([block, self.embed_text(context.opening)], 1)
        history: list[int] = []
        next_fill = (len(context.tokens) // speech_block + 1) * speech_block - len(context.tokens)
        self.language_model.reset()

        for piece in pieces:
            waiting = np.concatenate([waiting, self.embed_text(piece)], 1)
            while spoken.shape[1] and waiting.shape[1] >= text_block:
                block = np.concatenate(
                    [block, waiting[:, :text_block], spoken[:, :speech_block]], 1
                )
                waiting, spoken = waiting[:, text_block:], spoken[:, speech_block:]
            if spoken.shape[1]:
                continue
            filled = bool(history) and history[-1] == settings.fill
            if filled or (not history and block.shape[1] == 1):
                if waiting.shape[1] < text_block:
                    continue
                text = waiting[:, :text_block]
                block = text if filled else np.concatenate([block, text], 1)
                waiting = waiting[:, text_block:]
            while True:
                scores = self._steered(block, settings.fill)
                token = settings.fill if len(history) == next_fill else sampler(scores, history)
                if token == settings.fill:
                    next_fill = len(history) + speech_block + 1
                history.append(token)
                if token == settings.fill:
                    break
                yield token
                block = self.embed_speech([token])

        block = np.concatenate([block, waiting, self.embed_speech([settings.task])], 1)
        while True:
            token = sampler(self._steered(block, settings.end), history)
            if token == settings.end:
                return
            history.append(token)
            yield token
            block = self.embed_speech([token])

    def _steered(self, block: np.ndarray, control: int) -> np.ndarray:
        """Log-probabilities of the next id; of those that are no speech only `control` can come."""
        scores = self.log_probabilities(block)
        kept = scores[control]
        scores[self.settings.speech_tokens :] = -np.inf
        scores[control] = kept
        return scores


STRATEGY = TextThenSpeech
