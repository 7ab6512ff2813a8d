"""A network over a sequence that goes on from what it computed of the frames before.

Attention may look back at finished frames if their keys and values are kept, and a causal
convolution if the last frames of its input are. So a stream need not compute its beginning again.
"""

from edgepack.errors import UsageError
from edgepack.graph import layers
from edgepack.graph.net import BATCH, END, FLOAT, Net, Value


class Continuing:
    """Inputs `past` [B, P, S] and `ends` [B, L, E] of a network, outputs `kept` and `next_ends`.

    `past` has the keys and values of all attention layers side by side, a row for each of P earlier
    frames, and `kept` [B, T, S] those of the T new ones. `ends` has the last L input frames of all
    causal convolutions side by side, zeros before the first frame of all.
    """

    def __init__(self, net: Net) -> None:
        """Declare the inputs; their widths are known at the end."""
        self._net = net
        self._past = net.input("past", [BATCH, "P", "S"])
        self._ends = net.input("ends", [BATCH, "L", "E"])
        self._new: list[Value] = []
        self._last: list[Value] = []
        self._states = self._channels = self._left = 0

    @property
    def before(self) -> Value:
        """How many frames there are in `past`, int64 [1]."""
        return layers.length(self._net, self._past, 1)

    def joined(self, x: Value, width: int) -> Value:
        """Keys or values [B, T, width] after those of the earlier frames: [B, P + T, width]."""
        op = self._net.op
        start, self._states = self._states, self._states + width
        earlier = op.Cast(op.Slice(self._past, [start], [self._states], [2]), to=int(FLOAT))
        self._new.append(x)
        return op.Concat(earlier, x, axis=1)

    def extended(self, x: Value, width: int, left: int) -> Value:
        """The input of a convolution [B, T, width] after the L frames before: [B, L + T, width].

        Raises UsageError for another number of frames than an earlier convolution looks back.
        """
        if self._left not in (0, left):
            raise UsageError(f"convolutions look back {self._left} and {left} frames; refused")
        op = self._net.op
        self._left = left
        start, self._channels = self._channels, self._channels + width
        earlier = op.Slice(self._ends, [start], [self._channels], [2])
        whole = op.Concat(earlier, x, axis=1)
        self._last.append(op.Slice(whole, [-left], [END], [1]))
        return whole

    def finish(self) -> None:
        """Declare the outputs, and the widths of both."""
        op = self._net.op
        ends: list[int | str] = [BATCH, self._left, self._channels]
        self._net.reshape_input(self._past, [BATCH, "P", self._states])
        self._net.reshape_input(self._ends, ends)
        kept = op.Concat(*self._new, axis=-1)
        self._net.output("kept", kept, [BATCH, "T", self._states])
        self._net.output("next_ends", op.Concat(*self._last, axis=-1), ends)
