"""`tts.npz`."""

from collections.abc import Sequence

import numpy as np

from edgepack.verification.reference import BundleUnderTest, Vectors
from edgepack.verification.vectors import _whole
from edgepack.verification.vectors.cosyvoice3._marked import marked


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file."""
    count = subject.loaded.decoder.settings.speech_tokens

    def speech(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        """The most probable id of speech: the others were left out when this was recorded."""
        return int(log_probabilities[:count].argmax())

    _whole.check(v, marked(subject), speech)
