"""Sentences spoken by the networks of a bundle, the same way each time: freely, or as given.

Several are decoded at once where the engine can do that.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepack.bundle import voices
from edgepack.bundle.voices import Voice
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.engines.watch import Clock
from edgepack.runtime.loading import Loaded
from edgepack.runtime.stages.decode import Choosing, Context
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.rows import BatchedUtterance, RowDecoder
from edgepack.runtime.stages.sampling import inverse_cdf, repetition_aware

_SEED = 7
_ROWS = 16  # utterances that are decoded at once
_AHEAD = 24  # those and some that wait, so that a row never waits for one


@dataclass(frozen=True)
class SpokenSentence:
    """One sentence as spoken by some networks.

    `text` are token ids, `tokens` speech tokens, both [n]; `mel` [1, mels, frames], `audio`
    [samples].
    """

    voice: Voice
    text: np.ndarray
    tokens: np.ndarray
    mel: np.ndarray
    audio: np.ndarray


@dataclass(frozen=True)
class WantedSentence:
    """A text [n] that is to be spoken, and the number that its random numbers follow from."""

    voice: Voice
    text: np.ndarray
    seed: int


def decode(loaded: Loaded, sentences: Iterable[str], longest: int) -> Iterator[SpokenSentence]:
    """Decode sentences to at most `longest` speech tokens, voices in turn, without mel and audio.

    Of each text the first utterance is spoken. The same networks give the same tokens.
    """
    names = sorted(loaded.bundle.manifest.voices)
    known = {name: voices.read(loaded.bundle, name)[1] for name in names}

    def all_wanted() -> Iterator[WantedSentence]:
        for number, sentence in enumerate(sentences):
            text = loaded.frontend.ids(loaded.frontend.utterances(sentence)[0])
            voice = known[names[number % len(names)]]
            yield WantedSentence(voice, np.array(text, np.int64), number)

    return freely(loaded, all_wanted(), longest)


def speak(loaded: Loaded, sentences: Iterable[str], longest: int) -> Iterator[SpokenSentence]:
    """Speak sentences as `decode` does, with mel and audio."""
    for number, spoken in enumerate(decode(loaded, sentences, longest)):
        yield sounded(loaded, spoken, number)


def freely(
    loaded: Loaded, wanted: Iterable[WantedSentence], longest: int
) -> Iterator[SpokenSentence]:
    """Texts in order as the networks speak them, without mel and audio."""
    settings = loaded.decoder.settings

    def begun() -> Iterator["_Utterance"]:
        for one in wanted:
            draws = np.random.default_rng([_SEED, one.seed])
            sampler = repetition_aware(settings.sampling, inverse_cdf(draws.random))
            limit = min(longest, int(len(one.text) * settings.max_ratio))
            choosing = loaded.decoder.choosing(one.text.tolist(), sampler, limit)
            yield _Utterance(one.voice, one.text, choosing)

    mel = np.zeros((1, loaded.flow.settings.mels, 0), np.float32)
    for one in _decoded(loaded, begun()):
        tokens = np.array(one.choosing.history, np.int64)
        yield SpokenSentence(one.voice, one.text, tokens, mel, np.zeros(0, np.float32))


def follow(loaded: Loaded, spoken: Iterable[SpokenSentence]) -> Iterator[np.ndarray]:
    """Log-probabilities [n + 1, V] of each sentence, before its tokens and after the last.

    The tokens are given (teacher forcing). Raises GateError if a probability is not finite.
    """
    settings = loaded.decoder.settings

    def begun() -> Iterator["_Utterance"]:
        for sentence in spoken:
            scores: list[np.ndarray] = []
            sampler = _Given(sentence.tokens.tolist(), settings.speech_tokens, scores)
            choosing = Choosing(settings, sampler, 0, len(sentence.tokens) + 1)
            yield _Utterance(sentence.voice, sentence.text, choosing, scores)

    for one in _decoded(loaded, begun()):
        yield np.stack(one.scores)


@dataclass(frozen=True)
class _Given:
    """Chooses given tokens, then the id `end`; log-probabilities of each choice go to `scores`."""

    tokens: Sequence[int]
    end: int
    scores: list[np.ndarray]

    def __call__(self, log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        """The next token, whatever the probabilities are."""
        self.scores.append(log_probabilities)
        return self.tokens[len(history)] if len(history) < len(self.tokens) else self.end


@dataclass(frozen=True)
class _Utterance:
    """What is decoded: `choosing` has its tokens when it has been.

    `scores` are the log-probabilities [V] of each choice where they are asked for.
    """

    voice: Voice
    text: np.ndarray
    choosing: Choosing
    scores: Sequence[np.ndarray] = ()


def _decoded(loaded: Loaded, utterances: Iterable[_Utterance]) -> Iterator[_Utterance]:
    """Utterances in order, each when all of its tokens are known.

    When it is closed no network is called any more.
    """
    decoder = loaded.decoder
    if decoder.language_model.rows() is None:
        for one in utterances:
            context = continued(loaded, one.voice, one.text)
            decoder.collect(decoder.decode(one.text.tolist(), one.choosing, context))
            yield one
        return
    # The next are decoded while the caller may use the language model itself.
    own = replace(decoder, language_model=decoder.language_model.fork())
    rows = RowDecoder(own, _ROWS, Clock())
    begun: deque[tuple[_Utterance, BatchedUtterance]] = deque()
    try:
        for one in utterances:
            context = continued(loaded, one.voice, one.text)
            row = BatchedUtterance(one.text.tolist(), context, one.choosing, None, Clock())
            begun.append((one, rows.begin(row)))
            if len(begun) == _AHEAD:
                yield _first(begun)
        while begun:
            yield _first(begun)
    finally:
        for _, row in begun:
            row.leave()
        rows.wait()


def _first(begun: deque[tuple[_Utterance, BatchedUtterance]]) -> _Utterance:
    """Wait for the first utterance, and take it out."""
    one, row = begun.popleft()
    for _ in row.tokens():
        pass
    return one


def sounded(loaded: Loaded, spoken: SpokenSentence, number: int) -> SpokenSentence:
    """A sentence of a number with its mel and audio, unless nothing is said in it."""
    if not len(spoken.tokens):
        return spoken
    mel = loaded.flow.mel(spoken.tokens.tolist(), condition(spoken.voice))
    return replace(spoken, mel=mel, audio=vocode(loaded, mel, number))


def continued(loaded: Loaded, voice: Voice, text: np.ndarray) -> Context:
    """What the language model continues for a text, with a voice."""
    given = Context(speaker=voice.speaker)
    if voice.prompt:
        given = replace(given, text=voice.prompt.text.tolist(), tokens=voice.prompt.tokens.tolist())
    return loaded.frontend.context(given, text.tolist())


def condition(voice: Voice) -> Condition:
    """The flow decoder's conditions of a voice: speaker, and prompt if it has one."""
    if voice.prompt is None:
        return Condition(voice.speaker)
    return Condition(voice.speaker, voice.prompt.tokens.tolist(), voice.prompt.mel)


def vocode(loaded: Loaded, mel: np.ndarray, number: int) -> np.ndarray:
    """Audio [n] of a mel; the excitation noise depends only on the number of the sentence."""
    rng = np.random.default_rng([_SEED, number, 1])
    return loaded.vocoder.synthesize(mel, loaded.vocoder.noise(mel.shape[2], rng)).audio[0]


def calls_of(loaded: Loaded, spoken: SpokenSentence) -> Iterator[Feeds]:
    """What the language model is given for a sentence: all before its tokens, then one by one."""
    decoder = loaded.decoder
    context = continued(loaded, spoken.voice, spoken.text)
    yield {"embeddings": decoder.prefix(spoken.text.tolist(), context)}
    for token in spoken.tokens.tolist():
        yield {"embeddings": decoder.embed_speech([token])}
