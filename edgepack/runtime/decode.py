"""The token loop: text and prompt in, speech tokens out one at a time.

Source: cosyvoice/llm/llm.py (`Qwen2LM.inference`, `inference_bistream`).
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepack.errors import GateError
from edgepack.manifest import LanguageModel
from edgepack.runtime.sampling import Sampler, log_softmax
from edgepack.runtime.session import Session


@dataclass(frozen=True)
class SpeechDecoder:
    """The speech language model: two embedding tables and a decoder with a KV cache."""

    settings: LanguageModel
    text_embedding: Session
    speech_embedding: Session
    decoder: Session

    def embed_text(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the text table, [1, n, D]."""
        return self._rows(self.text_embedding, ids)

    def embed_speech(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the speech table, [1, n, D]."""
        return self._rows(self.speech_embedding, ids)

    def prefix(
        self, text: Sequence[int], prompt_text: Sequence[int], prompt: Sequence[int]
    ) -> np.ndarray:
        """The decoder's first input: start, prompt text and text, task, prompt speech tokens."""
        before = self.embed_speech([self.settings.start])
        return np.concatenate([before, self._rest([*prompt_text, *text], prompt)], 1)

    def _rest(self, text: Sequence[int], prompt: Sequence[int]) -> np.ndarray:
        """Text, task, prompt speech tokens."""
        after = self.embed_speech([self.settings.task, *prompt])
        return np.concatenate([self.embed_text(text), after], 1)

    def generate(
        self,
        text: Sequence[int],
        sampler: Sampler,
        prompt_text: Sequence[int] = (),
        prompt: Sequence[int] = (),
        longest: int | None = None,
        begun: Mapping[str, np.ndarray] | None = None,
    ) -> Generator[int, None, bool]:
        """Speech tokens of one text; returns whether a stop id ended them before the limit.

        The limit is `longest`, or the settings' share of the length of the text. `begun` are the
        decoder's caches after the start and the prompt's text, if they are known.
        """
        if longest is None:
            longest = int(len(text) * self.settings.max_ratio)
        with self.decoder.turn():
            return (yield from self._decode(text, sampler, prompt_text, prompt, longest, begun))

    def _decode(
        self,
        text: Sequence[int],
        sampler: Sampler,
        prompt_text: Sequence[int],
        prompt: Sequence[int],
        longest: int,
        begun: Mapping[str, np.ndarray] | None,
    ) -> Generator[int, None, bool]:
        shortest = int(len(text) * self.settings.min_ratio)
        if begun is None:
            self.decoder.reset()
            block = self.prefix(text, prompt_text, prompt)
        else:
            self.decoder.restore(begun)
            block = self._rest(text, prompt)
        history: list[int] = []
        for step in range(longest):
            token = self._next(block, sampler, history, may_end=step >= shortest)
            if token >= self.settings.speech_tokens:
                return True
            yield token
            history.append(token)
            block = self.embed_speech([token])
        return False

    def generate_streaming(
        self,
        pieces: Iterable[Sequence[int]],
        sampler: Sampler,
        prompt_text: Sequence[int] = (),
        prompt: Sequence[int] = (),
    ) -> Generator[int, None, None]:
        """Speech tokens while the text still arrives, in alternating blocks of text and speech.

        There is no length limit, and where the original fails on an id that cannot come there, that
        id is not chosen. If the text ends right after a block was filled, that block's
        last embedding is fed twice: so does the original.
        """
        settings = self.settings
        text_block, speech_block = settings.mix
        waiting = self.embed_text(prompt_text)
        spoken = self.embed_speech(prompt)
        block = self.embed_speech([settings.start])
        history: list[int] = []
        next_fill = (len(prompt) // speech_block + 1) * speech_block - len(prompt)
        self.decoder.reset()

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
                forced = len(history) == next_fill
                token = self._next(block, sampler, history, forced=forced, control=settings.fill)
                if token == settings.fill:
                    next_fill = len(history) + speech_block + 1
                history.append(token)
                if token == settings.fill:
                    break
                yield token
                block = self.embed_speech([token])

        block = np.concatenate([block, waiting, self.embed_speech([settings.task])], 1)
        while (token := self._next(block, sampler, history, control=settings.end)) != settings.end:
            history.append(token)
            yield token
            block = self.embed_speech([token])

    @staticmethod
    def collect(tokens: Generator[int, None, bool]) -> tuple[list[int], bool]:
        """All tokens of `generate`, and whether they ended."""
        found: list[int] = []
        while True:
            try:
                found.append(next(tokens))
            except StopIteration as stop:
                return found, stop.value

    def _next(
        self,
        block: np.ndarray,
        sampler: Sampler,
        history: Sequence[int],
        *,
        may_end: bool = True,
        forced: bool = False,
        control: int | None = None,
    ) -> int:
        """The next id; of those that are no speech only `control`, if it is given."""
        logits = self.decoder.run({"embeddings": block})["logits"][0]
        if not np.isfinite(logits).all():
            raise GateError(
                "speech_lm gave NaN or infinite logits; the weights or the host are bad"
            )
        if forced:
            return self.settings.fill
        log_probabilities = log_softmax(logits)
        if not may_end:
            log_probabilities[self.settings.masked_before_min] = -np.inf
        if control is not None:
            kept = log_probabilities[control]
            log_probabilities[self.settings.speech_tokens :] = -np.inf
            log_probabilities[control] = kept
        return sampler(log_probabilities, history)

    @staticmethod
    def _rows(table: Session, ids: Sequence[int]) -> np.ndarray:
        return table.run({"ids": np.asarray([ids], np.int64).reshape(1, -1)})["embeddings"]
