"""Speech tokens → mel spectrogram: conditions from tokens, then the steps of the ODE.

How tokens become conditions is a strategy's (`strategies.flow`). Source: cosyvoice/flow/
flow_matching.py (`CausalConditionalCFM`); flow matching is from Lipman et al. (2023).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from edgepack.bundle.host import FlowPart
from edgepack.bundle.manifest import Solver
from edgepack.errors import GateError, UsageError
from edgepack.machine.memory import require
from edgepack.runtime.engines.session import Feeds, Session
from edgepack.runtime.stages.solver import Observe, euler, integrate

# Of attention for each pair of frames and each head: scores and their softmax in float32, 2 rows.
_ATTENTION_BYTES = 2 * 4 * 2


@dataclass(frozen=True)
class Condition:
    """What the decoder is given besides the tokens.

    `tokens` and `mel` [frames, mels] are the prompt's, `speaker` [d] the speaker embedding.
    """

    speaker: np.ndarray
    tokens: Sequence[int] = ()
    mel: np.ndarray | None = None


@dataclass(frozen=True)
class VelocityField:
    """The velocity field of one utterance: its conditions, alone and beside their absence.

    Conditions are inputs of the estimator, each with one row; `constants` are its other inputs,
    the same for every row. It is given both rows of a guided step in one call if it takes several.
    """

    estimator: Session
    conditions: Feeds
    constants: Feeds

    @cached_property
    def _absent(self) -> Feeds:
        return {name: np.zeros_like(value) for name, value in self.conditions.items()}

    @cached_property
    def _both(self) -> Feeds:
        parts = self.conditions, self._absent
        return {name: np.concatenate([part[name] for part in parts]) for name in self.conditions}

    def step(self, x: Any, shift: np.ndarray, weights: np.ndarray) -> tuple[Any, Any]:
        """`x + Σ weights · velocity` and the velocity [B, mels, T] at x, under as many conditions.

        One weight is for the conditional row, two for that and the unconditional one. `shift`
        [1, W] is the embedded time. Results may stay on a device.
        """
        if len(weights) == 1:
            return self._rows(self.conditions, x, shift, weights)
        if self.estimator.batches:
            return self._rows(self._both, x, shift, weights)
        moved, conditional = self._rows(self.conditions, x, shift, weights[:1])
        _, unconditional = self._rows(self._absent, x, shift, weights[1:])
        velocity = np.concatenate([conditional, unconditional])
        return moved + weights[1] * unconditional, velocity

    def _rows(
        self, conditions: Feeds, x: Any, shift: np.ndarray, weights: np.ndarray
    ) -> tuple[Any, Any]:
        now = {"x": x, "shift": shift, "step": weights}
        feeds = {**conditions, **self.constants, **now}
        found = self.estimator.run_kept(feeds, ("next", "velocity"))
        return found["next"], found["velocity"]


@dataclass(frozen=True)
class FlowDecoder(ABC):
    """The flow-matching decoder: an encoder, the embedding of times, and the estimator.

    `table` is how the ODE is solved unless something else is asked for, None for the original's
    solver. `memory` is the most that one utterance may take, in bytes. `continuing` is the form of
    the estimator that goes on from finished frames, if there is one (`stages.continuing`).
    """

    settings: FlowPart
    encoder: Session
    time_embedding: Session
    estimator: Session
    table: Solver | None = None
    memory: int | None = None
    continuing: Session | None = None
    # Of this `time_embedding`: `replace` does not hand it on.
    _shifts: dict[Solver, np.ndarray] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @property
    @abstractmethod
    def look_ahead(self) -> int:
        """Tokens that are only looked at, unless they are the last."""

    @abstractmethod
    def conditions(
        self, tokens: Sequence[int], condition: Condition, *, final: bool, chunked: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`mu` [1, mels, T], `spk` [1, mels] and `cond` [1, mels, T] of prompt and text tokens."""

    @abstractmethod
    def start(self, frames: int) -> np.ndarray:
        """The state at time 0, [1, mels, frames]."""

    def drawing(self, rng: np.random.Generator) -> "FlowDecoder":
        """The same for one utterance, whose noise is of a generator if it is drawn at all."""
        return self

    def constants(self, frames: int, *, chunked: bool) -> Feeds:
        """Inputs of the estimator that are no conditions, for so many frames."""
        return {}

    @cached_property
    def solver(self) -> Solver:
        """The table, or the original's solver."""
        return self.table or euler(self.settings)

    def shifts(self, solver: Solver) -> np.ndarray:
        """The embedded times of a solver's steps, [steps, W]; computed once."""
        if solver not in self._shifts:
            self._shifts[solver] = self.embed([step.time for step in solver.steps])
        return self._shifts[solver]

    def embed(self, times: Sequence[float]) -> np.ndarray:
        """Embedded times, [n, W]."""
        return self.time_embedding.run({"t": np.array(times, np.float32)})["shift"]

    def solve(
        self,
        mu: np.ndarray,
        spk: np.ndarray,
        cond: np.ndarray,
        *,
        solver: Solver | None = None,
        chunked: bool = False,
        observe: Observe | None = None,
    ) -> np.ndarray:
        """Integrate from the noise to the mel [1, mels, T]; `observe` sees each step's start."""
        velocity = self.velocity_field(mu, spk, cond, chunked=chunked)
        return self.integrated(self.start(mu.shape[2]), velocity, solver or self.solver, observe)

    def integrated(
        self,
        start: np.ndarray,
        velocity: VelocityField,
        solver: Solver,
        observe: Observe | None = None,
    ) -> np.ndarray:
        """Follow a velocity field from `start` at time 0 to time 1, each [1, mels, T]."""
        shifts = self.shifts(solver)

        def estimate(x: Any, number: int, weights: np.ndarray) -> tuple[Any, Any]:
            return velocity.step(x, shifts[number : number + 1], weights)

        with self.estimator.turn():
            return np.asarray(integrate(solver, start, estimate, observe))

    def velocity_field(
        self, mu: np.ndarray, spk: np.ndarray, cond: np.ndarray, *, chunked: bool = False
    ) -> VelocityField:
        """The velocity field under these conditions: `mu`, `cond` [1, mels, T], `spk` [1, mels]."""
        conditions = {"mu": mu, "spk": spk, "cond": cond}
        constants = self.constants(mu.shape[2], chunked=chunked)
        return VelocityField(self.estimator, conditions, constants)

    def mel(
        self,
        tokens: Sequence[int],
        condition: Condition,
        *,
        final: bool = True,
        chunked: bool = False,
        solver: Solver | None = None,
    ) -> np.ndarray:
        """Mel spectrogram [1, mels, frames] of `tokens`, without the prompt's frames.

        Raises ResourceError if attention over so many frames would take more memory than allowed.
        """
        self.require_room(tokens, condition)
        mu, spk, cond = self.conditions(tokens, condition, final=final, chunked=chunked)
        whole = self.solve(mu, spk, cond, solver=solver, chunked=chunked)
        return after_prompt(whole, condition)

    def growing(self, condition: Condition, solver: Solver | None) -> "Growing":
        """The mel of a stream whose tokens become more."""
        return Growing(self, condition, solver)

    def frames(self, tokens: Sequence[int], condition: Condition) -> int:
        """Mel frames of prompt and text tokens."""
        return self.settings.frames(len(condition.tokens) + len(tokens))

    def require_room(self, tokens: Sequence[int], condition: Condition) -> None:
        """Raise ResourceError if attention over their frames takes more memory than allowed.

        Raises UsageError for more frames than there may be.
        """
        count = self.frames(tokens, condition)
        self.require_few(count)
        needed = _ATTENTION_BYTES * self.settings.heads * count**2
        require(needed, self.memory, f"an utterance of {count} mel frames")

    def require_few(self, frames: int) -> None:
        """Raise UsageError for more frames than there is start noise for."""
        most = self.settings.noise_frames
        if frames > most:
            raise UsageError(
                f"{frames} mel frames are more than the {most} there can be; use a shorter text or "
                "prompt"
            )


