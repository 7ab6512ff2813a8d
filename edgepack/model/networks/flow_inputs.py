"""What flow decoders make of tokens and speakers, whatever their estimator is.

Source: cosyvoice/transformer/upsample_encoder.py (`PreLookaheadLayer`) and cosyvoice/flow/flow.py.
"""

from edgepack.graph import layers
from edgepack.graph.net import END, Net, Value
from edgepack.graph.weights import Weights

_SLOPE = 0.01
_UNIT_EPSILON = 1e-12


def look_ahead(net: Net, x: Value, real: Value, w: Weights, sizes: tuple[int, int, int]) -> Value:
    """Mix each frame with the frames after it: [1, n + ahead, width] → [1, n, width].

    `sizes` are the width, that of the layer between, and how many frames are `ahead`. `real` [1]
    scales the last `ahead` frames: 1, or 0 where they stand for silence.
    """
    op = net.op
    width, between, ahead = sizes
    own = net.tap("embed", op.Slice(x, [0], [-ahead], [1]))
    later = op.Slice(x, [-ahead], [END], [1])
    x = op.Concat(own, op.Mul(later, real), axis=1)
    first, second = (layers.biased(w / name) for name in ("conv1", "conv2"))
    x = layers.time_convolution(net, x, first, 0, (between, width, ahead + 1))
    x = op.LeakyRelu(x, alpha=_SLOPE)
    taps = (w / "conv2").get("weight", width, between, None).shape[2]
    x = layers.time_convolution(net, x, second, taps - 1, (width, between, taps))
    return net.tap("pre_lookahead_layer", op.Add(x, own))


def project_speaker(net: Net, speaker: Value, w: Weights, mels: int, width: int) -> Value:
    """Speaker embedding [1, width], of any length, at unit length → [1, mels]."""
    op = net.op
    norm = op.Sqrt(op.ReduceSum(op.Mul(speaker, speaker), [1], keepdims=1))
    unit = op.Div(speaker, op.Max(norm, _UNIT_EPSILON))
    return layers.affine(net, unit, w, mels, width)
