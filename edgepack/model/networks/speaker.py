"""A speaker embedding as a row of another width, such as one in front of a language model's text.

Source: `spk_embed_affine_layer` in cosyvoice/llm/llm.py and cosyvoice/flow/flow.py.
"""

import numpy as np

from edgepack.bundle.stages import Declared, Use
from edgepack.graph.net import Graph, Net
from edgepack.graph.weights import Weights
from edgepack.model.networks.flow_inputs import project_speaker

SPEAKER_ROW: Declared = (
    "speaker_embedding",
    Use(role="speaker_row", judged="language_model"),
)


def speaker_row(w: Weights, width: int, inputs: int) -> Graph:
    """`speaker` [1, inputs], of any length → `embeddings` [1, 1, width], one position of a text."""
    net = Net(*SPEAKER_ROW)
    speaker = net.input("speaker", [1, inputs])
    row = project_speaker(net, speaker, w, width, inputs)
    net.output("embeddings", net.op.Unsqueeze(row, [1]), [1, 1, width])
    rng = np.random.default_rng(0)
    return net.finish(({"speaker": rng.standard_normal((1, inputs), np.float32)},))
