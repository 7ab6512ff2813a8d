"""A chunked flow decoder whose tokens pass a look-ahead and no encoder.

Source: cosyvoice/flow/flow.py (`CausalMaskedDiffWithDiT.inference`).
"""

from dataclasses import dataclass

from edgepack.runtime.strategies.flow._chunked import ChunkedFlow, ChunkedRecord


class Record(ChunkedRecord, frozen=True, tag="look_ahead"):
    """Nothing besides."""


@dataclass(frozen=True)
class LookAhead(ChunkedFlow):
    """Streaming changes the estimator's attention alone."""

    settings: Record


STRATEGY = LookAhead
