"""What flow decoders share that see tokens in chunks, look ahead, and start from fixed noise.

Source: cosyvoice/flow/flow.py (`inference` of the causal decoders).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from edgepack.bundle.arrays import AnyShape
from edgepack.bundle.host import FlowPart, HostLoops, Signature
from edgepack.bundle.manifest import Solver
from edgepack.bundle.ranges import Few, Seed, Size, Some
from edgepack.errors import UsageError
from edgepack.runtime.engines.session import Feeds, Session
from edgepack.runtime.stages.continuing import MOST_BYTES, Beginnings, Continued, key
from edgepack.runtime.stages.flow import Condition, FlowDecoder, Growing, finite
from edgepack.runtime.stages.noise import BLOCK, standard_normal

_SHARE = 4  # of the memory that speech may take: a part for what a stream keeps


class ChunkedRecord(FlowPart, frozen=True):
    """Look-ahead and chunk in tokens of `ratio` mel frames each; one table of noise for all."""

    look_ahead: Some
    chunk: Size
    ratio: Few
    noise_seed: Seed

    def frames(self, tokens: int) -> int:
        """Mel frames of so many tokens."""
        return self.ratio * tokens

    def prompt_lengths(self, tokens: int, frames: int) -> tuple[int, int]:
        """As many tokens as there are whole ones in the mel, and their frames."""
        count = min(frames // self.ratio, tokens)
        return count, self.ratio * count

    def axes(self, tokens: int) -> Mapping[str, int]:
        """The encoder is given tokens to look at besides."""
        return {"n + look_ahead": tokens + self.look_ahead}

    def networks(self, host: HostLoops) -> Mapping[str, Signature]:
        """The encoder, beside what every flow decoder calls."""
        tokens: tuple[str, AnyShape] = ("i", (1, None))
        mel: tuple[str, AnyShape] = ("f", (1, self.mels, None))
        encoder = Signature(
            {"tokens": tokens, "look_ahead": None, "speaker": ("f", (1, None))},
            {"mu": mel, "spk": ("f", (1, self.mels))},
        )
        return {"encoder": encoder, **super().networks(host)}

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Noise that cannot be filled as the original fills it."""
        yield from super().problems(host)
        if self.mels * self.noise_frames % BLOCK:
            yield f"its noise is not a multiple of {BLOCK} values"


@dataclass(frozen=True)
class ChunkedFlow(FlowDecoder):
    """Encoder and estimator hide later chunks from earlier ones if they are told a chunk's length.

    A chunk as long as the sequence hides nothing.
    """

    settings: ChunkedRecord
    beginnings: Beginnings = field(default_factory=Beginnings, compare=False, repr=False)

    @property
    def look_ahead(self) -> int:
        """Tokens that are only looked at, unless they are the last."""
        return self.settings.look_ahead

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
            "speaker": np.asarray(speaker, np.float32).reshape(1, -1),
        }

    def constants(self, frames: int, *, chunked: bool) -> Feeds:
        """The estimator's chunk, in frames."""
        chunk = self.settings.frames(self.settings.chunk) if chunked else frames
        return {"chunk": np.array([chunk], np.int64)}

    def start(self, frames: int) -> np.ndarray:
        """The state at time 0, [1, mels, frames]: the first frames of the table."""
        self.require_few(frames)
        return np.ascontiguousarray(self.noise[:, :, :frames])

    def growing(self, condition: Condition, solver: Solver | None) -> Growing:
        """Finished chunks are computed once, if the estimator has a form that goes on."""
        if self.continuing is None:
            return super().growing(condition, solver)
        return _Continued(self, condition, solver)

    def continued(self, session: Session, solver: Solver) -> Continued:
        """A stream that goes on from finished chunks, in a part of the memory there may be."""
        chunk = self.settings.frames(self.settings.chunk)
        most = min(MOST_BYTES, self.memory // _SHARE if self.memory else MOST_BYTES)
        return Continued(session, solver, self.shifts(solver), chunk, most)

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


@dataclass
class _Continued(Growing):
    """A stream whose finished chunks are kept; those of the prompt for all streams of a voice."""

    flow: ChunkedFlow

    def __post_init__(self) -> None:
        if self.flow.continuing is None:
            raise ValueError("no network goes on from finished frames")
        self._solver = self.solver or self.flow.solver
        self._stream = self.flow.continued(self.flow.continuing, self._solver)
        self._begun = False

    def after(self, tokens: Sequence[int], spoken: int) -> np.ndarray:
        """As of every stream; only frames that are not kept are computed."""
        return self._from_kept(tokens, spoken, final=False)

    def last(self, tokens: Sequence[int], spoken: int) -> np.ndarray:
        """The new frames see each other and what is kept, which was computed without them."""
        return self._from_kept(tokens, spoken, final=True)

    def _from_kept(self, tokens: Sequence[int], spoken: int, *, final: bool) -> np.ndarray:
        flow, condition, stream = self.flow, self.condition, self._stream
        flow.require_room(tokens, condition)
        mu, spk, cond = flow.conditions(tokens, condition, final=final, chunked=not final)
        given = {"mu": mu, "spk": spk, "cond": cond}
        frames = mu.shape[2]
        start = flow.start(frames)
        self._begin(start, given)
        first = stream.finished.frames
        make = stream.end if final else stream.advance
        mel = make(start, given, frames)
        prompt = 0 if condition.mel is None else len(condition.mel)
        return finite(mel[:, :, prompt + flow.settings.frames(spoken) - first :])

    def _begin(self, start: np.ndarray, given: Feeds) -> None:
        """Keep the chunks of the prompt that no text can change, or take what is kept of them."""
        if self._begun:
            return
        self._begun = True
        flow, condition = self.flow, self.condition
        settings = flow.settings
        whole = max(0, len(condition.tokens) - settings.look_ahead) // settings.chunk
        frames = settings.frames(whole * settings.chunk)
        if not frames or condition.mel is None:
            return
        known = key(self._solver, condition.tokens, condition.mel, condition.speaker)
        if (beginning := flow.beginnings.find(known)) is not None:
            self._stream.resume(beginning)
            return
        self._stream.advance(start, given, frames)
        if self._stream.finished.frames == frames:
            flow.beginnings.keep(known, self._stream.beginning())
