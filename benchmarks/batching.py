"""What it gains to decode sentences together: the language model, and a whole text.

    python benchmarks/batching.py BUNDLE [--tokens 100] [--rounds 5] [--threads 2]

BUNDLE is for ONNX Runtime. Sentences of a number of tokens each are decoded one after the other and
together, in turns in one process, as a single sentence is with and without a row beside it that is
empty; then a text of eight is spoken both ways. Ratios are medians of paired ones, with the lowest
and the highest; those of processor seconds do not depend on what else the machine does. Exits with
1 if a limit is passed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from edgepack.machine.cpu import isa
from edgepack.runtime.batching import ALONE
from edgepack.runtime.engines.watch import Clock
from edgepack.runtime.loading import Loaded
from edgepack.runtime.stages.decode import Choosing, Context
from edgepack.runtime.stages.rows import BatchedUtterance, RowDecoder
from edgepack.runtime.stages.sampling import Sampler, inverse_cdf, repetition_aware
from edgepack.runtime.synthesizer import Settings, Synthesizer

ENGLISH = (
    "Good morning, everybody, and welcome to the second part of our long journey through the "
    "mountains, the valleys and the many small towns along the river, which we began last week. "
)
CHINESE = (
    "各位早上好，欢迎参加我们漫长旅行的第二部分，我们上个星期出发，已经走过了高山和深谷，"
    "今天要沿着这条河去看许多古老的小镇，希望大家都能喜欢这里的风景、美食和热情的人们。"
)
SENTENCES = 8
SOUNDED = Settings(strict=False)
LIMITS = {4: 0.55, 8: 0.45}
WHOLE_LIMIT = 0.85


@dataclass
class Paired:
    """Wall and processor seconds of two ways, round by round."""

    first: list[tuple[float, float]] = field(default_factory=list)
    second: list[tuple[float, float]] = field(default_factory=list)

    def ratios(self, kind: int) -> list[float]:
        """Those of the second way to the first, of wall (0) or processor seconds (1)."""
        return [b[kind] / a[kind] for a, b in zip(self.first, self.second, strict=True)]

    def line(self, name: str, limit: float | None = None) -> str:
        """What is printed of it."""
        wall, processor = (_spread(self.ratios(kind)) for kind in (0, 1))
        seconds = ", ".join(f"{statistics.median(w for w, _ in of):.2f}" for of in self.both)
        bound = "" if limit is None else f"  at most {limit}: {self.verdict(limit)}"
        return f"{name:34} {seconds} s; ratio {wall}, of processor seconds {processor}{bound}"

    @property
    def both(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Both ways."""
        return self.first, self.second

    def verdict(self, limit: float) -> str:
        """Whether the median ratio of wall seconds is within a limit."""
        return "passed" if statistics.median(self.ratios(0)) <= limit else "OVER THE LIMIT"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


@contextmanager
def timed(into: list[tuple[float, float]]) -> Iterator[None]:
    """Add wall and processor seconds of the block."""
    start, processor = time.perf_counter(), time.process_time()
    yield
    into.append((time.perf_counter() - start, time.process_time() - processor))


def in_turns(rounds: int, first: Callable[[], object], second: Callable[[], object]) -> Paired:
    """Both ways in each round, the order changing."""
    found = Paired()
    for number in range(rounds):
        ways = [(first, found.first), (second, found.second)]
        for way, into in ways if number % 2 else reversed(ways):
            with timed(into):
                way()
    return found


@dataclass(frozen=True)
class Decoding:
    """Sentences of a number of tokens; stop ids are not chosen."""

    loaded: Loaded
    tokens: int

    def choosing(self, number: int) -> Choosing:
        """The choice of a sentence's tokens."""
        settings = self.loaded.decoder.settings
        draws = np.random.default_rng(number)
        chosen = repetition_aware(settings.sampling, inverse_cdf(draws.random))
        return Choosing(settings, _never_ending(chosen, settings.speech_tokens), 0, self.tokens)

    def one_by_one(self, count: int) -> None:
        """Decode sentences one after the other."""
        decoder, text = self.loaded.decoder, self.loaded.frontend.ids(sentence(self.loaded))
        for number in range(count):
            sampler = self.choosing(number).sampler
            found, _ = decoder.collect(decoder.generate(text, sampler, longest=self.tokens))
            assert len(found) == self.tokens

    def together(self, rows: RowDecoder, count: int) -> None:
        """Decode them as rows."""
        text = self.loaded.frontend.ids(sentence(self.loaded))
        begun = [
            rows.begin(BatchedUtterance(text, Context(), self.choosing(number), None, Clock()))
            for number in range(count)
        ]
        for row in begun:
            assert len(list(row.tokens())) == self.tokens


def _never_ending(sampler: Sampler, speech_tokens: int) -> Sampler:
    def sample(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        log_probabilities[speech_tokens:] = -np.inf
        return sampler(log_probabilities, history)

    return sample


def limited(synthesizer: Synthesizer, tokens: int) -> Synthesizer:
    """The same, with a limit of so many tokens a sentence."""
    loaded = synthesizer.loaded
    ids = loaded.frontend.ids(pieces(loaded, text(loaded))[0])
    settings = msgspec.structs.replace(
        loaded.decoder.settings, min_ratio=0.0, max_ratio=(tokens + 0.5) / len(ids)
    )
    decoder = replace(loaded.decoder, settings=settings)
    return Synthesizer(replace(loaded, decoder=decoder), synthesizer.clock)


def sentence(loaded: Loaded) -> str:
    """A sentence in a language of the bundle."""
    return ENGLISH if "en" in loaded.bundle.manifest.languages else CHINESE


def pieces(loaded: Loaded, whole: str) -> list[str]:
    """The utterances of a text."""
    return loaded.frontend.utterances(whole, lambda word: None)


def text(loaded: Loaded) -> str:
    """A text that is cut into eight utterances."""
    whole = sentence(loaded)
    while len(pieces(loaded, whole)) < SENTENCES:
        whole += sentence(loaded)
    return whole


def spoken(synthesizer: Synthesizer) -> None:
    """Speak a text of eight sentences."""
    speech = synthesizer.speak(text(synthesizer.loaded), SOUNDED)
    assert len(speech.utterances) == SENTENCES


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-decoding", action="store_true")
    options = parser.parse_args()
    several = Synthesizer.load(options.bundle, "ort", options.threads)
    alone = Synthesizer(replace(several.loaded, batching=ALONE), several.clock)
    print(f"{isa.model()}, {options.threads} threads, {options.tokens} tokens a sentence")
    decoding = Decoding(alone.loaded, options.tokens)
    passed = []
    for count in (1, *LIMITS):
        rows = RowDecoder(several.loaded.decoder, count, Clock())
        limit = LIMITS.get(count)
        one, all_ = partial(decoding.one_by_one, count), partial(decoding.together, rows, count)
        all_()  # memory for the rows
        found = in_turns(options.rounds, one, all_)
        print(found.line(f"language model, {count} sentences", limit), flush=True)
        passed += [] if limit is None else [statistics.median(found.ratios(0)) <= limit]
    if not options.only_decoding:
        ways = [partial(spoken, limited(way, options.tokens)) for way in (alone, several)]
        found = in_turns(options.rounds, *ways)
        print(found.line("a text of 8 sentences, whole", WHOLE_LIMIT))
        passed.append(statistics.median(found.ratios(0)) <= WHOLE_LIMIT)
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
