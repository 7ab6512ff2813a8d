"""CosyVoice 1's flow encoder: speech tokens → conditioning at the rate of mel frames.

Source: cosyvoice/flow/flow.py (`MaskedDiffWithXvec`), cosyvoice/transformer/encoder.py
(`ConformerEncoder`) and cosyvoice/flow/length_regulator.py (`InterpolateRegulator`).
"""

from dataclasses import dataclass

import numpy as np

from edgepack.graph import layers
from edgepack.graph.group_norm import group_norm
from edgepack.graph.net import INT64, Graph, Net, Value
from edgepack.graph.weights import Weights
from edgepack.model.networks.conformer import NORM_EPSILON, ConformerDims, conformer, embed
from edgepack.model.networks.flow_encoder import ENCODER
from edgepack.model.networks.flow_inputs import project_speaker

_EPSILON = 1e-5
_TAPS = 3


@dataclass(frozen=True)
class RegulatedFlowEncoderDims:
    """Speech ids, widths of their embeddings, of a mel and of a speaker; the conformer's.

    `convolutions` is how many of them with a norm each follow the interpolation.
    """

    vocabulary: int
    embedded: int
    mels: int
    speaker: int
    convolutions: int
    conformer: ConformerDims


def regulated_flow_encoder(w: Weights, dims: RegulatedFlowEncoderDims) -> Graph:
    """`tokens` int64 [1, n] → `mu` [1, mels, T] and `spk` [1, mels].

    Frame i lies between the tokens `left[i]` and `right[i]` (int64 [T]), at `share[i]` of the way
    (float [T]): T is no multiple of n, and which tokens belong to which frames is the caller's to
    say (`runtime.stages.length_regulation`). `speaker` [1, d] is the speaker embedding, of any
    length.
    """
    net = Net(*ENCODER)
    op = net.op
    tokens = net.input("tokens", [1, "n"], INT64)
    left, right = (net.input(name, ["T"], INT64) for name in ("left", "right"))
    share = net.input("share", ["T"])
    speaker = net.input("speaker", [1, dims.speaker])

    hidden = dims.conformer.hidden
    table = (w / "input_embedding").get("weight", dims.vocabulary, dims.embedded)
    encoder = w / "encoder"
    x = op.Gather(net.parameter(table), tokens, axis=0)
    x = net.tap("embed", embed(net, x, encoder / "embed", hidden, dims.embedded))
    x = conformer(net, x, encoder, "encoders", None, dims.conformer)
    x = net.tap("enc", layers.layer_norm(net, x, encoder / "after_norm", NORM_EPSILON))
    x = layers.affine(net, x, w / "encoder_proj", dims.mels, hidden)
    x = net.tap("enc_proj", x)

    before, after = op.Gather(x, left, axis=1), op.Gather(x, right, axis=1)
    at = op.Unsqueeze(share, [0, 2])
    x = net.tap("interpolated", op.Add(before, op.Mul(op.Sub(after, before), at)))
    mu = _convolutions(net, x, w / "length_regulator" / "model", dims)
    net.output("mu", layers.channels_first(net, mu), [1, dims.mels, "T"])
    spk = project_speaker(net, speaker, w / "spk_embed_affine_layer", dims.mels, dims.speaker)
    net.output("spk", spk, [1, dims.mels])
    return net.finish(_calls(dims))


def _calls(dims: RegulatedFlowEncoderDims) -> tuple[dict[str, np.ndarray], ...]:
    rng = np.random.default_rng(0)
    calls = []
    for n, frames in ((20, 34), (31, 53)):
        at = np.linspace(0, n - 1, frames, dtype=np.float32)
        left = at.astype(np.int64)
        calls.append(
            {
                "tokens": rng.integers(0, dims.vocabulary, (1, n)),
                "left": left,
                "right": np.minimum(left + 1, n - 1),
                "share": at - left.astype(np.float32),
                "speaker": rng.standard_normal((1, dims.speaker), np.float32),
            }
        )
    return tuple(calls)


def _convolutions(net: Net, x: Value, w: Weights, dims: RegulatedFlowEncoderDims) -> Value:
    """Convolution, norm over channels and time, Mish, as often as it is; then a Linear."""
    wide = (dims.mels, dims.mels)
    for i in range(dims.convolutions):
        padded = net.op.Pad(x, [0, _TAPS // 2, 0, 0, _TAPS // 2, 0])
        convolution = layers.biased(w / (3 * i))
        x = layers.time_convolution(net, padded, convolution, 0, (*wide, _TAPS))
        x = layers.mish(net, group_norm(net, x, w / (3 * i + 1), 1, _EPSILON))
    last = layers.biased(w / (3 * dims.convolutions))
    return layers.time_convolution(net, x, last, 0, (*wide, 1))
