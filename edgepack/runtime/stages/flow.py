"""Speech tokens → mel spectrogram: one encoder pass, then the steps of the ODE.

Source: cosyvoice/flow/flow.py (`CausalMaskedDiffWithXvec.inference`) and flow_matching.py
(`CausalConditionalCFM`); flow matching is from Lipman et al. (2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from edgepack.errors import GateError, UsageError
from edgepack.manifest import Flow, Solver
from edgepack.runtime.memory import require
from edgepack.runtime.noise import standard_normal
from edgepack.runtime.session import Feeds, Session
from edgepack.runtime.solver import Observe, euler, integrate

# Of attention for each pair of frames: scores and their softmax in float32, 8 heads and 2 rows, as
# the released estimators have.
_ATTENTION_BYTES = 2 * 4 * 8 * 2


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

    Conditions are inputs of the estimator, each with one row. It is given both rows of a guided
    step in one call if it takes several.
    """

    estimator: Session
    conditions: Feeds
    chunk: np.ndarray

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
        now = {"x": x, "shift": shift, "step": weights, "chunk": self.chunk}
        found = self.estimator.run_kept({**conditions, **now}, ("next", "velocity"))
        return found["next"], found["velocity"]


@dataclass(frozen=True)
class FlowDecoder:
    """The flow-matching decoder: an encoder, the embedding of times, and the estimator.

    `table` is how the ODE is solved unless something else is asked for, None for the original's
    solver. `memory` is the most that one utterance may take, in bytes.
    """

    settings: Flow
    encoder: Session
    time: Session
    estimator: Session
    table: Solver | None = None
    memory: int | None = None
    # Of this `time` network: `replace` does not hand it on.
    _shifts: dict[Solver, np.ndarray] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

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
        return self.time.run({"t": np.array(times, np.float32)})["shift"]

    @cached_property
    def noise(self) -> np.ndarray:
        """The start noise of every frame, [1, mels, frames]; it is the same for each utterance."""
        shape = (1, self.settings.mels, self.settings.noise_frames)
        return standard_normal(self.settings.noise_seed, shape)

    def encoder_feeds(
        self, tokens: Sequence[int], speaker: np.ndarray, *, final: bool, chunked: bool
    ) -> dict[str, np.ndarray]:
        """Inputs of the encoder for prompt and text tokens.

        Unless `final`, the last `look_ahead` tokens are only looked at.
        """
        ahead = self.settings.look_ahead
        if not final and len(tokens) <= ahead:
            raise UsageError(
                f"{len(tokens)} speech tokens are too few; more than {ahead} are needed"
            )
        sequence = [*tokens, *[0] * ahead] if final else tokens
        return {
            "tokens": np.asarray([sequence], np.int64),
            "look_ahead": np.array([not final], np.float32),
            "chunk": np.array([self.settings.chunk if chunked else len(tokens)], np.int64),
            "speaker": np.asarray(speaker, np.float32).reshape(1, -1),
        }

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
        """Integrate from the fixed noise to the mel [1, mels, T]; `observe` sees each start."""
        solver = solver or self.solver
        shifts = self.shifts(solver)
        velocity = self.velocity_field(mu, spk, cond, chunked=chunked)

        def estimate(x: Any, number: int, weights: np.ndarray) -> tuple[Any, Any]:
            return velocity.step(x, shifts[number : number + 1], weights)

        with self.estimator.turn():
            return np.asarray(integrate(solver, self.start(mu.shape[2]), estimate, observe))

    def start(self, frames: int) -> np.ndarray:
        """The state at time 0, [1, mels, frames]."""
        if frames > self.noise.shape[2]:
            raise UsageError(
                f"{frames} mel frames are more than the {self.noise.shape[2]} of the noise table; "
                "use a shorter text or prompt"
            )
        return np.ascontiguousarray(self.noise[:, :, :frames])

    def velocity_field(
        self, mu: np.ndarray, spk: np.ndarray, cond: np.ndarray, *, chunked: bool = False
    ) -> VelocityField:
        """The velocity field under these conditions: `mu`, `cond` [1, mels, T], `spk` [1, mels]."""
        chunk = self.settings.chunk * self.settings.ratio if chunked else mu.shape[2]
        conditions = {"mu": mu, "spk": spk, "cond": cond}
        return VelocityField(self.estimator, conditions, np.array([chunk], np.int64))

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
        count = self.settings.ratio * (len(condition.tokens) + len(tokens))
        require(_ATTENTION_BYTES * count**2, self.memory, f"an utterance of {count} mel frames")
        mu, spk, cond = self.conditions(tokens, condition, final=final, chunked=chunked)
        prompt = 0 if condition.mel is None else len(condition.mel)
        mel = self.solve(mu, spk, cond, solver=solver, chunked=chunked)[:, :, prompt:]
        if not np.isfinite(mel).all():
            raise GateError("flow gave NaN or infinite mel values; the weights or the host are bad")
        return np.ascontiguousarray(mel)

    def conditions(
        self, tokens: Sequence[int], condition: Condition, *, final: bool, chunked: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`mu`, `spk` and `cond` of prompt and text tokens, for `solve`."""
        feeds = self.encoder_feeds(
            [*condition.tokens, *tokens], condition.speaker, final=final, chunked=chunked
        )
        encoded = self.encoder.run(feeds)
        mu = encoded["mu"]
        cond = np.zeros(mu.shape, np.float32)
        if condition.mel is not None:
            prompt = len(condition.mel)
            if prompt != self.settings.ratio * len(condition.tokens):
                raise UsageError(
                    f"prompt of {prompt} mel frames for {len(condition.tokens)} tokens; "
                    f"expected {self.settings.ratio} frames a token"
                )
            cond[0, :, :prompt] = condition.mel.T
        return mu, encoded["spk"], cond


def change_speed(mel: np.ndarray, speed: float) -> np.ndarray:
    """Stretch [1, mels, T] to `int(T / speed)` frames, at least one, by linear interpolation."""
    frames = mel.shape[2]
    count = max(1, int(frames / speed))
    at = np.clip((np.arange(count, dtype=np.float32) + 0.5) * (frames / count) - 0.5, 0, None)
    low = at.astype(np.int64)
    high = np.minimum(low + 1, frames - 1)
    share = (at - low).astype(np.float32)
    return mel[:, :, low] * (1 - share) + mel[:, :, high] * share
