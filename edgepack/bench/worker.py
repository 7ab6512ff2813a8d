"""A process that has one bundle in one runtime and speaks on demand.

Each subject has its own, so that memory is its own and thread pools do not meet.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edgepack import interrupts
from edgepack.bench.player import played
from edgepack.isolation import portable
from edgepack.runtime.cpu import affinity
from edgepack.runtime.cpu.plan import CpuPlan


@dataclass(frozen=True)
class Spec:
    """What to load: a bundle, a runtime, a voice or its first, where to run.

    Unless it is `strict`, audio may be faulty, as that of random weights is.
    """

    bundle: Path
    runtime: str
    voice: str | None
    plan: CpuPlan
    seed: int
    profile: bool = False
    provider: str = "auto"
    allow_fallback: bool = False
    solver: str = "auto"
    strict: bool = True


@dataclass(frozen=True)
class Failed:
    """An answer that is an error, and where it arose."""

    error: Exception
    trace: str


def serve(pipe: Connection, spec: Spec) -> None:
    """Load, then answer requests (name, arguments) until there are no more."""
    if parent := multiprocessing.parent_process():
        interrupts.end_with(parent.pid or 0)
    with suppress(BrokenPipeError, ConnectionResetError):  # who asked has gone
        _serve(pipe, spec)


def _serve(pipe: Connection, spec: Spec) -> None:
    affinity.enter(spec.plan)  # before anything that has threads is imported
    try:
        subject = _Subject(spec)
    except Exception as error:  # whatever it is, the parent raises it
        pipe.send(Failed(portable(error), traceback.format_exc()))
        return
    pipe.send(subject.described())
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(subject, name)(*arguments))
        except Exception as error:
            pipe.send(Failed(portable(error), traceback.format_exc()))


class _Subject:
    """A loaded bundle; its public methods are the requests."""

    def __init__(self, spec: Spec) -> None:
        from edgepack.bundle import open_bundle
        from edgepack.runtime.gpu.placement import Wanted
        from edgepack.runtime.memory import keep_few_kernels, return_large_blocks, rss_bytes
        from edgepack.runtime.quiet import hush
        from edgepack.runtime.synthesizer import Settings, Synthesizer

        return_large_blocks()
        keep_few_kernels()
        hush(open_bundle(spec.bundle), spec.runtime)
        self.loaded_by: dict[str, int] = {}
        last = rss_bytes()

        def on_stage(stage: str) -> None:
            nonlocal last
            now = rss_bytes()
            self.loaded_by[stage] = max(0, now - last)  # what is freed meanwhile may be more
            last = now

        start = time.perf_counter()
        self.synthesizer = Synthesizer.load(
            spec.bundle,
            spec.runtime,
            plan=spec.plan,
            profile=spec.profile,
            wanted=Wanted(spec.provider, spec.allow_fallback),
            on_stage=on_stage,
        )
        self.load_seconds = time.perf_counter() - start
        self.loaded_bytes = rss_bytes()
        self.settings = Settings(
            voice=spec.voice, seed=spec.seed, solver=spec.solver, strict=spec.strict
        )
        self.spec = spec

    def described(self) -> dict[str, Any]:
        """What was loaded, once."""
        from edgepack.runtime.session import engine

        return {
            "runtime_version": engine(self.spec.runtime).version(),
            "threads": self.synthesizer.loaded.host.threads,
            "load_seconds": self.load_seconds,
            "loaded_bytes": self.loaded_bytes,
            "providers": self._providers(),
            "solver": self._solver(),
        }

    def _solver(self) -> tuple[str, int]:
        """Name and evaluations of the flow decoder's solver."""
        loaded = self.synthesizer.loaded
        solver = loaded.solver(self.settings.solver, self.settings.steps)
        return loaded.solver_name(solver), solver.evaluations

    def _providers(self) -> dict[str, str]:
        """Where each network runs."""
        placement = self.synthesizer.loaded.host.placement
        used = placement.used if placement else {}
        return {stage: placed.provider for stage, placed in used.items()}

    def speak(self, text: str) -> dict[str, Any]:
        """An utterance, whole."""
        speech = self.synthesizer.speak(text, self.settings)
        return {
            "text": text,
            "audio_seconds": speech.audio_seconds,
            "seconds": speech.seconds,
            "stages": speech.stages,
            "speech_tokens": sum(len(u.decoded.speech_tokens) for u in speech.utterances),
        }

    def sound(self, tokens: Sequence[int]) -> dict[str, Any]:
        """Given speech tokens as audio: seconds in all and by stage, seconds of audio."""
        speech = self.synthesizer.speak_tokens(tokens, self.settings)
        return {
            "seconds": speech.seconds,
            "stages": speech.stages,
            "audio_seconds": speech.audio_seconds,
        }

    def decode(self, text: str, tokens: Sequence[int]) -> dict[str, Any]:
        """Seconds of the language model before the first of given tokens, and for each of them."""
        loaded = self.synthesizer.loaded
        decoder = loaded.decoder
        decoder.decoder.reset()
        seconds = []
        block = decoder.prefix(loaded.frontend.ids(text), [], [])
        for token in tokens:
            start = time.perf_counter()
            decoder.decoder.run({"embeddings": block})
            block = decoder.embed_speech([token])
            seconds.append(time.perf_counter() - start)
        return {"prefill": seconds[0], "tokens": seconds[1:]}

    def whole(self, text: str, overlap: bool) -> float:
        """Seconds for a text of several utterances."""
        settings = replace(self.settings, overlap=overlap)
        return float(self.synthesizer.speak(text, settings).seconds)

    def at_once(self, texts: Sequence[str], count: int) -> dict[str, Any]:
        """Texts spoken by `count` callers at once: wall seconds, seconds of each, audio seconds."""

        def spoken(text: str) -> tuple[float, float]:
            start = time.perf_counter()
            speech = self.synthesizer.speak(text, self.settings)
            return time.perf_counter() - start, speech.audio_seconds

        start = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(spoken, texts))
        wall = time.perf_counter() - start
        latencies, audio = zip(*found, strict=True)
        return {"wall": wall, "latencies": list(latencies), "audio": sum(audio)}

    def cpu_seconds(self) -> float:
        """User and system time of this process so far."""
        times = os.times()
        return times.user + times.system

    def first_audio(self, text: str) -> float:
        """Seconds until a stream's first audio; the rest is not made."""
        with self.synthesizer.stream(text, self.settings) as stream:
            next(iter(stream))
        return stream.speech.first_audio_seconds

    def play(self, text: str, number: int) -> dict[str, Any]:
        """What somebody hears of a stream of a text, with a seed for each number."""
        settings = replace(self.settings, seed=self.settings.seed + number)
        rate, start = self.synthesizer.sample_rate, time.perf_counter()
        with self.synthesizer.stream(text, settings) as stream:
            arrivals = [(time.perf_counter() - start, len(chunk) / rate) for chunk in stream]
        return asdict(played(arrivals))

    def masks(self) -> dict[str, int]:
        """Where the threads of this process may run."""
        return dict(affinity.observe(self.spec.plan.cpus).masks)

    def memory(self, text: str) -> dict[str, Any]:
        """Peak of the process so far, and by stage while it speaks a text."""
        from edgepack.runtime.loading import session_of, with_session
        from edgepack.runtime.memory import peak_rss_bytes, restart_peak
        from edgepack.runtime.watch import Watched

        peak = peak_rss_bytes()
        peaks: dict[str, int] = {}

        def note(stage: str, seconds: float, feeds: Any, outputs: Any) -> None:
            """The peak since the call before of any network."""
            peaks[stage] = max(peaks.get(stage, 0), peak_rss_bytes())
            restart_peak()

        loaded = self.synthesizer.loaded
        if restart_peak():
            for stage in loaded.bundle.manifest.stages:
                noting = Watched(stage, session_of(loaded, stage), [note])
                loaded = with_session(loaded, stage, noting)
            type(self.synthesizer)(loaded, self.synthesizer.clock).speak(text, self.settings)
        by = {
            stage: {"loaded_bytes": size, "peak_bytes": peaks.get(stage)}
            for stage, size in self.loaded_by.items()
        }
        return {
            "loaded_bytes": self.loaded_bytes,
            "peak_bytes": max([peak, *peaks.values()]),
            "stages": by,
        }

    def operators(self) -> dict[str, dict[str, float]] | str:
        """Seconds by stage and operator type, or why there are none."""
        from edgepack.runtime.loading import session_of

        found = {}
        loaded = self.synthesizer.loaded
        for stage in loaded.bundle.manifest.stages:
            seconds = session_of(loaded, stage).operators()
            if seconds is None:
                return f"the Python package of {self.spec.runtime} gives no times of operators"
            found[stage] = seconds
        return found
