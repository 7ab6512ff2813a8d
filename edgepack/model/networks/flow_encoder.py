"""Speech tokens → mel-rate conditioning: embedding, look-ahead, conformer at 25 Hz and 50 Hz.

Source: cosyvoice/transformer/upsample_encoder.py (`UpsampleConformerEncoder`) and
cosyvoice/flow/flow.py (`CausalMaskedDiffWithXvec`).
"""

from dataclasses import dataclass

import numpy as np

from edgepack.bundle.stages import Declared, Use
from edgepack.graph import layers
from edgepack.graph.net import INT64, Graph, Net, Value
from edgepack.graph.weights import Weights
from edgepack.model.networks.conformer import NORM_EPSILON, ConformerDims, conformer, embed
from edgepack.model.networks.flow_inputs import look_ahead, project_speaker

_UPSAMPLED_KERNEL = 5

ENCODER: Declared = (
    "flow_encoder",
    Use(role="encoder", judged="flow", samples=16, memory="released"),
)


@dataclass(frozen=True)
class FlowEncoderDims:
    """Dimensions: widths and counts; `look_ahead` in tokens, `ratio` mel frames a token."""

    vocabulary: int
    embedded: int
    hidden: int
    heads: int
    feed_forward: int
    mels: int
    speaker: int
    look_ahead: int
    ratio: int

    @property
    def conformer(self) -> ConformerDims:
        """Those of its conformer layers."""
        return ConformerDims(self.hidden, self.heads, self.feed_forward)


def flow_encoder(w: Weights, dims: FlowEncoderDims) -> Graph:
    """`tokens` int64 [1, n + look_ahead] → `mu` [1, mels, ratio·n] and `spk` [1, mels].

    The last `look_ahead` tokens are only looked at. `look_ahead` [1] scales their embeddings: 1
    when they are real, 0 when the text has ended and they stand for silence. `chunk` int64 [1]
    is the chunk of the attention mask in tokens, n or more for no mask. `speaker` [1, d] is the
    speaker embedding, of any length.
    """
    net = Net(*ENCODER)
    op = net.op
    tokens = net.input("tokens", [1, "n + look_ahead"], INT64)
    real = net.input("look_ahead", [1])
    chunk = net.input("chunk", [1], INT64)
    speaker = net.input("speaker", [1, dims.speaker])

    table = (w / "input_embedding").get("weight", dims.vocabulary, dims.embedded)
    encoder = w / "encoder"
    x = op.Gather(net.parameter(table), tokens, axis=0)
    x = embed(net, x, encoder / "embed", dims.hidden, dims.embedded)
    layer = encoder / "pre_lookahead_layer"
    x = look_ahead(net, x, real, layer, (dims.hidden, dims.hidden, dims.look_ahead))
    x = conformer(net, x, encoder, "encoders", chunk, dims.conformer)
    x = _upsample(net, x, encoder / "up_layer", dims)
    x = net.tap("up_embed", embed(net, x, encoder / "up_embed", dims.hidden, dims.hidden))
    x = conformer(net, x, encoder, "up_encoders", op.Mul(chunk, dims.ratio), dims.conformer)
    x = net.tap("enc", layers.layer_norm(net, x, encoder / "after_norm", NORM_EPSILON))
    mu = layers.affine(net, x, w / "encoder_proj", dims.mels, dims.hidden)
    net.output("mu", layers.channels_first(net, mu), [1, dims.mels, "frames"])

    spk = project_speaker(net, speaker, w / "spk_embed_affine_layer", dims.mels, dims.speaker)
    net.output("spk", spk, [1, dims.mels])
    return net.finish(_calls(dims))


def _calls(dims: FlowEncoderDims) -> tuple[dict[str, np.ndarray], ...]:
    rng = np.random.default_rng(0)
    return tuple(
        {
            "tokens": rng.integers(0, dims.vocabulary, (1, n + dims.look_ahead)),
            "look_ahead": np.array([real], np.float32),
            "chunk": np.array([chunk], np.int64),
            "speaker": rng.standard_normal((1, dims.speaker), np.float32),
        }
        for n, chunk, real in ((20, 20, 0), (31, 7, 1))
    )


def _upsample(net: Net, x: Value, w: Weights, dims: FlowEncoderDims) -> Value:
    """Repeat every frame `ratio` times, then a causal convolution."""
    op = net.op
    repeated = op.Concat(*[x] * dims.ratio, axis=-1)
    x = op.Reshape(repeated, [1, -1, dims.hidden])
    taps = 2 * dims.ratio + 1
    shape = (dims.hidden, dims.hidden, taps)
    return layers.time_convolution(net, x, layers.biased(w / "conv"), taps - 1, shape)
