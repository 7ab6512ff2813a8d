"""HiFT: harmonics of f0 and noise excite a network that ends in an inverse STFT.

Source: cosyvoice/hifigan/generator.py (`HiFTGenerator`, `SineGen2`).
"""

from dataclasses import dataclass

from edgepack.runtime.strategies.vocoder._excited import Excited, ExcitedRecord


class Record(ExcitedRecord, frozen=True, tag="hift"):
    """Nothing besides."""


@dataclass(frozen=True)
class HiFT(Excited):
    """A network for the excitation and one for the audio."""

    settings: Record


STRATEGY = HiFT
