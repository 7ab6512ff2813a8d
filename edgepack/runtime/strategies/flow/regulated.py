"""A flow decoder with a length regulator that decodes pieces of a stream by themselves.

What a piece has in common with the last one, its prompt and its first frames, has the noise and
the conditioning that it had there. Source: cosyvoice/flow/flow.py (`MaskedDiffWithXvec.inference`)
and flow_matching.py (`ConditionalCFM`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from edgepack.bundle.host import FlowPart, HostLoops, Signature
from edgepack.bundle.manifest import Solver
from edgepack.bundle.ranges import Few, Rate, Size
from edgepack.errors import UsageError
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.stages.flow import Condition, FlowDecoder, after_prompt
from edgepack.runtime.stages.length_regulation import FrameRate

_SEED = 0  # of start noise that nobody has given a generator for


class Record(FlowPart, frozen=True, tag="regulated"):
    """Tokens a second, and mel frames of `hop` samples at `sample_rate` Hz.

    `margin` tokens at each end of a sequence have a length of their own in frames. A piece keeps
    its last `kept` frames for the next one.
    """

    tokens: Few
    sample_rate: Rate
    hop: Size
    margin: Few
    kept: Few

    @property
    def rate(self) -> FrameRate:
        """Which frames belong to which tokens."""
        return FrameRate(self.tokens, self.sample_rate, self.hop, self.margin)

    def frames(self, tokens: int) -> int:
        """Mel frames of so many tokens."""
        return self.rate.frames(tokens)

    def prompt_lengths(self, tokens: int, frames: int) -> tuple[int, int]:
        """All of both: the regulator brings them together."""
        return tokens, frames

    def networks(self, host: HostLoops) -> Mapping[str, Signature]:
        """The encoder, beside what every flow decoder calls."""
        mel = ("f", (1, self.mels, None))
        encoder = Signature(
            {
                "tokens": ("i", (1, None)), "left": ("i", (None,)), "right": ("i", (None,)),
                "share": ("f", (None,)), "speaker": ("f", (1, None)),
            },
            {"mu": mel, "spk": ("f", (1, self.mels))},
        )  # fmt: skip
        return {"encoder": encoder, **super().networks(host)}


class Cache(NamedTuple):
    """Start noise and conditioning of a prompt and of the last frames of a piece.

    Each is [1, mels, prompt frames + kept].
    """

    noise: np.ndarray
    mu: np.ndarray


class Piece(NamedTuple):
    """The mel [1, mels, frames] of a piece of speech without its prompt, and what it leaves."""

    mel: np.ndarray
    cache: Cache


@dataclass(frozen=True)
class Regulated(FlowDecoder):
    """Start noise is drawn anew for each call, of `rng` or, without it, the same each time."""

    settings: Record
    rng: np.random.Generator | None = None

    @property
    def look_ahead(self) -> int:
        """None: attention sees everything."""
        return 0

    def drawing(self, rng: np.random.Generator) -> "Regulated":
        """The same with a generator for its noise, and with the times that were embedded."""
        drawing = replace(self, rng=rng)
        object.__setattr__(drawing, "_shifts", self._shifts)
        return drawing

    def start(self, frames: int) -> np.ndarray:
        """Standard normal start noise [1, mels, frames]."""
        rng = self.rng or np.random.default_rng(_SEED)
        return rng.standard_normal((1, self.settings.mels, frames), np.float32)

    def constants(self, frames: int, *, chunked: bool) -> Feeds:
        """The estimator's chunk: nothing is hidden."""
        return {"chunk": np.array([frames], np.int64)}

    def frames(self, tokens: Sequence[int], condition: Condition) -> int:
        """Mel frames of a piece, those of the prompt included."""
        prompt = 0 if condition.mel is None else len(condition.mel)
        return prompt + self.settings.frames(len(tokens))

    def piece(
        self,
        tokens: Sequence[int],
        condition: Condition,
        noise: np.ndarray,
        solver: Solver,
        cache: Cache | None = None,
    ) -> Piece:
        """Decode tokens from `noise` [1, mels, frames], continuing the piece that left `cache`.

        Raises ResourceError if attention over so many frames would take more memory than allowed.
        """
        self.require_room(tokens, condition)
        mu, spk, cond = self.conditions(tokens, condition, final=True, chunked=False)
        prompt = 0 if condition.mel is None else len(condition.mel)
        start = noise
        if cache is not None:
            known = cache.mu.shape[2]
            if known > mu.shape[2]:
                raise UsageError(
                    f"{len(tokens)} speech tokens are too few to continue a stream with"
                )
            start = np.concatenate([cache.noise, noise[:, :, known:]], 2)
            mu = np.concatenate([cache.mu, mu[:, :, known:]], 2)
        whole = self.integrated(start, self.velocity_field(mu, spk, cond), solver)
        mel = after_prompt(whole, condition)
        return Piece(mel, Cache(*(self._kept(value, prompt) for value in (start, mu))))

    def _kept(self, value: np.ndarray, prompt: int) -> np.ndarray:
        last = value[:, :, max(0, value.shape[2] - self.settings.kept) :]
        return np.concatenate([value[:, :, :prompt], last], 2)

    def encoder_feeds(self, tokens: Sequence[int], condition: Condition) -> dict[str, np.ndarray]:
        """Inputs of the encoder for the tokens after a prompt."""
        prompt = 0 if condition.mel is None else len(condition.mel)
        places = self.settings.rate.places(len(tokens), len(condition.tokens), prompt)
        return {
            "tokens": np.asarray([[*condition.tokens, *tokens]], np.int64),
            "speaker": np.asarray(condition.speaker, np.float32).reshape(1, -1),
            **places._asdict(),
        }

    def conditions(
        self, tokens: Sequence[int], condition: Condition, *, final: bool, chunked: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`mu`, `spk` and `cond` of a piece: [1, mels, T], [1, mels] and [1, mels, T].

        Raises UsageError for a prompt with only one of mel and tokens, and for too few tokens.
        """
        prompt = 0 if condition.mel is None else len(condition.mel)
        if bool(prompt) != bool(len(condition.tokens)):
            raise UsageError(
                f"prompt of {prompt} mel frames and {len(condition.tokens)} speech tokens; it "
                "needs both"
            )
        if not self.settings.rate.frames(len(tokens)):
            raise UsageError(f"{len(tokens)} speech tokens are too few for a mel frame")
        encoded = self.encoder.run(self.encoder_feeds(tokens, condition))
        mu = encoded["mu"]
        cond = np.zeros(mu.shape, np.float32)
        if condition.mel is not None:
            cond[0, :, :prompt] = condition.mel.T
        return mu, encoded["spk"], cond


STRATEGY = Regulated
