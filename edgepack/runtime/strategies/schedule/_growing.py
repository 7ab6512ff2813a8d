"""What schedules share whose chunks grow up to a length."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from edgepack.bundle.host import HostLoops, SchedulePart
from edgepack.bundle.ranges import Few, Size
from edgepack.runtime.stages.hops import Hops


class GrowingRecord(SchedulePart, frozen=True, kw_only=True):
    """Tokens of the first and the longest chunk, and their growth from one to the next.

    The last chunk is computed with full attention over all frames, as the original does. Or it is
    `continued`: its frames see each other and what is kept of finished ones.
    """

    first_hop: Few
    max_hop: Size
    growth: Few
    last_chunk: Literal["continued"] | msgspec.UnsetType = msgspec.UNSET

    @property
    def continued_end(self) -> bool:
        """Whether the last chunk goes on from finished ones where a runtime can."""
        return self.last_chunk == "continued"

    def ending(self, *, continued: bool) -> "GrowingRecord":
        """The same with another end."""
        return msgspec.structs.replace(self, last_chunk="continued" if continued else msgspec.UNSET)

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Chunks in the wrong order."""
        if self.first_hop > self.max_hop:
            yield "first_hop is above max_hop"

    def hops(self, first: int | None) -> Hops:
        """The hops, with another first one if it is given."""
        return Hops(first or self.first_hop, self.max_hop, self.growth, self.continued_end)
