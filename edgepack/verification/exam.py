"""The exam of a bundle: sentences spoken by the fp32 networks, and how closely others follow.

It is recorded at build time and travels in the bundle, so that a device can repeat it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from edgepack import arrays, voices
from edgepack.bundle import Bundle
from edgepack.errors import IntegrityError
from edgepack.manifest import Manifest
from edgepack.runtime.fit import recorded, require_voice, widths
from edgepack.runtime.flow import Condition
from edgepack.runtime.loading import Loaded
from edgepack.runtime.sampling import inverse_cdf, log_softmax, repetition_aware
from edgepack.runtime.session import Feeds
from edgepack.voices import Voice, from_arrays, to_arrays

FILE = "exam.safetensors"
# Next tokens of an exam: the 95 % interval of a share of 0.96 is ± 0.009 then, of 0.9 ± 0.013.
POSITIONS = 2000
LONGEST = 75  # speech tokens of a sentence
_SOUNDED = 4  # sentences with mel and audio; of the others there are only tokens
_ATTEMPTS = 60  # sentences that are tried
_SEED = 7
_EVERY, _BEST = 12, 32  # positions of which all probabilities are kept; ids kept of the others
_ARRAYS = ("text", "tokens", "mel", "audio")
_EXPECTED = ("ids", "best", "at", "every", "seed")


@dataclass(frozen=True)
class Spoken:
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
class Question:
    """A sentence of the exam: as spoken by the fp32 networks, with their log-probabilities.

    Positions are before each speech token and after the last. `ids` and `best` [n + 1, 32] are
    the most probable ids of each, in falling order; `every` [m, V] is all of the positions `at`.
    `seed` [1] is of the random numbers that it was spoken with.
    """

    spoken: Spoken
    ids: np.ndarray
    best: np.ndarray
    at: np.ndarray
    every: np.ndarray
    seed: np.ndarray

    @property
    def sounded(self) -> bool:
        """Whether it has mel and audio."""
        return len(self.spoken.audio) > 0


Exam = Sequence[Question]


def record(loaded: Loaded, sentences: Sequence[str]) -> list[Question]:
    """The exam of a bundle that is the reference: sentences with any speech.

    They are taken in turn, and again with other random numbers, until there are `POSITIONS`, or
    as many as come of 60 attempts.
    """
    questions: list[Question] = []
    for number, spoken in enumerate(decode(loaded, islice(cycle(sentences), _ATTEMPTS), LONGEST)):
        if len(spoken.tokens) < 2:
            continue
        if len(questions) < _SOUNDED:
            spoken = _sounded(loaded, spoken, len(questions))
        questions.append(_posed(spoken, follow(loaded, spoken), number))
        if positions(questions) >= POSITIONS:
            break
    return questions


def positions(exam: Exam) -> int:
    """Next tokens that an exam asks for."""
    return sum(len(question.spoken.tokens) + 1 for question in exam)


def _posed(spoken: Spoken, expected: np.ndarray, seed: int) -> Question:
    """A question whose answer is known, [n + 1, V]."""
    ids = np.argsort(-expected, axis=1, kind="stable")[:, :_BEST]
    best = np.take_along_axis(expected, ids, 1)
    at = np.arange(0, len(expected), _EVERY)
    every = expected[at].astype(np.float16)
    return Question(spoken, ids.astype(np.int32), best, at, every, np.array([seed], np.int64))


def to_bytes(exam: Exam) -> bytes:
    """An exam as a safetensors file with entries `number/field`."""
    entries: dict[str, np.ndarray] = {}
    for number, question in enumerate(exam):
        spoken = question.spoken
        arrays = {name: getattr(spoken, name) for name in _ARRAYS} | to_arrays(spoken.voice)
        arrays |= {name: getattr(question, name) for name in _EXPECTED}
        for name, value in arrays.items():
            entries[f"{number}/{name}"] = np.ascontiguousarray(value)
    return save(entries)


def read(path: Path) -> list[Question]:
    """An exam from a file; raises IntegrityError if it is not one."""
    return _parsed(path.read_bytes(), path)


def of(bundle: Bundle) -> list[Question]:
    """The exam of a bundle, none if it has none; raises IntegrityError if it cannot take it."""
    manifest = bundle.manifest
    if manifest.quality is None:
        return []
    path = bundle.path(manifest.quality.exam)
    exam = _parsed(bundle.read(manifest.quality.exam), path)
    calls = recorded(bundle)
    found = widths(bundle, calls)
    logits = calls["speech_lm"][0][1]["logits"].shape[1]
    for question in exam:
        require_voice(bundle, question.spoken.voice, found, f"a voice of {path.name}")
        if problem := _problem(question, manifest, found.text_rows, logits):
            raise IntegrityError(f"{path}: not an exam of this bundle ({problem})")
    if not any(question.sounded for question in exam):
        raise IntegrityError(f"{path}: not an exam of this bundle (nothing in it has audio)")
    return exam


def _problem(question: Question, manifest: Manifest, rows: int, logits: int) -> str:
    """Why networks cannot be asked a question, in words; empty if they can."""
    spoken, count = question.spoken, question.spoken.tokens.size + 1
    parts = {name: getattr(spoken, name) for name in _ARRAYS}
    parts |= {name: getattr(question, name) for name in _EXPECTED}
    best, some = question.ids.shape[-1:][0] if question.ids.ndim else 0, question.at.size
    problem = arrays.mismatch(
        parts,
        {
            "text": ("i", (None,)),
            "tokens": ("i", (None,)),
            "mel": ("f", (1, manifest.flow.mels, None)),
            "audio": ("f", (None,)),
            "ids": ("i", (count, best)),
            "best": ("f", (count, best)),
            "at": ("i", (None,)),
            "every": ("f", (some, logits)),
            "seed": ("i", (1,)),
        },
    )
    inside = (
        arrays.within(spoken.text, rows)
        and arrays.within(spoken.tokens, manifest.language_model.speech_tokens)
        and arrays.within(question.ids, logits)
        and arrays.within(question.at, count)
        and arrays.within(question.seed, _ATTEMPTS)
        and bool(spoken.mel.size) == bool(spoken.audio.size)  # sounded or not
    )
    if not problem and not (inside and best and some):
        return "ids beyond those of the networks, or nothing in it"
    return problem


def _parsed(data: bytes, where: Path) -> list[Question]:
    found: dict[int, dict[str, np.ndarray]] = {}
    try:
        for entry, value in arrays.parse(data, where, "an exam").items():
            number, name = entry.split("/")
            found.setdefault(int(number), {})[name] = value
        exam = [_question(found[number]) for number in sorted(found)]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{where}: not an exam ({error})") from None
    if not exam:
        raise IntegrityError(f"{where}: not an exam (no questions)")
    return exam


def _question(parts: dict[str, np.ndarray]) -> Question:
    asked, expected = ({name: parts.pop(name) for name in n} for n in (_ARRAYS, _EXPECTED))
    return Question(Spoken(from_arrays(parts), **asked), **expected)


def decode(loaded: Loaded, sentences: Iterable[str], longest: int) -> Iterator[Spoken]:
    """Sentences as speech tokens, at most `longest`, with each voice in turn; mel and audio empty.

    A sentence is one utterance: its first. The same networks give the same samples.
    """
    names = sorted(loaded.bundle.manifest.voices)
    known = {name: voices.read(loaded.bundle, name)[1] for name in names}
    for number, sentence in enumerate(sentences):
        text = loaded.frontend.ids(loaded.frontend.utterances(sentence)[0])
        voice = known[names[number % len(names)]]
        yield _decoded(loaded, voice, np.array(text, np.int64), number, longest)


def speak(loaded: Loaded, sentences: Iterable[str], longest: int) -> Iterator[Spoken]:
    """The same with mel and audio."""
    for number, spoken in enumerate(decode(loaded, sentences, longest)):
        yield _sounded(loaded, spoken, number)


def again(loaded: Loaded, exam: Exam, number: int) -> Spoken:
    """A sentence of the exam spoken freely by other networks, with the same random numbers.

    Mel and audio stay empty where the exam has none.
    """
    question = exam[number]
    spoken = question.spoken
    found = _decoded(loaded, spoken.voice, spoken.text, int(question.seed[0]), LONGEST)
    return _sounded(loaded, found, number) if question.sounded else found


def _decoded(loaded: Loaded, voice: Voice, text: np.ndarray, number: int, longest: int) -> Spoken:
    decoder = loaded.decoder
    draws = np.random.default_rng([_SEED, number])
    sampler = repetition_aware(decoder.settings.sampling, inverse_cdf(draws.random))
    limit = min(longest, int(len(text) * decoder.settings.max_ratio))
    found = decoder.generate(text.tolist(), sampler, *_prompt(voice), limit)
    tokens, _ = decoder.collect(found)
    mel = np.zeros((1, loaded.flow.settings.mels, 0), np.float32)
    return Spoken(voice, text, np.array(tokens, np.int64), mel, np.zeros(0, np.float32))


def _sounded(loaded: Loaded, spoken: Spoken, number: int) -> Spoken:
    if not len(spoken.tokens):
        return spoken
    mel = loaded.flow.mel(spoken.tokens.tolist(), condition(spoken.voice))
    return replace(spoken, mel=mel, audio=vocode(loaded, mel, number))


def _prompt(voice: Voice) -> tuple[list[int], list[int]]:
    """Text and speech tokens to continue."""
    if voice.prompt is None:
        return [], []
    return voice.prompt.text.tolist(), voice.prompt.tokens.tolist()


def condition(voice: Voice) -> Condition:
    """What the flow decoder is given of a voice."""
    if voice.prompt is None:
        return Condition(voice.speaker)
    return Condition(voice.speaker, voice.prompt.tokens.tolist(), voice.prompt.mel)


def vocode(loaded: Loaded, mel: np.ndarray, number: int) -> np.ndarray:
    """Audio [n] of a mel; the excitation noise depends only on the number of the sentence."""
    rng = np.random.default_rng([_SEED, number, 1])
    return loaded.vocoder.synthesize(mel, loaded.vocoder.noise(mel.shape[2], rng)).audio[0]


def follow(loaded: Loaded, spoken: Spoken) -> np.ndarray:
    """Log-probabilities [n + 1, V] before each given token and after the last (teacher forcing)."""
    session = loaded.decoder.decoder
    session.reset()
    calls = calls_of(loaded, spoken)
    return np.stack([log_softmax(session.run(feeds)["logits"][0]) for feeds in calls])


def calls_of(loaded: Loaded, spoken: Spoken) -> Iterator[Feeds]:
    """What the language model is given for a sentence: all before its tokens, then one by one."""
    decoder = loaded.decoder
    yield {"embeddings": decoder.prefix(spoken.text.tolist(), *_prompt(spoken.voice))}
    for token in spoken.tokens.tolist():
        yield {"embeddings": decoder.embed_speech([token])}
