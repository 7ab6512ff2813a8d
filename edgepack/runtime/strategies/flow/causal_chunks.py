"""A chunked flow decoder whose encoder attends to chunks, too.

Source: cosyvoice/flow/flow.py (`CausalMaskedDiffWithXvec.inference`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from edgepack.bundle.host import HostLoops, Signature
from edgepack.runtime.strategies.flow._chunked import ChunkedFlow, ChunkedRecord


class Record(ChunkedRecord, frozen=True, tag="causal_chunks"):
    """Nothing besides."""

    def networks(self, host: HostLoops) -> Mapping[str, Signature]:
        """The encoder is told a chunk's length."""
        found = super().networks(host)
        encoder = found["encoder"]
        told = msgspec.structs.replace(encoder, inputs={**encoder.inputs, "chunk": None})
        return {**found, "encoder": told}


@dataclass(frozen=True)
class CausalChunks(ChunkedFlow):
    """Encoder and estimator hide later chunks from earlier ones."""

    settings: Record

    def encoder_feeds(
        self, tokens: Sequence[int], speaker: np.ndarray, *, final: bool, chunked: bool
    ) -> dict[str, np.ndarray]:
        """Inputs of the encoder for prompt and text tokens; its chunk is in tokens."""
        feeds = super().encoder_feeds(tokens, speaker, final=final, chunked=chunked)
        chunk = self.settings.chunk if chunked else len(tokens)
        return {**feeds, "chunk": np.array([chunk], np.int64)}


STRATEGY = CausalChunks
