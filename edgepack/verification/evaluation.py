"""The evaluation of a bundle: sentences spoken by the fp32 networks, and how closely others follow.

It is recorded at build time and travels in the bundle, so that a device can repeat it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from edgepack.bundle import arrays
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.manifest import Manifest
from edgepack.bundle.voices import from_arrays, to_arrays
from edgepack.errors import IntegrityError
from edgepack.runtime.fit import recorded, require_voice, widths
from edgepack.runtime.loading import Loaded
from edgepack.verification.speaking import (
    SpokenSentence,
    WantedSentence,
    decode,
    follow,
    freely,
    sounded,
)

FILE = "exam.safetensors"
# Next tokens that are asked for. With so many, the 95 % interval of a share of 0.96 is ± 0.009, and
# of 0.9 ± 0.013.
POSITIONS = 2000
# Sentences. How long networks speak freely differs by a sixth from sentence to sentence, so the
# interval of the ratio of 64 is ± 0.04.
SENTENCES = 64
LONGEST = 75  # speech tokens of a sentence
_SOUNDED = 4  # sentences with mel and audio; of the others there are only tokens
_ATTEMPTS, _SILENT = 1000, 20  # sentences tried; sentences in a row without speech, to give up
_EVERY, _BEST = 60, 32  # of every 60th position all probabilities are kept, of others the best 32
_ARRAYS = ("text", "tokens", "mel", "audio")
_EXPECTED = ("ids", "best", "at", "every", "seed")


@dataclass(frozen=True)
class Question:
    """A sentence of the evaluation: as spoken by the fp32 networks, with their log-probabilities.

    There is a position before each of the n speech tokens and one after the last. `ids` [n + 1, 32]
    are the most probable ids at each position in falling order, and `best` their
    log-probabilities. `every` [m, V] has the log-probabilities of all V ids at the m positions
    `at`. `seed` [1] is the seed of the random numbers that it was spoken with.
    """

    spoken: SpokenSentence
    ids: np.ndarray
    best: np.ndarray
    at: np.ndarray
    every: np.ndarray
    seed: np.ndarray

    @property
    def sounded(self) -> bool:
        """Whether the sentence has mel and audio."""
        return len(self.spoken.audio) > 0

    @property
    def posed(self) -> bool:
        """Whether next tokens are judged, and not only how long the sentence becomes."""
        return len(self.ids) > 0


Evaluation = Sequence[Question]


def record(loaded: Loaded, sentences: Sequence[str]) -> list[Question]:
    """Record the evaluation with the fp32 networks: sentences in which anything is said.

    The sentences are spoken in turn, then again with other random numbers, until there are
    `POSITIONS` tokens and `SENTENCES` sentences; fewer if hardly any of them has speech.
    """
    chosen = _chosen(loaded, sentences)
    counts = accumulate(len(spoken.tokens) + 1 for _, spoken in chosen)
    posed = 1 + sum(count < POSITIONS for count in counts)
    answers = follow(loaded, [spoken for _, spoken in chosen[:posed]])
    questions: list[Question] = []
    for number, (seed, spoken) in enumerate(chosen):
        if number < _SOUNDED:
            spoken = sounded(loaded, spoken, number)
        unknown = np.zeros((0, questions[0].every.shape[1] if questions else 0), np.float32)
        questions.append(_posed(spoken, next(answers, unknown), seed))
    return questions


def _chosen(loaded: Loaded, sentences: Sequence[str]) -> list[tuple[int, SpokenSentence]]:
    """Sentences in which anything is said, each with what its random numbers follow from."""
    chosen: list[tuple[int, SpokenSentence]] = []
    silent = judged = 0
    for number, spoken in enumerate(decode(loaded, islice(cycle(sentences), _ATTEMPTS), LONGEST)):
        silent = silent + 1 if len(spoken.tokens) < 2 else 0
        if silent == _SILENT:
            break
        if silent:
            continue
        chosen.append((number, spoken))
        judged += len(spoken.tokens) + 1
        if judged >= POSITIONS and len(chosen) >= SENTENCES:
            break
    return chosen


def again(
    loaded: Loaded, evaluation: Evaluation, numbers: Sequence[int]
) -> Iterator[SpokenSentence]:
    """Sentences of the evaluation spoken freely by other networks, with the same random numbers.

    Mel and audio stay empty where the evaluation has none.
    """
    questions = [evaluation[number] for number in numbers]
    wanted = [WantedSentence(q.spoken.voice, q.spoken.text, int(q.seed[0])) for q in questions]
    for number, spoken in zip(numbers, freely(loaded, wanted, LONGEST), strict=True):
        yield sounded(loaded, spoken, number) if evaluation[number].sounded else spoken


def positions(evaluation: Evaluation) -> int:
    """How many next tokens an evaluation judges."""
    return sum(len(question.ids) for question in evaluation)


def least_ratio(evaluation: Evaluation) -> float | None:
    """The least number of speech tokens a text token, over sentences that came to their end."""
    whole = [q.spoken for q in evaluation if len(q.spoken.tokens) < LONGEST and len(q.spoken.text)]
    return min((round(len(s.tokens) / len(s.text), 4) for s in whole), default=None)


def _posed(spoken: SpokenSentence, expected: np.ndarray, seed: int) -> Question:
    """A question whose answer is known, [n + 1, V]."""
    ids = np.argsort(-expected, axis=1, kind="stable")[:, :_BEST]
    best = np.take_along_axis(expected, ids, 1)
    at = np.arange(0, len(expected), _EVERY)
    every = expected[at].astype(np.float16)
    return Question(spoken, ids.astype(np.int32), best, at, every, np.array([seed], np.int64))


def to_bytes(evaluation: Evaluation) -> bytes:
    """An evaluation as a safetensors file with entries `number/field`."""
    entries: dict[str, np.ndarray] = {}
    for number, question in enumerate(evaluation):
        spoken = question.spoken
        arrays = {name: getattr(spoken, name) for name in _ARRAYS} | to_arrays(spoken.voice)
        arrays |= {name: getattr(question, name) for name in _EXPECTED}
        small = np.int16 if question.every.shape[1] <= np.iinfo(np.int16).max else np.int32
        arrays |= {
            "audio": spoken.audio.astype(np.float16),  # its 70 dB of signal to noise are enough
            "best": question.best.astype(np.float16),
            "ids": question.ids.astype(small),
        }
        for name, value in arrays.items():
            entries[f"{number}/{name}"] = np.ascontiguousarray(value)
    return save(entries)


def read(path: Path) -> list[Question]:
    """An evaluation from a file; raises IntegrityError if it is not one."""
    return _parsed(path.read_bytes(), path)


def of(bundle: Bundle) -> list[Question]:
    """The evaluation of a bundle, empty for none; raises IntegrityError if it does not fit."""
    manifest = bundle.manifest
    if manifest.quality is None:
        return []
    path = bundle.path(manifest.quality.exam)
    evaluation = _parsed(bundle.read(manifest.quality.exam), path)
    calls = recorded(bundle)
    found = widths(bundle, calls)
    logits = calls[manifest.stage_of("language_model")][0][1]["logits"].shape[1]
    for question in evaluation:
        require_voice(bundle, question.spoken.voice, found, f"a voice of {path.name}")
        if problem := _problem(question, manifest, found.text_rows, logits):
            raise IntegrityError(f"{path}: not an evaluation of this bundle ({problem})")
    if not any(question.posed for question in evaluation) or sum(q.sounded for q in evaluation) < 2:
        raise IntegrityError(
            f"{path}: not an evaluation of this bundle (too little of it has audio)"
        )
    return evaluation


def _problem(question: Question, manifest: Manifest, rows: int, logits: int) -> str:
    """Why a question does not fit the bundle's networks, in words; empty if it does."""
    spoken, count = question.spoken, question.spoken.tokens.size + 1 if question.posed else 0
    parts = {name: getattr(spoken, name) for name in _ARRAYS}
    parts |= {name: getattr(question, name) for name in _EXPECTED}
    best, some = question.ids.shape[-1:][0] if question.ids.ndim else 0, question.at.size
    problem = arrays.mismatch(
        parts,
        {
            "text": ("i", (None,)),
            "tokens": ("i", (None,)),
            "mel": ("f", (1, manifest.host.flow.mels, None)),
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
        and arrays.within(spoken.tokens, manifest.host.language_model.speech_tokens)
        and arrays.within(question.ids, logits)
        and arrays.within(question.at, count)
        and arrays.within(question.seed, _ATTEMPTS)
        and bool(spoken.mel.size) == bool(spoken.audio.size)  # both or none
    )
    if not problem and not (inside and best and bool(some) == question.posed):
        return "ids beyond those of the networks, or nothing in it"
    return problem


def _parsed(data: bytes, where: Path) -> list[Question]:
    found: dict[int, dict[str, np.ndarray]] = {}
    try:
        for entry, value in arrays.parse(data, where, "an evaluation").items():
            number, name = entry.split("/")
            found.setdefault(int(number), {})[name] = value
        evaluation = [_question(found[number]) for number in sorted(found)]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{where}: not an evaluation ({error})") from None
    if not evaluation:
        raise IntegrityError(f"{where}: not an evaluation (no questions)")
    return evaluation


def _question(parts: dict[str, np.ndarray]) -> Question:
    asked, expected = ({name: parts.pop(name) for name in n} for n in (_ARRAYS, _EXPECTED))
    asked["audio"] = asked["audio"].astype(np.float32)
    expected["best"] = expected["best"].astype(np.float32)
    return Question(SpokenSentence(from_arrays(parts), **asked), **expected)
