"""CosyVoice 1's text encoder: embedded text ids → rows for the language model.

Source: cosyvoice/llm/llm.py (`TransformerLM.encode`) and cosyvoice/transformer/encoder.py
(`ConformerEncoder`).
"""

from dataclasses import dataclass

import numpy as np

from edgepack.bundle.stages import Declared, Use
from edgepack.graph import layers
from edgepack.graph.net import Graph, Net
from edgepack.graph.weights import Weights
from edgepack.model.networks.conformer import NORM_EPSILON, ConformerDims, conformer, embed

TEXT_ENCODER: Declared = (
    "text_encoder",
    Use(role="text_encoder", judged="language_model", samples=32),
)


@dataclass(frozen=True)
class TextEncoderDims:
    """Widths of the embedded text and of the rows for the language model, and the conformer's.

    `chunk` is that of the attention mask in positions: 1 is causal, 0 hides nothing.
    """

    embedded: int
    output: int
    chunk: int
    conformer: ConformerDims


def text_encoder(w: Weights, dims: TextEncoderDims) -> Graph:
    """`embeddings` [1, n, embedded] → `encoded` [1, n, output].

    `w` is a TransformerLM.
    """
    net = Net(*TEXT_ENCODER)
    hidden = dims.conformer.hidden
    x = net.input("embeddings", [1, "n", dims.embedded])
    encoder = w / "text_encoder"
    x = net.tap("embed", embed(net, x, encoder / "embed", hidden, dims.embedded))
    chunk = net.constant("chunk", np.array([dims.chunk], np.int64)) if dims.chunk > 0 else None
    x = conformer(net, x, encoder, "encoders", chunk, dims.conformer)
    x = layers.layer_norm(net, x, encoder / "after_norm", NORM_EPSILON)
    x = layers.affine(net, x, w / "text_encoder_affine_layer", dims.output, hidden)
    net.output("encoded", x, [1, "n", dims.output])
    rng = np.random.default_rng(0)
    calls = tuple(
        {"embeddings": rng.standard_normal((1, n, dims.embedded), np.float32)} for n in (9, 1, 24)
    )
    return net.finish(calls)
