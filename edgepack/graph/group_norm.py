"""GroupNorm over a sequence (Wu and He, 2018)."""

from edgepack.errors import UsageError
from edgepack.graph.net import Net, Value
from edgepack.graph.weights import Weights


def group_norm(net: Net, x: Value, w: Weights, groups: int, epsilon: float) -> Value:
    """GroupNorm of [B, T, C]: each group of channels has mean 0 and variance 1 over all of time.

    Raises UsageError if the channels do not divide into the groups.
    """
    op = net.op
    scale, shift = w.get("weight", None), w.get("bias", None)
    (channels,) = scale.shape
    if channels % groups:
        raise UsageError(f"{w.source}: {scale.name} has {channels} channels for {groups} groups")

    def mean(y: Value) -> Value:
        """Over time and the channels of a group: [B, 1, groups, 1]."""
        return op.ReduceMean(op.ReduceMean(y, [1], keepdims=1), [3], keepdims=1)

    grouped = op.Reshape(x, [0, 0, groups, channels // groups])
    centred = op.Sub(grouped, mean(grouped))
    deviation = op.Sqrt(op.Add(mean(op.Mul(centred, centred)), epsilon))
    unit = op.Reshape(op.Div(centred, deviation), [0, 0, channels])
    return op.Add(op.Mul(unit, net.parameter(scale)), net.parameter(shift))
