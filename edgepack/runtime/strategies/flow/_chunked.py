"""What flow decoders share that see tokens in chunks, look ahead, and start from fixed noise.

Source: cosyvoice/flow/flow.py (`inference` of the causal decoders).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepack.bundle.arrays import AnyShape
from edgepack.bundle.host import FlowPart, HostLoops, Signature
from edgepack.bundle.ranges import Few, Seed, Size, Some
from edgepack.errors import UsageError
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.stages.flow import Condition, FlowDecoder
from edgepack.runtime.stages.noise import BLOCK, standard_normal


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
