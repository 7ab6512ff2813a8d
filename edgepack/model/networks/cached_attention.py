"""Masks and softmax of a causal decoder whose earlier keys and values are in a cache."""

from collections.abc import Sequence

from edgepack.graph import layers
from edgepack.graph.net import Net, Value


def biases(
    net: Net, index: Value, before: Value, count: Value, used: Value | None, group: int = 1
) -> list[Value]:
    """Masks to add to scores, with a row for every query of a group: [group · n, keys].

    `index` int64 [n] are the positions of the queries, `count` [1] their number, `before` [1] the
    length of the cache. One mask for a whole cache with the new keys at its end; or, if the first
    `used` [1] of its slots are filled, one for slots, and one for new keys.
    """
    op = net.op

    def of_each_query(bias: Value) -> Value:
        return op.Concat(*[bias] * group, axis=0) if group > 1 else bias

    if used is None:
        every = layers.positions(net, op.Add(before, count))
        late = op.Greater(op.Unsqueeze(every, [0]), op.Unsqueeze(index, [1]))
        return [of_each_query(op.Where(late, layers.MASKED, 0.0))]
    filled = op.Less(layers.positions(net, before), used)
    late = op.Greater(op.Unsqueeze(index, [0]), op.Unsqueeze(index, [1]))
    slots = op.Unsqueeze(op.Where(filled, 0.0, layers.MASKED), [0])
    return [slots, of_each_query(op.Where(late, layers.MASKED, 0.0))]


def biases_of_rows(net: Net, new: Value, before: Value, used: Value, group: int) -> list[Value]:
    """As `biases` with `used` [B], for rows of a batch: [B, 1, 1, slots] and [group · n, n].

    `new` int64 [n] counts the new positions; they follow the used slots in every row.
    """
    op = net.op
    empty = op.GreaterOrEqual(layers.positions(net, before), op.Unsqueeze(used, [1, 2, 3]))
    late = op.Greater(op.Unsqueeze(new, [0]), op.Unsqueeze(new, [1]))
    causal = op.Where(late, layers.MASKED, 0.0)
    return [
        op.Where(empty, layers.MASKED, 0.0),
        op.Concat(*[causal] * group, axis=0) if group > 1 else causal,
    ]


def attend_to_all(net: Net, scores: Sequence[Value], values: Sequence[Value]) -> Value:
    """One softmax over keys in several places, which are not joined, times their values."""
    op = net.op
    largest = op.Max(*(op.ReduceMax(part, [-1], keepdims=1) for part in scores))
    shares = [op.Exp(op.Sub(part, largest)) for part in scores]
    total = op.Add(*(op.ReduceSum(part, [-1], keepdims=1) for part in shares))
    weighted = op.Add(*(op.MatMul(s, v) for s, v in zip(shares, values, strict=True)))
    return op.Div(weighted, total)
