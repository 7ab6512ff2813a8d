"""The speech language model: a Qwen2 decoder over text and speech embeddings."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from numpy_reference import layers
from numpy_reference.layers import Array, Part, State


class Pass(NamedTuple):
    """Hidden states [n, D], logits [n, V]; keys (rotated) and values [layers, kv heads, n, d]."""

    hidden: Array
    logits: Array
    keys: Array
    values: Array


def prefix(state: State, text: Sequence[int], speech: Sequence[int]) -> Array:
    """The first input [n, D]: start, text, task, speech tokens of the prompt."""
    start, task = state["llm_embedding.weight"]
    rows = [
        start[None],
        state["llm.model.model.embed_tokens.weight"][list(text)],
        task[None],
        state["speech_embedding.weight"][list(speech)],
    ]
    return np.concatenate(rows).astype(np.float64)


def speech_lm(
    state: State, x: Array, *, heads: int, kv_heads: int, rope_theta: float, eps: float
) -> Pass:
    """One causal pass over embeddings [n, D]."""
    net = Part(state)
    past = layers.chunk_mask(len(x), 1)
    all_keys, all_values = [], []
    for layer in net["llm.model.model.layers"].children():
        h, attention = layers.rms_norm(layer["input_layernorm"], x, eps), layer["self_attn"]
        queries = layers.split_heads(layers.linear(attention["q_proj"], h), heads)
        keys = layers.split_heads(layers.linear(attention["k_proj"], h), kv_heads)
        values = layers.split_heads(layers.linear(attention["v_proj"], h), kv_heads)
        queries, keys = rotate(queries, rope_theta), rotate(keys, rope_theta)
        all_keys.append(keys)
        all_values.append(values)
        keys, values = (np.repeat(y, heads // kv_heads, axis=0) for y in (keys, values))
        scores = queries @ np.swapaxes(keys, -1, -2) / math.sqrt(queries.shape[-1])
        mixed = layers.merge_heads(layers.attend(scores, values, past))
        x = x + layers.linear(attention["o_proj"], mixed)
        h, mlp = layers.rms_norm(layer["post_attention_layernorm"], x, eps), layer["mlp"]
        gate, up = layers.linear(mlp["gate_proj"], h), layers.linear(mlp["up_proj"], h)
        x = x + layers.linear(mlp["down_proj"], layers.silu(gate) * up)
    x = layers.rms_norm(net["llm.model.model.norm"], x, eps)
    logits = layers.linear(net["llm_decoder"], x)
    return Pass(x, logits, np.stack(all_keys), np.stack(all_values))


def rotate(x: Array, theta: float) -> Array:
    """Rotary embedding: the two halves of a head are the coordinates of rotating points."""
    length, width = x.shape[-2:]
    angle = np.arange(length)[:, None] * theta ** (-np.arange(0, width, 2) / width)
    a, b = np.split(x, 2, -1)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
