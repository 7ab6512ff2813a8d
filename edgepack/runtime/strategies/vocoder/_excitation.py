"""The networks of vocoders whose audio is made of a mel and an excitation."""

from collections.abc import Iterator, Mapping

from edgepack.bundle.host import LARGEST, HostLoops, Signature, VocoderPart
from edgepack.bundle.ranges import Few


class ExcitedPart(VocoderPart, frozen=True):
    """`partials` sines are in the excitation."""

    partials: Few

    def networks(self, host: HostLoops) -> Mapping[str, Signature]:
        """The excitation of a mel, and the audio of both."""
        mel = ("f", (1, host.flow.mels, None))
        source = ("f", (1, 1, None))
        noise = ("f", (1, None, self.partials))
        return {
            "excitation": Signature({"mel": mel, "noise": noise}, {"f0": None, "source": source}),
            "vocoder": Signature({"mel": mel, "source": source}, {"audio": None}),
        }

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Noise that does not fit into memory."""
        if self.frame * self.partials > LARGEST >> 10:
            yield "the noise of a frame does not fit into memory"
