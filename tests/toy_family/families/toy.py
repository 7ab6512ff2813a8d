"""A family that is CosyVoice2 with a vocoder of one matrix, and chunks of equal length."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import ClassVar

import msgspec
import numpy as np

from edgepack.bundle.host import HostLoops
from edgepack.bundle.stages import Declared, Use
from edgepack.graph.net import Graph, Net
from edgepack.graph.weights import Weights
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families import cosyvoice2
from edgepack.runtime.strategies.schedule import equal_chunks  # type: ignore[attr-defined]
from edgepack.runtime.strategies.vocoder import matrix  # type: ignore[attr-defined]

MATRIX: Declared = ("matrix", Use(role="vocoder", judged="vocoder"))
_SHARED = 6  # networks that are those of CosyVoice2: all but its vocoder's two


class _Toy(cosyvoice2._CosyVoice2):
    networks: ClassVar[Mapping[str, str]] = {**cosyvoice2.FAMILY.networks, "hift": "Matrix"}
    stages: ClassVar[Mapping[str, Use]] = dict(
        [*islice(cosyvoice2.FAMILY.stages.items(), _SHARED), MATRIX]
    )

    def graphs(
        self, checkpoint: Checkpoint, text_rows: np.ndarray | None = None
    ) -> Iterator[Graph]:
        yield from islice(super().graphs(checkpoint, text_rows), _SHARED)
        yield _matrix(Weights.of("hift.pt", checkpoint.tensors("hift")))

    def host(self, checkpoint: Checkpoint) -> HostLoops:
        host = super().host(checkpoint)
        return msgspec.structs.replace(
            host,
            vocoder=matrix.Record(frame=host.vocoder.frame),
            schedule=equal_chunks.Record(hop=10),
        )


def _matrix(w: Weights) -> Graph:
    """Samples [1, T · frame] of a mel [1, mels, T]: each frame times `weight` [mels, frame]."""
    weight = w.get("weight", None, None)
    mels = weight.shape[0]
    net = Net(*MATRIX)
    mel = net.input("mel", [1, mels, "T"])
    audio = net.op.Tanh(net.op.MatMul(net.op.Transpose(mel, perm=[0, 2, 1]), net.parameter(weight)))
    net.output("audio", net.op.Reshape(audio, [1, -1]), [1, "samples"])
    rng = np.random.default_rng(0)
    w.assert_all_read([])
    return net.finish(({"mel": rng.normal(-4, 2, (1, mels, 9)).astype(np.float32)},))


FAMILY = _Toy()
