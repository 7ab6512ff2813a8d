"""CosyVoice 1's language model: text encoder, speaker row, transformer with relative positions."""

import math
from typing import NamedTuple

import numpy as np

from numpy_reference import flow, layers
from numpy_reference.layers import Array, Part, State

LAYER_EPS = 1e-12


class Pass(NamedTuple):
    """Of n rows: hidden states, logits [n, V], keys and values [layer, head, n, d]."""

    hidden: Array
    logits: Array
    keys: Array
    values: Array


def encode_text(state: State, embedded: Array, *, heads: int, chunk: int | None = 1) -> Array:
    """Rows [n, D] of embedded text ids [n, d]."""
    encoder = Part(state)["text_encoder"]
    x = _embed(encoder["embed"], embedded)
    for block in encoder["encoders"].children():
        h = layers.layer_norm(block["norm_mha"], x, LAYER_EPS)
        x = x + flow.relative_attention(block["self_attn"], h, heads, chunk)
        h = layers.layer_norm(block["norm_ff"], x, LAYER_EPS)
        h = layers.silu(layers.linear(block["feed_forward.w_1"], h))
        x = x + layers.linear(block["feed_forward.w_2"], h)
    x = layers.layer_norm(encoder["after_norm"], x)
    return layers.linear(Part(state)["text_encoder_affine_layer"], x)


def language_model(state: State, x: Array, *, heads: int) -> Pass:
    """One causal pass over rows [n, d]."""
    net = Part(state)["llm"]
    x = _embed(net["embed"], x, relu=True)
    all_keys: list[Array] = []
    all_values: list[Array] = []
    for block in net["encoders"].children():
        h = layers.layer_norm(block["norm1"], x, LAYER_EPS)
        for name, found in (("k", all_keys), ("v", all_values)):
            rows = layers.linear(block[f"self_attn.linear_{name}"], h)
            found.append(layers.split_heads(rows, heads))
        x = x + flow.relative_attention(block["self_attn"], h, heads, 1)
        h = layers.layer_norm(block["norm2"], x, LAYER_EPS)
        h = np.maximum(layers.linear(block["feed_forward.w_1"], h), 0)
        x = x + layers.linear(block["feed_forward.w_2"], h)
    x = layers.layer_norm(net["after_norm"], x)
    logits = layers.linear(Part(state)["llm_decoder"], x)
    return Pass(x, logits, np.stack(all_keys), np.stack(all_values))


def _embed(part: Part, x: Array, *, relu: bool = False) -> Array:
    h = layers.layer_norm(part["out.1"], layers.linear(part["out.0"], x))
    return (np.maximum(h, 0) if relu else h) * math.sqrt(h.shape[-1])
