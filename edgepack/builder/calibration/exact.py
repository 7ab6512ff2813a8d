"""Exact trajectories of the fp32 networks, by the classical Runge-Kutta method.

Its ten steps are closer to the truth than eighty of Euler's (docs/solver.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from edgepack.calibration.cache import recorded
from edgepack.errors import GateError, IntegrityError
from edgepack.hub import REFEREE
from edgepack.report import Step
from edgepack.runtime.flow import Condition, FlowDecoder
from edgepack.runtime.loading import Loaded, load
from edgepack.runtime.solver import euler
from edgepack.verification import trajectories
from edgepack.verification.exam import Spoken, decode
from edgepack.verification.trajectories import Trajectory, decibel

HELD_OUT, FITTED = 20, 4  # utterances to judge a solver by, and to fit it to
TOKENS, FEWEST = 40, 8  # speech tokens of one at most, and at least
KINDS = ("plain", "chunked", "prompted")
COURSES = "courses"
_FINE, _COARSE = 20, 10  # Runge-Kutta steps of what is fitted to, and of what is judged
_KIND = "trajectories"
_ATTEMPTS = 3  # times the utterances that are wanted


@dataclass(frozen=True)
class Course:
    """An exact trajectory with what is on its way, and what the estimator is given for it.

    `times` [N] run from 0 to 1. At these, `states` [N, mels, T] and the velocities under the
    utterance's conditions and under none, `velocities` [N, 2, mels, T]. `mu`, `cond` [1, mels, T],
    `spk` [1, mels]; `mask` has whether attention is chunked, and the frames of the prompt.
    """

    mu: np.ndarray
    spk: np.ndarray
    cond: np.ndarray
    mask: np.ndarray
    times: np.ndarray
    states: np.ndarray
    velocities: np.ndarray

    @property
    def chunked(self) -> bool:
        """Whether attention is limited to chunks as in streams."""
        return bool(self.mask[0])

    @property
    def known(self) -> int:
        """Frames of the prompt, which are not judged."""
        return int(self.mask[1])


@dataclass(frozen=True)
class Given:
    """Conditions of an utterance."""

    mu: np.ndarray
    spk: np.ndarray
    cond: np.ndarray
    chunked: bool
    known: int


def record(
    reference: Path, fitted: Sequence[str], held_out: Sequence[str], key: str, step: Step
) -> Path:
    """Follow the fp32 networks of the bundle `reference` exactly; runs in its own process.

    `fitted` and `held_out` are sentences; each becomes utterances in turn with a prompt, without
    one, and in chunks. Returns a folder with `COURSES` and `trajectories.FILE`. Recordings of the
    same key are used again. Raises GateError if the networks speak too little.
    """

    def write(folder: Path) -> None:
        loaded = load(reference, REFEREE)
        (folder / COURSES).mkdir()
        for number, given in enumerate(_utterances(loaded, fitted, FITTED)):
            step(f"following the exact trajectory of utterance {number + 1} of {FITTED}")
            course = _course(loaded.flow, given, _FINE)
            arrays = {f.name: np.ascontiguousarray(getattr(course, f.name)) for f in fields(course)}
            save_file(arrays, folder / COURSES / f"{number:02d}.safetensors")
        judged = []
        for number, given in enumerate(_utterances(loaded, held_out, HELD_OUT)):
            step(f"the same for the gate: utterance {number + 1} of {HELD_OUT}")
            judged.append(_judged(loaded.flow, given))
        (folder / trajectories.FILE).write_bytes(trajectories.to_bytes(judged))

    return recorded(_KIND, key, write)


def read_courses(folder: Path) -> list[Course]:
    """Courses of a recording; raises IntegrityError for a damaged file."""
    paths = sorted((folder / COURSES).glob("*.safetensors"))
    try:
        return [Course(**load_file(path)) for path in paths]
    except (SafetensorError, TypeError) as error:
        raise IntegrityError(f"{folder}: no recorded courses ({error}); delete it") from None


def _utterances(loaded: Loaded, sentences: Sequence[str], count: int) -> Iterator[Given]:
    """Conditions of `count` utterances that have enough speech tokens."""
    made = 0
    tried = islice(cycle(sentences), _ATTEMPTS * count)
    voices = len(loaded.bundle.manifest.voices)
    for number, spoken in enumerate(decode(loaded, list(tried), TOKENS)):
        if len(spoken.tokens) < FEWEST:
            continue
        yield _given(loaded.flow, spoken, KINDS[number // voices % len(KINDS)])
        made += 1
        if made == count:
            return
    raise GateError(
        f"the fp32 networks spoke only {made} of {count} utterances for the solver; is this "
        "checkpoint trained? --solver reference needs none"
    )


def _given(flow: FlowDecoder, spoken: Spoken, kind: str) -> Given:
    """Conditions of an utterance; without a prompt of its voice it continues its own first half."""
    voice, tokens = spoken.voice, spoken.tokens.tolist()
    condition = Condition(voice.speaker)
    if kind == "prompted":
        if voice.prompt is not None:
            before = voice.prompt.tokens.tolist()[:TOKENS]
            mel = voice.prompt.mel[: len(before) * flow.settings.ratio]
        else:
            before, tokens = tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]
            mel = flow.mel(before, condition)[0].T
        condition = Condition(voice.speaker, before, mel)
    chunked = kind == "chunked"
    mu, spk, cond = flow.conditions(tokens, condition, final=True, chunked=chunked)
    return Given(mu, spk, cond, chunked, 0 if condition.mel is None else len(condition.mel))


def _judged(flow: FlowDecoder, given: Given) -> Trajectory:
    exact = _course(flow, given, _COARSE).states[None, -1]
    own = flow.solve(
        given.mu, given.spk, given.cond, solver=euler(flow.settings), chunked=given.chunked
    )
    return Trajectory(
        given.mu,
        given.spk,
        given.cond,
        given.chunked,
        given.known,
        exact,
        decibel(own, exact, given.known),
    )


def grid(steps: int) -> np.ndarray:
    """Times of a course: dense near 0, where trajectories bend."""
    return 1.0 - np.cos(np.linspace(0.0, 1.0, steps + 1) * np.pi / 2)


def _course(flow: FlowDecoder, given: Given, steps: int) -> Course:
    """Integrate guided velocities by Runge-Kutta steps (Kutta, 1901), in float64."""
    field = flow.velocity_field(given.mu, given.spk, given.cond, chunked=given.chunked)
    times = grid(steps)
    half = (times[:-1] + times[1:]) / 2
    shifts, between = flow.embed(times.tolist()), flow.embed(half.tolist())
    rate = flow.settings.guidance
    none = np.zeros(2, np.float32)

    def rows(x: np.ndarray, shift: np.ndarray) -> np.ndarray:
        return np.asarray(field.step(x.astype(np.float32), shift[None], none)[1], np.float64)

    def guided(x: np.ndarray, shift: np.ndarray) -> np.ndarray:
        return _guided(rows(x, shift), rate)

    x = flow.start(given.mu.shape[2]).astype(np.float64)
    states, velocities = [x[0]], [rows(x, shifts[0])]
    for k, width in enumerate(np.diff(times)):
        first = _guided(velocities[-1], rate)
        second = guided(x + width / 2 * first, between[k])
        third = guided(x + width / 2 * second, between[k])
        fourth = guided(x + width * third, shifts[k + 1])
        x = x + width / 6 * (first + 2 * second + 2 * third + fourth)
        states.append(x[0])
        velocities.append(rows(x, shifts[k + 1]))
    return Course(
        given.mu,
        given.spk,
        given.cond,
        np.array([given.chunked, given.known], np.int64),
        times,
        np.array(states, np.float32),
        np.array(velocities, np.float32),
    )


def _guided(rows: np.ndarray, rate: float) -> np.ndarray:
    """Velocity with classifier-free guidance, of both rows."""
    return (1.0 + rate) * rows[:1] - rate * rows[1:]