@dataclass
class Growing:
    """The mel of a stream whose tokens become more: here all of it is computed again each time."""

    flow: FlowDecoder
    condition: Condition
    solver: Solver | None

    def after(self, tokens: Sequence[int], spoken: int) -> np.ndarray:
        """The mel [1, mels, n] of tokens that are not the last, without the first `spoken` ones."""
        mel = self.flow.mel(tokens, self.condition, final=False, chunked=True, solver=self.solver)
        return mel[:, :, self.flow.settings.frames(spoken) :]

    def whole(self, tokens: Sequence[int], spoken: int) -> np.ndarray:
        """The same of all tokens there are, with full attention over all of their frames."""
        mel = self.flow.mel(tokens, self.condition, solver=self.solver)
        return mel[:, :, self.flow.settings.frames(spoken) :]

    def last(self, tokens: Sequence[int], spoken: int) -> np.ndarray:
        """The same, for which finished frames are not computed again if they were kept."""
        return self.whole(tokens, spoken)


def after_prompt(mel: np.ndarray, condition: Condition) -> np.ndarray:
    """A mel [1, mels, T] without the prompt's frames; raises GateError if it is not finite."""
    prompt = 0 if condition.mel is None else len(condition.mel)
    return finite(mel[:, :, prompt:])


def finite(mel: np.ndarray) -> np.ndarray:
    """A part of a mel as an array of its own; raises GateError if it is not finite."""
    if not np.isfinite(mel).all():
        raise GateError("flow gave NaN or infinite mel values; the weights or the host are bad")
    return np.ascontiguousarray(mel)


def change_speed(mel: np.ndarray, speed: float) -> np.ndarray:
    """Stretch [1, mels, T] to `int(T / speed)` frames, at least one, by linear interpolation."""
    frames = mel.shape[2]
    count = max(1, int(frames / speed))
    at = np.clip((np.arange(count, dtype=np.float32) + 0.5) * (frames / count) - 0.5, 0, None)
    low = at.astype(np.int64)
    high = np.minimum(low + 1, frames - 1)
    share = (at - low).astype(np.float32)
    return mel[:, :, low] * (1 - share) + mel[:, :, high] * share
