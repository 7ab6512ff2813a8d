"""What schedules share whose chunks grow up to a length."""

from collections.abc import Iterator

from edgepack.bundle.host import HostLoops, SchedulePart
from edgepack.bundle.ranges import Few, Size
from edgepack.runtime.stages.hops import Hops


class GrowingRecord(SchedulePart, frozen=True):
    """Tokens of the first and the longest chunk, and their growth from one to the next."""

    first_hop: Few
    max_hop: Size
    growth: Few

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Chunks in the wrong order."""
        if self.first_hop > self.max_hop:
            yield "first_hop is above max_hop"

    def hops(self, first: int | None) -> Hops:
        """The hops, with another first one if it is given."""
        return Hops(first or self.first_hop, self.max_hop, self.growth)
