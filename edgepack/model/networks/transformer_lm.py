"""CosyVoice 1's language model: a causal transformer with relative positions and a KV cache.

Source: cosyvoice/llm/llm.py (`TransformerLM`), cosyvoice/transformer/encoder.py
(`TransformerEncoder.forward_chunk`) and attention.py (`RelPositionMultiHeadedAttention`).

The score of query i and key j has a term `(q + v) · W p(i - j)` with sinusoids p of their distance
(Dai et al., 2019). The original projects p(0) … p(i) by W in every layer at every step, which is
more work than all the rest of a step. Here the query is projected instead, by the transpose of
W, and turned by the angles of its own position: then it meets the sinusoids of the key's position,
which do not change and are kept in a cache of their own, one for all layers and heads.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from edgepack.bundle.manifest import State
from edgepack.graph import layers
from edgepack.graph.net import END, INT64, Graph, Net, Value
from edgepack.graph.weights import Parameter, Weights, numbered, stack
from edgepack.model.networks.cached_attention import attend_to_all, biases
from edgepack.model.networks.conformer import LAYER_EPSILON, NORM_EPSILON, frequencies
from edgepack.model.networks.speech_lm import LANGUAGE_MODEL

_EXCHANGED = [0, 1, 3, 2]


@dataclass(frozen=True)
class TransformerLMDims:
    """Widths of the rows that come in, inside and of the feed-forward; counts; ids to choose from.

    All heads together are as wide as `hidden`.
    """

    inputs: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    logits: int

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads


def transformer_lm(w: Weights, dims: TransformerLMDims) -> Graph:
    """Prefill and decode in one graph: `embeddings` [1, n, inputs] → `logits` [1, V] of the last.

    `w` is a TransformerLM. The cache comes in as `past_key_i`, `past_value_i` [1, heads, past,
    head_width] and `past_position` [1, 1, past, hidden], empty at prefill, and leaves as `key_i`,
    `value_i` and `position` with n more rows; positions count from its length. In `slots`, the
    first `used` int64 [1] of `past` are filled, and only the rows of the n new positions leave: the
    host writes them into the slots that follow.
    """
    slots = _written(w, dims, slots=True).model
    return replace(_written(w, dims, slots=False), slots=slots)


@dataclass(frozen=True)
class _Place:
    """Where the queries of a call are: angles of their positions, their number, and masks.

    `cos` and `sin` are [n, hidden / 2]. `tables` are sinusoids of the keys' positions, those of the
    cache and those of the call or both in one, each [1, 1, keys, hidden]; `masks` belong to them.
    """

    count: Value
    cos: Value
    sin: Value
    tables: list[Value]
    masks: list[Value]


class _Kept(NamedTuple):
    """A cache: the input, the name and the value of what it becomes, its heads and their width."""

    source: Value
    output: str
    value: Value
    shape: tuple[int, int]


def _written(w: Weights, dims: TransformerLMDims, *, slots: bool) -> Graph:
    net = Net(*LANGUAGE_MODEL)
    op = net.op
    x = net.input("embeddings", [1, "n", dims.inputs])
    used = net.input("used", [1], INT64) if slots else None
    past = [
        tuple(
            net.input(f"past_{kind}_{i}", [1, dims.heads, "past", dims.head_width])
            for kind in ("key", "value")
        )
        for i in range(dims.layers)
    ]
    past_position = net.input("past_position", [1, 1, "past", dims.hidden])
    place, position = _place(net, x, past_position, used, dims)

    llm = w / "llm"
    x = layers.affine(net, x, llm / "embed" / "out" / 0, dims.hidden, dims.inputs)
    x = op.Relu(layers.layer_norm(net, x, llm / "embed" / "out" / 1, NORM_EPSILON))
    x = op.Mul(x, math.sqrt(dims.hidden))
    kept: list[_Kept] = []
    for i, (layer, (key, value)) in enumerate(
        zip(numbered(llm, "encoders", dims.layers), past, strict=True)
    ):
        h = layers.layer_norm(net, x, layer / "norm1", LAYER_EPSILON)
        q, k, v = _projections(net, h, layer / "self_attn", dims)
        if not slots:
            k, v = op.Concat(key, k, axis=2), op.Concat(value, v, axis=2)
        shape = (dims.heads, dims.head_width)
        kept += [_Kept(key, f"key_{i}", k, shape), _Kept(value, f"value_{i}", v, shape)]
        parts = [(key, value), (k, v)] if slots else [(k, v)]
        y = _attention(net, q, parts, place, layer / "self_attn", dims)
        y = layers.merge_heads(net, y, dims.heads, dims.head_width)
        out = layer / "self_attn" / "linear_out"
        x = op.Add(x, layers.affine(net, y, out, dims.hidden, dims.hidden))
        h = layers.layer_norm(net, x, layer / "norm2", LAYER_EPSILON)
        ff = layer / "feed_forward"
        h = op.Relu(layers.affine(net, h, ff / "w_1", dims.feed_forward, dims.hidden))
        x = op.Add(x, layers.affine(net, h, ff / "w_2", dims.hidden, dims.feed_forward))
    x = net.tap("hidden", layers.layer_norm(net, x, llm / "after_norm", NORM_EPSILON))
    last = op.Squeeze(op.Slice(x, [-1], [END], [1]), [1])  # [1, D]
    logits = layers.affine(net, last, w / "llm_decoder", dims.logits, dims.hidden)
    net.output("logits", logits, [1, dims.logits])
    kept.append(_Kept(past_position, "position", position, (1, dims.hidden)))
    states = tuple(_declared(net, one, slots=slots) for one in kept)

    rng = np.random.default_rng(0)
    calls = tuple(
        {"embeddings": rng.standard_normal((1, n, dims.inputs), np.float32)} for n in (9, 1, 1, 3)
    )
    return net.finish(calls, states)


def _declared(net: Net, kept: _Kept, *, slots: bool) -> State:
    """Declare what a cache becomes as an output."""
    heads, width = kept.shape
    net.output(kept.output, kept.value, [1, heads, "n" if slots else "past + n", width])
    return State(input=str(kept.source.name), output=kept.output, shape=(1, heads, 0, width))


def _place(
    net: Net, x: Value, past: Value, used: Value | None, dims: TransformerLMDims
) -> tuple[_Place, Value]:
    """Where the queries are, and what the cache of positions becomes or gets."""
    op = net.op
    before, count = layers.length(net, past, 2), layers.length(net, x, 1)
    index = op.Add(layers.positions(net, count), before if used is None else used)  # [n]
    angle = op.Mul(
        op.Unsqueeze(op.Cast(index, to=1), [1]),
        net.constant("pos_frequency", frequencies(dims.hidden)),
    )
    cos, sin = op.Cos(angle), op.Sin(angle)
    position = op.Unsqueeze(op.Concat(cos, sin, axis=1), [0, 1])
    if used is None:
        position = op.Concat(past, position, axis=2)
    tables = [position] if used is None else [past, position]
    masks = biases(net, index, before, count, used)
    return _Place(count, cos, sin, tables, masks), position


def _projections(
    net: Net, x: Value, w: Weights, dims: TransformerLMDims
) -> tuple[Value, Value, Value]:
    """Queries [1, n, hidden], keys and values [1, heads, n, head_width], from one MatMul."""
    op = net.op
    parts = [w / f"linear_{part}" for part in "qkv"]
    square = (dims.hidden, dims.hidden)
    weights = [part.get("weight", *square).transposed for part in parts]
    bias = stack(f"{w.scope}qkv.bias", [part.get("bias", dims.hidden) for part in parts], 0)
    weight = stack(f"{w.scope}qkv.weight", weights, 1)
    y = op.Add(op.MatMul(x, net.parameter(weight)), net.parameter(bias))
    q, k, v = op.Split(y, axis=-1, num_outputs=3, _outputs=3)
    k, v = (layers.split_heads(net, part, dims.heads, dims.head_width) for part in (k, v))
    return q, k, v


def _attention(
    net: Net,
    q: Value,
    parts: list[tuple[Value, Value]],
    place: _Place,
    w: Weights,
    dims: TransformerLMDims,
) -> Value:
    """Attention of `q` [1, n, hidden] to keys and values in one place or two, by head."""
    op = net.op
    width, scale = dims.head_width, dims.head_width**-0.5

    def shifted(name: str) -> Value:
        """The queries with a bias of their heads, scaled."""
        bias = w.get(name, dims.heads, width).map((dims.hidden,), lambda value: value.reshape(-1))
        return op.Mul(op.Add(q, net.parameter(bias)), scale)

    content = layers.split_heads(net, shifted("pos_bias_u"), dims.heads, width)
    position = _turned(net, shifted("pos_bias_v"), place, w, dims)
    by_head = op.Concat([1, dims.heads], place.count, [-1], axis=0)
    scores = []
    for (k, _), table, mask in zip(parts, place.tables, place.masks, strict=True):
        near = op.MatMul(content, op.Transpose(k, perm=_EXCHANGED))
        far = op.MatMul(position, op.Transpose(op.Squeeze(table, [1]), perm=[0, 2, 1]))
        scores.append(op.Add(op.Add(near, op.Reshape(far, by_head)), mask))
    values = [v for _, v in parts]
    if len(scores) == 1:
        return op.MatMul(op.Softmax(scores[0], axis=-1), values[0])
    return attend_to_all(net, scores, values)


def _turned(net: Net, q: Value, place: _Place, w: Weights, dims: TransformerLMDims) -> Value:
    """Queries as rows that meet the cosines and sines of a key's position: [1, heads · n, hidden].

    With `a` and `b` the parts of `Wᵀ q` that belong to sines and cosines of a distance i - j,
    `a sin(i - j) + b cos(i - j) = (a sin i + b cos i) cos j + (b sin i - a cos i) sin j`.
    A product for each head, as weights of more than two axes cannot be quantized.
    """
    op = net.op
    own = w / "linear_pos"
    weight = own.get("weight", dims.hidden, dims.hidden)
    heads = op.Split(q, axis=-1, num_outputs=dims.heads, _outputs=dims.heads)
    heads = [heads] if dims.heads == 1 else heads
    rows = [
        op.MatMul(part, net.parameter(_of_head(weight, head, dims)))
        for head, part in enumerate(heads)
    ]
    by_head = op.Reshape(op.Concat(*rows, axis=1), [1, dims.heads, -1, dims.hidden])
    a, b = op.Split(by_head, axis=-1, num_outputs=2, _outputs=2)
    cos, sin = place.cos, place.sin
    turned = op.Concat(
        op.Add(op.Mul(a, sin), op.Mul(b, cos)),
        op.Sub(op.Mul(b, sin), op.Mul(a, cos)),
        axis=-1,
    )
    return op.Reshape(turned, [1, -1, dims.hidden])


def _of_head(weight: Parameter, head: int, dims: TransformerLMDims) -> Parameter:
    """The rows of `linear_pos` of one head, columns of sines first: [head_width, hidden]."""
    start = head * dims.head_width

    def load() -> np.ndarray:
        rows = weight.load()[start : start + dims.head_width]
        return np.concatenate([rows[:, 0::2], rows[:, 1::2]], 1)

    return Parameter(f"{weight.name}.{head}", (dims.head_width, dims.hidden), load)
