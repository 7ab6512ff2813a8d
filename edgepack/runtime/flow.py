"""Speech tokens → mel spectrogram: one encoder pass, then Euler steps of the ODE.

Source: cosyvoice/flow/flow.py (`CausalMaskedDiffWithXvec.inference`) and flow_matching.py
(`CausalConditionalCFM`); flow matching is from Lipman et al. (2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepack.errors import GateError, UsageError
from edgepack.manifest import Flow
from edgepack.runtime.noise import standard_normal
from edgepack.runtime.session import Session, run_kept

Grid = Callable[[np.ndarray], np.ndarray]

_GRIDS: dict[str, Grid] = {
    "linear": lambda s: s,
    "cosine": lambda s: np.float32(1.0) - np.cos(s * np.float32(0.5 * np.pi)),
}


def time_steps(steps: int, schedule: str) -> list[tuple[np.float32, np.float32]]:
    """Start and width of every Euler step, accumulated in float32 as the original does."""
    grid = _GRIDS[schedule](np.linspace(0.0, 1.0, steps + 1, dtype=np.float32))
    t, width, pairs = grid[0], grid[1] - grid[0], []
    for step in range(1, steps + 1):
        pairs.append((t, width))
        t = np.float32(t + width)
        if step < steps:
            width = np.float32(grid[step + 1] - t)
    return pairs


@dataclass(frozen=True)
class Condition:
    """What the decoder is given besides the tokens.

    `tokens` and `mel` [frames, mels] are the prompt's, `speaker` [d] the speaker embedding.
    """

    speaker: np.ndarray
    tokens: Sequence[int] = ()
    mel: np.ndarray | None = None


@dataclass(frozen=True)
class FlowDecoder:
    """The flow-matching decoder: an encoder and an estimator whose graph is one Euler step."""

    settings: Flow
    encoder: Session
    estimator: Session

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
        steps: int | None = None,
        chunked: bool = False,
        observe: Callable[[np.ndarray, np.float32], None] | None = None,
    ) -> np.ndarray:
        """Integrate from the fixed noise to the mel [1, mels, T]; `observe` sees each start."""
        frames = mu.shape[2]
        if frames > self.noise.shape[2]:
            raise UsageError(
                f"{frames} mel frames are more than the {self.noise.shape[2]} of the noise table; "
                "use a shorter text or prompt"
            )
        x = np.ascontiguousarray(self.noise[:, :, :frames])
        chunk = self.settings.chunk * self.settings.ratio if chunked else frames
        constant = {"mu": mu, "spk": spk, "cond": cond, "chunk": np.array([chunk], np.int64)}
        for t, width in time_steps(steps or self.settings.steps, self.settings.schedule):
            if observe:
                observe(np.asarray(x), t)
            now = {"x": x, "t": np.array([t], np.float32), "dt": np.array([width], np.float32)}
            x = run_kept(self.estimator, {**constant, **now}, ("next",))["next"]
        return np.asarray(x)

    def mel(
        self,
        tokens: Sequence[int],
        condition: Condition,
        *,
        final: bool = True,
        chunked: bool = False,
        steps: int | None = None,
    ) -> np.ndarray:
        """Mel spectrogram [1, mels, frames] of `tokens`, without the prompt's frames."""
        feeds = self.encoder_feeds(
            [*condition.tokens, *tokens], condition.speaker, final=final, chunked=chunked
        )
        encoded = run_kept(self.encoder, feeds, ("mu", "spk"))
        mu, spk = encoded["mu"], encoded["spk"]
        cond = np.zeros(mu.shape, np.float32)
        prompt = 0
        if condition.mel is not None:
            prompt = len(condition.mel)
            if prompt != self.settings.ratio * len(condition.tokens):
                raise UsageError(
                    f"prompt of {prompt} mel frames for {len(condition.tokens)} tokens; "
                    f"expected {self.settings.ratio} frames a token"
                )
            cond[0, :, :prompt] = condition.mel.T
        mel = self.solve(mu, spk, cond, steps=steps, chunked=chunked)[:, :, prompt:]
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
