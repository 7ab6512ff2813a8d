"""Which tokens of a stream are decoded when: hops that grow, and the rest at the end.

Source: cosyvoice/cli/model.py (`CosyVoice2Model.tts`, which CosyVoice3 inherits).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgepack.bundle.manifest import Solver
from edgepack.runtime.stages.flow import Condition, FlowDecoder


@dataclass(frozen=True)
class Hops:
    """Tokens of the first chunk, of the longest ones, and how many times as long the next is.

    With a `continued_end` the last chunk goes on from finished ones, if the decoder can.
    """

    first: int
    longest: int
    growth: int
    continued_end: bool = False


def chunk_mels(
    hops: Hops,
    flow: FlowDecoder,
    tokens: Iterable[int],
    condition: Condition,
    solver: Solver | None,
) -> Iterator[tuple[np.ndarray, bool]]:
    """The new mel frames [1, mels, n] of each chunk, and whether it is the last one.

    The first hop is lengthened so that prompt and hop fill whole attention chunks. The last chunk
    is decoded with full attention, over all frames unless it is to be continued.
    """
    hop = hops.first
    known: list[int] = []
    offset = 0
    padding = -len(condition.tokens) % hop
    ahead = flow.look_ahead
    growing = flow.growing(condition, solver)
    for token in tokens:
        known.append(token)
        wanted = hop + (padding if offset == 0 else 0)
        if len(known) - offset < wanted + ahead:
            continue
        yield growing.after(known, offset), False
        offset += wanted
        hop = min(hops.longest, hop * hops.growth)
    if known:
        rest = growing.last if hops.continued_end and offset else growing.whole
        yield rest(known, offset), True
