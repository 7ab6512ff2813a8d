"""The token loop: text and prompt in, speech tokens out one at a time.

What the language model is given around them is a strategy's (`strategies.language_model`). Source:
cosyvoice/llm/llm.py (`inference`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgepack.bundle.host import LanguageModelPart
from edgepack.errors import GateError
from edgepack.runtime import cancellation
from edgepack.runtime.engines.session import Session
from edgepack.runtime.stages.sampling import Sampler, log_softmax


@dataclass(frozen=True)
class Context:
    """What the language model continues: the ids of a prompt's text, its speech tokens, who speaks.

    `opening` is text that is given at once after the start, also while text arrives. `speaker` is
    the embedding [d], which some models are told.
    """

    text: Sequence[int] = ()
    tokens: Sequence[int] = ()
    speaker: np.ndarray | None = None
    opening: Sequence[int] = ()


NOTHING = Context()


@dataclass(frozen=True)
class SpeechDecoder(ABC):
    """The speech language model: two embedding tables and a decoder with a KV cache."""

    settings: LanguageModelPart
    text_table: Session
    speech_table: Session
    language_model: Session

    @abstractmethod
    def beginning(self, context: Context) -> np.ndarray | None:
        """The part of the first input that no text changes, [1, n, D]; None if there is none."""

    @abstractmethod
    def rest(self, text: Sequence[int], context: Context) -> np.ndarray:
        """The first input after the beginning, [1, n, D]."""

    @abstractmethod
    def generate_streaming(
        self, pieces: Iterable[Sequence[int]], sampler: Sampler, context: Context = NOTHING
    ) -> Generator[int, None, None]:
        """Speech tokens while pieces of text ids still arrive.

        There is no length limit, and where the original fails on an id that cannot come there, that
        id is not chosen.
        """

    def keeper(self) -> Callable[[int], bool]:
        """Whether a token is made to sound, asked for one after the other of an utterance.

        The language model's history keeps every one.
        """
        return lambda token: True

    @property
    def block(self) -> int:
        """How many text ids `generate_streaming` takes at once."""
        return 1

    def prefix(self, text: Sequence[int], context: Context = NOTHING) -> np.ndarray:
        """The decoder's first input, [1, n, D]."""
        before, after = self.beginning(context), self.rest(text, context)
        return after if before is None else np.concatenate([before, after], 1)

    def embed_text(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the text table, [1, n, D]."""
        return _rows(self.text_table, ids)

    def embed_speech(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the speech table, [1, n, D]."""
        return _rows(self.speech_table, ids)

    def generate(
        self,
        text: Sequence[int],
        sampler: Sampler,
        context: Context = NOTHING,
        longest: int | None = None,
        begun: Mapping[str, np.ndarray] | None = None,
    ) -> Generator[int, None, bool]:
        """Speech tokens of one text; returns whether a stop id ended them before the limit.

        The limit is `longest`, or the settings' share of the length of the text. `begun` are the
        decoder's caches after the beginning, if they are known.
        """
        return (yield from self.decode(text, self.choosing(text, sampler, longest), context, begun))

    def choosing(
        self, text: Sequence[int], sampler: Sampler, longest: int | None = None
    ) -> "Choosing":
        """The choice of a text's tokens, of which none is made yet; `longest` as in `generate`."""
        if longest is None:
            longest = int(len(text) * self.settings.max_ratio)
        shortest = int(len(text) * self.settings.min_ratio)
        return Choosing(self.settings, sampler, shortest, longest)

    def begin(
        self, text: Sequence[int], context: Context, begun: Mapping[str, np.ndarray] | None
    ) -> np.ndarray:
        """The first input that is left to give after `begun`, which the caches become."""
        if begun is None:
            self.language_model.reset()
            return self.prefix(text, context)
        self.language_model.restore(begun)
        return self.rest(text, context)

    def decode(
        self,
        text: Sequence[int],
        choosing: "Choosing",
        context: Context = NOTHING,
        begun: Mapping[str, np.ndarray] | None = None,
    ) -> Generator[int, None, bool]:
        """As `generate`, with a choice that may have limits of its own."""
        with self.language_model.turn():
            block = self.begin(text, context, begun)
            while choosing.goes_on:
                token = choosing.next(self.log_probabilities(block))
                if token is None:
                    break
                yield token
                block = self.embed_speech([token])
            return choosing.ended

    @staticmethod
    def collect(tokens: Generator[int, None, bool]) -> tuple[list[int], bool]:
        """All tokens of `generate`, and whether they ended."""
        found: list[int] = []
        while True:
            try:
                found.append(next(tokens))
            except StopIteration as stop:
                return found, stop.value

    def log_probabilities(self, block: np.ndarray) -> np.ndarray:
        """Log-probabilities [V] of the next id after a block of embeddings [1, n, D].

        Raises CancelledError if the work of this thread was cancelled.
        """
        cancellation.check()
        return scores(self.language_model.run({"embeddings": block})["logits"][0])


@dataclass
class Choosing:
    """The choice of one token after the other, from `shortest` on until a stop id, or `longest`.

    `ended` is whether a stop id was chosen.
    """

    settings: LanguageModelPart
    sampler: Sampler
    shortest: int
    longest: int
    history: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether there may be another token."""
        return not self.ended and len(self.history) < self.longest

    def next(self, scores: np.ndarray) -> int | None:
        """The next token by log-probabilities [V], which may be changed; None for a stop id."""
        if len(self.history) < self.shortest:
            scores[self.settings.masked_before_min] = -np.inf
        token = self.sampler(scores, self.history)
        if token >= self.settings.speech_tokens:
            self.ended = True
            return None
        self.history.append(token)
        return token


def scores(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits [V]; raises GateError if these are not finite."""
    if not np.isfinite(logits).all():
        raise GateError(
            "the language model gave NaN or infinite logits; the weights or the host are bad"
        )
    return log_softmax(logits)


def _rows(table: Session, ids: Sequence[int]) -> np.ndarray:
    return table.run({"ids": np.asarray([ids], np.int64).reshape(1, -1)})["embeddings"]
