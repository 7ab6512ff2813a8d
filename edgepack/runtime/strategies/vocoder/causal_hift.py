"""Mel spectrogram → audio by a vocoder that looks back, and a few frames ahead.

Source: cosyvoice/hifigan/generator.py (`CausalHiFTGenerator.inference`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.bundle.host import LARGEST, HostLoops
from edgepack.bundle.ranges import Count, Seed, Size, Some
from edgepack.errors import UsageError
from edgepack.runtime import cancellation
from edgepack.runtime.engines.session import Feeds, Session
from edgepack.runtime.stages.noise import uniform
from edgepack.runtime.stages.vocoder import Sound, Vocoder
from edgepack.runtime.strategies.vocoder._excitation import ExcitedPart


class Record(ExcitedPart, frozen=True, tag="causal_hift"):
    """How a mel spectrogram becomes audio.

    A sample depends on `context` frames before it and on `ahead` after it; the pitch of a frame on
    `pitch_ahead` after it. The audio's last `overhang` samples are of the end of an utterance. The
    noise is the same for every utterance: the numbers of a generator with `noise_seed` after
    `noise_skip` of them, for `noise_frames` frames at most.
    """

    context: Some
    ahead: Some
    pitch_ahead: Some
    overhang: Size
    noise_seed: Seed
    noise_skip: Count
    noise_frames: Size

    @property
    def lag(self) -> int:
        """Frames at the end of a mel that goes on, whose audio cannot be made yet."""
        return self.pitch_ahead + self.ahead + 1

    def axes(self, frames: int) -> Mapping[str, int]:
        """Both networks are given frames to look at besides, and one the end of the excitation."""
        return {
            "T + pitch_ahead": frames + self.pitch_ahead,
            "T + ahead": frames + self.ahead,
            "samples + ahead": frames * self.frame + self.overhang,
        }

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Noise that takes too long to be found."""
        yield from super().problems(host)
        if self.noise_skip > LARGEST:
            yield "noise_skip is too long"

    def misfit(self, calls: Mapping[str, Any]) -> str:
        """Another number of samples a frame."""
        for feeds, _ in calls["vocoder"]:
            frames = feeds["mel"].shape[2] - self.ahead
            if feeds["source"].shape[2] != frames * self.frame + self.overhang:
                return f"not {self.frame} samples a frame of mel"
        return ""


@dataclass(frozen=True)
class CausalHiFT(Vocoder):
    """A network for the excitation and one for the audio.

    The excitation is made in one go, as its phase runs on; audio from any frame on, in windows of
    equal length, with as many frames before each as its samples depend on. So it is the same
    whether it is made at once or, as the mel grows, in parts.
    """

    settings: Record
    excitation: Session

    def noise(self, frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """Excitation noise [1, samples, partials] of `frames` frames; zeros without a generator.

        It comes from a fixed table, whatever the generator. Raises UsageError for more frames than
        the table has.
        """
        settings = self.settings
        shape = (1, frames * settings.frame, settings.partials)
        if rng is None:
            return np.zeros(shape, np.float32)
        if frames > settings.noise_frames:
            raise UsageError(
                f"{frames} mel frames are more than the {settings.noise_frames} of the noise "
                "table; use a shorter text"
            )
        return uniform(settings.noise_seed, settings.noise_skip, shape)

    def synthesize(
        self, mel: np.ndarray, noise: np.ndarray, *, final: bool = True, start: int = 0
    ) -> Sound:
        """Audio of a mel [1, mels, T] from the frame `start` on.

        Unless `final` the mel goes on, and audio ends `lag` frames before it; there may be none
        yet. `noise` is that of T frames; more of it, or of the excitation's end, is not read.
        """
        if not final and mel.shape[2] <= self.settings.pitch_ahead:
            empty = np.zeros((1, 1, 0), np.float32)
            return Sound(empty[0], empty, empty[0])
        excited = self.excitation.run(self.excitation_feeds(mel, noise, final=final))
        source, f0 = excited["source"], excited["f0"]
        end = mel.shape[2] - (0 if final else self.settings.lag)
        if end <= start:
            return Sound(np.zeros((1, 0), np.float32), source, f0)
        whole = self.generator_feeds(mel, source, final=final)
        return Sound(self._in_windows(whole, start, end), source, f0)

    def excitation_feeds(
        self, mel: np.ndarray, noise: np.ndarray, *, final: bool
    ) -> dict[str, np.ndarray]:
        """Inputs of the excitation's graph for a whole mel."""
        ahead = self.settings.pitch_ahead
        seen = np.pad(mel, ((0, 0), (0, 0), (0, ahead))) if final else mel
        samples = (seen.shape[2] - ahead) * self.settings.frame
        return {"mel": seen, "noise": noise[:, :samples]}

    def generator_feeds(
        self, mel: np.ndarray, source: np.ndarray, *, final: bool
    ) -> dict[str, np.ndarray]:
        """Inputs of the audio's graph for a whole mel and its excitation.

        What follows the end of an utterance is zeros after the mel, and the excitation mirrored.
        """
        settings = self.settings
        if final:
            seen = np.pad(mel, ((0, 0), (0, 0), (0, settings.ahead)))
            mirrored = np.pad(source, ((0, 0), (0, 0), (0, settings.overhang)), mode="reflect")
            return {"mel": seen, "source": mirrored}
        seen = mel[:, :, : mel.shape[2] - settings.pitch_ahead]
        samples = (seen.shape[2] - settings.ahead) * settings.frame + settings.overhang
        return {"mel": np.ascontiguousarray(seen), "source": source[:, :, :samples]}

    def _in_windows(self, whole: Feeds, start: int, end: int) -> np.ndarray:
        """Audio [1, n] from one frame to another.

        A window that does not end where audio can be made is a frame longer than what is taken.
        """
        settings = self.settings
        limit = whole["mel"].shape[2] - settings.ahead
        count = -(-(end - start) // self.window)
        length = -(-(end - start) // count)
        width = min(limit, length + settings.context + 1)  # a new shape costs memory
        pieces = []
        for begin in range(start, end, length):
            stop = min(begin + length, end)
            last = min(max(stop + 1, width), limit)
            first = last - width
            samples = slice(first * settings.frame, last * settings.frame + settings.overhang)
            window = {
                "mel": np.ascontiguousarray(whole["mel"][:, :, first : last + settings.ahead]),
                "source": np.ascontiguousarray(whole["source"][:, :, samples]),
            }
            cancellation.check()
            audio = self.vocoder.run(window)["audio"]
            taken = slice((begin - first) * settings.frame, (stop - first) * settings.frame)
            pieces.append(audio[:, taken])
        return np.concatenate(pieces, 1)


STRATEGY = CausalHiFT
