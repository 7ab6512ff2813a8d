"""The Qwen2 decoder that writes speech tokens, and the two embedding tables in front of it.

Source: transformers `Qwen2Model` and cosyvoice/llm/llm.py (`Qwen2LM`,
`CosyVoice3LM`).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgepack.bundle.manifest import State
from edgepack.bundle.stages import Declared, Role, Use
from edgepack.graph import layers
from edgepack.graph.net import BATCH, END, INT64, Graph, Net, Value
from edgepack.graph.weights import Parameter, Weights, numbered, stack
from edgepack.model.networks.cached_attention import attend_to_all, biases, biases_of_rows


def decoding(role: Role) -> Use:
    """Decoding reads each weight, or a row of a table, once a token: nothing is repacked for it."""
    return Use(role=role, called="token", judged="language_model", samples=64, mapped=True)


TEXT_TABLE: Declared = ("text_embedding", decoding("text_table"))
SPEECH_TABLE: Declared = ("speech_embedding", decoding("speech_table"))
LANGUAGE_MODEL: Declared = ("speech_lm", decoding("language_model"))

# Where a decoder's caches are: see `speech_lm`.
Form = Literal["grown", "slots", "batched"]


@dataclass(frozen=True)
class SpeechLMDims:
    """Dimensions of the decoder: widths and counts, `rope_theta` and `epsilon` unitless.

    `biased` is whether the projection to logits has a bias, which CosyVoice3's has not.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    rope_theta: float
    epsilon: float
    logits: int
    biased: bool = True


def embedding_table(stage: Declared, table: Parameter) -> Graph:
    """`ids` int64 [1, n] → `embeddings` [1, n, D]."""
    net = Net(*stage)
    ids = net.input("ids", [1, "n"], INT64)
    rows = net.op.Gather(net.parameter(table), ids, axis=0)
    net.output("embeddings", rows, [1, "n", table.shape[1]])
    calls = tuple({"ids": np.arange(n, dtype=np.int64)[None] % table.shape[0]} for n in (5, 1))
    return net.finish(calls)


def speech_lm(backbone: Weights, decoder: Weights, dims: SpeechLMDims) -> Graph:
    """Prefill and decode in one graph: `embeddings` [1, n, D] → `logits` [1, V] of the last one.

    `backbone` is a Qwen2Model. Keys are stored rotated; positions count from the length of the
    cache. It comes in as `past_key_i`, `past_value_i` [1, kv_heads, past, head_width] (empty at
    prefill) and leaves as `key_i`, `value_i` with n more positions. In `slots`, the first `used`
    int64 [1] of `past` are filled, and only the rows of the n new positions leave: the host writes
    them into the slots that follow, so that nothing is copied. `batched` is the same for B
    utterances, each with a length of its own: `used` [B], and B in place of the 1 elsewhere.
    """
    slots = _written(backbone, decoder, dims, "slots").model
    batched = _written(backbone, decoder, dims, "batched").model
    return replace(_written(backbone, decoder, dims, "grown"), slots=slots, batched=batched)


def _written(backbone: Weights, decoder: Weights, dims: SpeechLMDims, form: Form) -> Graph:
    net = Net(*LANGUAGE_MODEL)
    op = net.op
    several = form == "batched"
    lead: int | str = BATCH if several else 1
    x = net.input("embeddings", [lead, "n", dims.hidden])
    used = net.input("used", [lead], INT64) if form != "grown" else None
    axes: list[int | str] = [lead, dims.kv_heads, "past", dims.head_width]
    past = [
        (net.input(f"past_key_{i}", axes), net.input(f"past_value_{i}", axes))
        for i in range(dims.layers)
    ]
    before, count = layers.length(net, past[0][0], 2), layers.length(net, x, 1)
    new = layers.positions(net, count)
    start = before if used is None else op.Unsqueeze(used, [1]) if several else used
    index = op.Add(new, start)  # [n], or [B, n]
    turned = [2, 3] if several else [1, 2]
    rotation = _rotation(net, op.Unsqueeze(op.Cast(index, to=1), turned), dims)
    group = dims.heads // dims.kv_heads
    masks = (
        biases_of_rows(net, new, before, used, group)
        if several and used is not None
        else biases(net, index, before, count, used, group)
    )
    same = 0 if several else 1  # in a Reshape: the rows of a batch, or the only one

    states = []
    blocks = numbered(backbone, "layers", dims.layers)
    for i, (w, (past_key, past_value)) in enumerate(zip(blocks, past, strict=True)):
        h = layers.rms_norm(net, x, w / "input_layernorm", dims.epsilon)
        q, k, v = _projections(net, h, w / "self_attn", dims, rotation)
        if used is None:
            k, v = op.Concat(past_key, k, axis=2), op.Concat(past_value, v, axis=2)
        for output, value, source in ((f"key_{i}", k, past_key), (f"value_{i}", v, past_value)):
            length = "past + n" if used is None else "n"
            net.output(output, value, [lead, dims.kv_heads, length, dims.head_width])
            empty = (1, dims.kv_heads, 0, dims.head_width)
            states.append(State(input=str(source.name), output=output, shape=empty))
        q = op.Mul(q, dims.head_width**-0.5)
        q = op.Reshape(q, [same, dims.kv_heads, -1, dims.head_width])
        if used is None:
            y = _attention(net, q, k, v, masks[0])
        else:
            y = _attention_to_slots(net, q, [(past_key, past_value), (k, v)], masks)
        y = op.Reshape(y, [same, dims.heads, -1, dims.head_width])
        y = layers.merge_heads(net, y, dims.heads, dims.head_width)
        x = op.Add(x, layers.linear(net, y, w / "self_attn" / "o_proj"))
        h = layers.rms_norm(net, x, w / "post_attention_layernorm", dims.epsilon)
        x = op.Add(x, _gated(net, h, w / "mlp", dims))
    x = net.tap("hidden", layers.rms_norm(net, x, backbone / "norm", dims.epsilon))
    last = op.Squeeze(op.Slice(x, [-1], [END], [1]), [1])  # [1, D] or [B, D]
    project = layers.affine if dims.biased else layers.linear
    logits = project(net, last, decoder, dims.logits, dims.hidden)
    net.output("logits", logits, [lead, dims.logits])

    rng = np.random.default_rng(0)
    calls = tuple(
        {"embeddings": rng.normal(0, 0.02, (1, n, dims.hidden)).astype(np.float32)}
        for n in (9, 1, 1, 3)
    )
    return net.finish(calls, tuple(states))


