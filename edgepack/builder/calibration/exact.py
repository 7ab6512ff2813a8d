"""Exact trajectories of the fp32 networks, by the classical Runge-Kutta method.

Six of its steps are more exact than eighty of Euler's (docs/solver.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from edgepack.builder.calibration.recordings import recorded
from edgepack.builder.hub import REFEREE
from edgepack.errors import GateError, IntegrityError
from edgepack.report import Step
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import Loaded, load
from edgepack.runtime.stages.flow import Condition, FlowDecoder
from edgepack.runtime.stages.solver import euler
from edgepack.verification import trajectories
from edgepack.verification.speaking import SpokenSentence, decode
from edgepack.verification.trajectories import Trajectory, decibel

HELD_OUT, FITTED = 9, 4  # utterances to judge a solver by, and to fit it to
TOKENS, FEWEST = 32, 8  # speech tokens of one at most, with those of its prompt, and at least
KINDS = ("plain", "chunked", "prompted")
REFERENCES = "references"
_FINE, _COARSE = 20, 6  # Runge-Kutta steps of what is fitted to, and of what is judged
_HALF = TOKENS // 2
_KIND = "trajectories"
_ATTEMPTS = 3  # times the utterances that are wanted


@dataclass(frozen=True)
class ReferenceTrajectory:
    """An exact trajectory of one utterance, and the estimator's inputs for it.

    `times` [N] run from 0 to 1. `states` [N, mels, T] are those of the ODE at these times, and
    `velocities` [N, 2, mels, T] are there those with the utterance's conditions and without any.
    `mu` and `cond` [1, mels, T] and `spk` [1, mels] are the conditions. `mask` [2] is whether
    attention is chunked, and the number of frames of the prompt.
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
    """Conditions of an utterance: `known` frames of the prompt are given, and not judged."""

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
    one, and in chunks. Returns a folder with `REFERENCES` and `trajectories.FILE`. Recordings of
    the same key are used again. Raises GateError if the networks speak too little.
    """

    def write(folder: Path) -> None:
        loaded = load(reference, REFEREE, options=LoadOptions(repacked=True))
        (folder / REFERENCES).mkdir()
        for number, given in enumerate(_utterances(loaded, fitted, FITTED)):
            step(f"following the exact trajectory of utterance {number + 1} of {FITTED}")
            followed = _reference(loaded.flow, given, grid(_FINE))
            arrays = {
                f.name: np.ascontiguousarray(getattr(followed, f.name)) for f in fields(followed)
            }
            save_file(arrays, folder / REFERENCES / f"{number:02d}.safetensors")
        judged = []
        for number, given in enumerate(_utterances(loaded, held_out, HELD_OUT)):
            step(f"the same for the gate: utterance {number + 1} of {HELD_OUT}")
            judged.append(_judged(loaded.flow, given))
        (folder / trajectories.FILE).write_bytes(trajectories.to_bytes(judged))

    return recorded(_KIND, key, write)


def read_references(folder: Path) -> list[ReferenceTrajectory]:
    """Reference trajectories of a recording; raises IntegrityError for a damaged file."""
    paths = sorted((folder / REFERENCES).glob("*.safetensors"))
    try:
        return [ReferenceTrajectory(**load_file(path)) for path in paths]
    except (SafetensorError, TypeError) as error:
        raise IntegrityError(f"{folder}: no recorded references ({error}); delete it") from None


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


def _given(flow: FlowDecoder, spoken: SpokenSentence, kind: str) -> Given:
    """Conditions of an utterance; without a prompt of its voice it continues its own first half."""
    voice, tokens = spoken.voice, spoken.tokens.tolist()
    condition = Condition(voice.speaker)
    if kind == "prompted":
        if voice.prompt is not None:
            before, tokens = voice.prompt.tokens.tolist()[:_HALF], tokens[:_HALF]
            mel = voice.prompt.mel[: flow.settings.frames(len(before))]
        else:
            before, tokens = tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]
            mel = flow.mel(before, condition)[0].T
        condition = Condition(voice.speaker, before, mel)
    chunked = kind == "chunked"
    mu, spk, cond = flow.conditions(tokens, condition, final=True, chunked=chunked)
    return Given(mu, spk, cond, chunked, 0 if condition.mel is None else len(condition.mel))


def _judged(flow: FlowDecoder, given: Given) -> Trajectory:
    exact = _reference(flow, given, _ends(_COARSE)).states[None, -1]
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
    """Times of a reference trajectory: dense near 0, where trajectories bend."""
    return 1.0 - np.cos(np.linspace(0.0, 1.0, steps + 1) * np.pi / 2)


def _ends(steps: int) -> np.ndarray:
    """Times between which Runge-Kutta steps miss least: dense near both ends."""
    found: np.ndarray = np.sin(np.linspace(0.0, 1.0, steps + 1) * np.pi / 2) ** 2
    return found


def _reference(flow: FlowDecoder, given: Given, times: np.ndarray) -> ReferenceTrajectory:
    """Integrate guided velocities by Runge-Kutta steps (Kutta, 1901), in float64."""
    field = flow.velocity_field(given.mu, given.spk, given.cond, chunked=given.chunked)
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
    return ReferenceTrajectory(
        given.mu,
        given.spk,
        given.cond,
        np.array([given.chunked, given.known], np.int64),
        times,
        np.array(states, np.float32),
        np.array(velocities, np.float32),
    )


def _guided(rows: np.ndarray, rate: float) -> np.ndarray:
    """Velocity with classifier-free guidance, from the conditional and unconditional row."""
    return (1.0 + rate) * rows[:1] - rate * rows[1:]
