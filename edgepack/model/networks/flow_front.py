"""Speech tokens → mel-rate conditioning of a flow decoder without an encoder of its own.

Source: cosyvoice/flow/flow.py (`CausalMaskedDiffWithDiT`).
"""

from dataclasses import dataclass

import numpy as np

from edgepack.graph import layers
from edgepack.graph.net import INT64, Graph, Net
from edgepack.graph.weights import Weights
from edgepack.model.networks.flow_encoder import ENCODER
from edgepack.model.networks.flow_inputs import look_ahead, project_speaker


@dataclass(frozen=True)
class FlowFrontDims:
    """Dimensions: widths and counts; `look_ahead` in tokens, `ratio` mel frames a token.

    `between` is the width inside the look-ahead layer.
    """

    vocabulary: int
    between: int
    mels: int
    speaker: int
    look_ahead: int
    ratio: int


def flow_front(w: Weights, dims: FlowFrontDims) -> Graph:
    """`tokens` int64 [1, n + look_ahead] → `mu` [1, mels, ratio·n] and `spk` [1, mels].

    The last `look_ahead` tokens are only looked at. `look_ahead` [1] scales their embeddings: 1
    when they are real, 0 when the text has ended and they stand for silence. `speaker` [1, d] is
    the speaker embedding, of any length. Attention is all in the estimator, so no chunk is given.
    """
    net = Net(*ENCODER)
    op = net.op
    tokens = net.input("tokens", [1, "n + look_ahead"], INT64)
    real = net.input("look_ahead", [1])
    speaker = net.input("speaker", [1, dims.speaker])

    table = (w / "input_embedding").get("weight", dims.vocabulary, dims.mels)
    x = op.Gather(net.parameter(table), tokens, axis=0)
    sizes = (dims.mels, dims.between, dims.look_ahead)
    x = look_ahead(net, x, real, w / "pre_lookahead_layer", sizes)
    repeated = op.Concat(*[x] * dims.ratio, axis=-1) if dims.ratio > 1 else x
    mu = op.Reshape(repeated, [1, -1, dims.mels])
    net.output("mu", layers.channels_first(net, mu), [1, dims.mels, "frames"])
    spk = project_speaker(net, speaker, w / "spk_embed_affine_layer", dims.mels, dims.speaker)
    net.output("spk", spk, [1, dims.mels])

    return net.finish(_calls(dims))


def _calls(dims: FlowFrontDims) -> tuple[dict[str, np.ndarray], ...]:
    rng = np.random.default_rng(0)
    return tuple(
        {
            "tokens": rng.integers(0, dims.vocabulary, (1, n + dims.look_ahead)),
            "look_ahead": np.array([real], np.float32),
            "speaker": rng.standard_normal((1, dims.speaker), np.float32),
        }
        for n, real in ((20, 0), (31, 1))
    )