def _rotation(net: Net, index: Value, dims: SpeechLMDims) -> tuple[Value, Value]:
    """Cosine and sine of the rotary angles (Su et al., 2021), each [(B,) n, 1, head_width / 2].

    `index` [(B,) n, 1, 1] are the positions.
    """
    op = net.op
    half = np.arange(0, dims.head_width, 2, dtype=np.float32) / np.float32(dims.head_width)
    frequency = (1.0 / dims.rope_theta**half).astype(np.float32)
    angle = op.Mul(index, net.constant("rope_frequency", frequency))
    return op.Cos(angle), op.Sin(angle)


def _projections(
    net: Net, x: Value, w: Weights, dims: SpeechLMDims, rotation: tuple[Value, Value]
) -> tuple[Value, Value, Value]:
    """Queries [1, heads, n, width], keys and values [1, kv_heads, n, width]; q and k rotated.

    One MatMul serves all three: at decode a wide matrix-vector product beats three narrow ones.
    """
    op = net.op
    rows = {"q": dims.heads, "k": dims.kv_heads, "v": dims.kv_heads}
    parts = [
        (
            (w / f"{part}_proj").get("weight", n * dims.head_width, dims.hidden),
            (w / f"{part}_proj").get("bias", n * dims.head_width),
        )
        for part, n in rows.items()
    ]
    weight = stack(f"{w.scope}qkv_proj.weight", [p.transposed for p, _ in parts], 1)
    bias = stack(f"{w.scope}qkv_proj.bias", [b for _, b in parts], 0)
    y = op.Add(op.MatMul(x, net.parameter(weight)), net.parameter(bias))
    rotated = dims.heads + dims.kv_heads
    y = op.Reshape(y, [0, 0, rotated + dims.kv_heads, dims.head_width])
    qk, v = op.Split(y, [rotated, dims.kv_heads], axis=2, _outputs=2)
    first, second = op.Split(qk, axis=-1, num_outputs=2, _outputs=2)
    cos, sin = rotation
    qk = op.Concat(
        op.Sub(op.Mul(first, cos), op.Mul(second, sin)),
        op.Add(op.Mul(second, cos), op.Mul(first, sin)),
        axis=-1,
    )
    q, k = op.Split(
        op.Transpose(qk, perm=[0, 2, 1, 3]), [dims.heads, dims.kv_heads], axis=1, _outputs=2
    )
    return q, k, op.Transpose(v, perm=[0, 2, 1, 3])


def _attention(net: Net, q: Value, k: Value, v: Value, bias: Value) -> Value:
    """Grouped-query attention (Ainslie et al., 2023) → [1, kv_heads, group · n, width].

    The queries of a group are rows of one product with their shared keys, which are not copied.
    """
    op = net.op
    return layers.attend(net, op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), bias, v)


def _attention_to_slots(
    net: Net, q: Value, parts: list[tuple[Value, Value]], masks: list[Value]
) -> Value:
    """The same over keys and values in several places, which are not joined: one softmax."""
    op = net.op
    scores = [
        op.Add(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), bias)
        for (k, _), bias in zip(parts, masks, strict=True)
    ]
    return attend_to_all(net, scores, [v for _, v in parts])


def _gated(net: Net, x: Value, w: Weights, dims: SpeechLMDims) -> Value:
    """SwiGLU, `down(silu(gate(x)) · up(x))`, gate and up in one MatMul."""
    op = net.op
    size = (dims.intermediate, dims.hidden)
    both = [(w / name).get("weight", *size).transposed for name in ("gate_proj", "up_proj")]
    y = op.MatMul(x, net.parameter(stack(f"{w.scope}gate_up_proj.weight", both, 1)))
    gate, up = op.Split(y, axis=-1, num_outputs=2, _outputs=2)
    return layers.linear(net, op.Mul(layers.silu(net, gate), up), w / "down_proj")
