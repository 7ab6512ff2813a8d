"""AAC in ADTS frames, which need no length and no end; PyAV encodes them.

It is an extra: PyAV's wheels contain x264 and x265, which are under the GPL.
"""

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream

from edgepack.errors import UnsupportedError

_BITS = 64_000  # a second


class AdtsSound:
    """AAC that is being written to a file object, to which frames are appended."""

    def __init__(self, rate: int, file: Any) -> None:
        """Begin; raises UnsupportedError for a sample rate that AAC lacks."""
        known = av.Codec("aac", "w").audio_rates or []
        if rate not in known:
            raise UnsupportedError(f"aac with {rate} samples a second is not known")
        self._rate, self._given = rate, 0
        self._container = av.open(file, "w", format="adts")
        self._stream: AudioStream = self._container.add_stream("aac", rate=rate, layout="mono")
        self._stream.bit_rate = _BITS

    def add(self, samples: np.ndarray) -> None:
        """Encode samples int16 [n] more."""
        if not len(samples):
            return
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
        frame.pts, self._given = self._given, self._given + len(samples)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what is left."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
