"""A process that has one bundle in one runtime and speaks on demand.

Each subject has its own, so that memory is its own and thread pools do not meet.
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.bundle import voices
from edgepack.machine.cpu import affinity
from edgepack.machine.cpu.plan import CpuPlan
from edgepack.process import interrupts
from edgepack.process.isolation import portable
from edgepack.runtime.audio.underruns import underruns


@dataclass(frozen=True)
class Spec:
    """What to load and how to speak: bundle, runtime, voice (None for its default), CPUs, seed.

    With `strict` faulty audio is an error; tuning and random weights do without.
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
    batch: int | None = None


@dataclass(frozen=True)
class Failed:
    """An error as an answer, with its traceback as text."""

    error: Exception
    trace: str


def serve(pipe: Connection, spec: Spec) -> None:
    """Load, then answer requests (name, arguments) until there are no more."""
    if parent := multiprocessing.parent_process():
        interrupts.end_with(parent.pid or 0)
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent has gone
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
        from edgepack.bundle.bundle import open_bundle
        from edgepack.machine.memory import keep_few_kernels, return_large_blocks, rss_bytes
        from edgepack.runtime.engines.quiet import hush
        from edgepack.runtime.gpu.placement import Wanted
        from edgepack.runtime.synthesizer import LoadOptions, Settings, Synthesizer

        return_large_blocks()
        keep_few_kernels()
        hush(open_bundle(spec.bundle), spec.runtime)
        self.loaded_by: dict[str, int] = {}
        last = rss_bytes()

        def on_stage(stage: str) -> None:
            nonlocal last
            now = rss_bytes()
            self.loaded_by[stage] = max(0, now - last)  # it may have freed more
            last = now

        start = time.perf_counter()
        self.synthesizer = Synthesizer.load(
            spec.bundle,
            spec.runtime,
            options=LoadOptions(
                plan=spec.plan,
                profile=spec.profile,
                wanted=Wanted(spec.provider, spec.allow_fallback),
                on_stage=on_stage,
                batch=spec.batch,
            ),
        )
        self.load_seconds = time.perf_counter() - start
        self.loaded_bytes = rss_bytes()
        self.settings = Settings(
            voice=spec.voice, seed=spec.seed, solver=spec.solver, strict=spec.strict
        )
        self.spec = spec

    def described(self) -> dict[str, Any]:
        """What was loaded: engine, threads, seconds, bytes, providers and solver."""
        from edgepack.runtime.engines.session import engine

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
        """Speak a text as a whole; timings."""
        speech = self.synthesizer.speak(text, self.settings)
        return {
            "text": text,
            "audio_seconds": speech.audio_seconds,
            "seconds": speech.seconds,
            "stages": speech.stages,
            "speech_tokens": sum(len(u.decoded.speech_tokens) for u in speech.utterances),
        }

    def sound(self, tokens: Sequence[int]) -> dict[str, Any]:
        """Make audio of given speech tokens: seconds in all and by stage, seconds of audio."""
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
        decoder.language_model.reset()
        seconds = []
        block = decoder.prefix(loaded.frontend.ids(text))
        for token in tokens:
            start = time.perf_counter()
            decoder.language_model.run({"embeddings": block})
            block = decoder.embed_speech([token])
            seconds.append(time.perf_counter() - start)
        return {"prefill": seconds[0], "tokens": seconds[1:]}

    def stream(self, text: str, tokens: Sequence[int]) -> dict[str, Any]:
        """Stream given tokens, each of which is decoded all the same, to a simulated player.

        Wall and processor seconds, seconds of audio, first audio, gaps and their seconds.
        """
        from edgepack.runtime.streaming import Decoding, Making, Sentence
        from edgepack.verification.speaking import condition

        loaded = self.synthesizer.loaded
        decoder = loaded.decoder
        ids = loaded.frontend.ids(text)
        _, voice = voices.read(loaded.bundle, self.settings.voice)

        def given(sentence: Sentence) -> Generator[int, None, None]:
            decoder.language_model.reset()
            block = decoder.prefix(ids)
            for token in tokens:
                decoder.language_model.run({"embeddings": block})
                yield token
                block = decoder.embed_speech([token])

        def noise(number: int) -> np.random.Generator:
            return np.random.default_rng([self.settings.seed, number])

        processor = self.cpu_seconds()
        with closing(Decoding([Sentence(given)])) as decoding:
            making = Making(loaded, decoding, condition(voice), noise, self.settings)
            for _ in making.chunks():
                pass
        heard = underruns(making.arrivals)
        return {
            "seconds": making.seconds,
            "cpu_seconds": self.cpu_seconds() - processor,
            "audio_seconds": heard.audio,
            "first_audio_seconds": heard.first or 0.0,
            "waits": heard.count,
            "waited_seconds": heard.seconds,
        }

    def whole(self, text: str, overlap: bool) -> float:
        """Seconds for a text of several utterances."""
        settings = replace(self.settings, overlap=overlap)
        return float(self.synthesizer.speak(text, settings).seconds)

    def at_once(self, texts: Sequence[str], count: int) -> dict[str, Any]:
        """Texts spoken by `count` callers at once: seconds of all and each, audio seconds, rows."""

        def spoken(text: str) -> tuple[float, float, int]:
            start = time.perf_counter()
            speech = self.synthesizer.speak(text, self.settings)
            return time.perf_counter() - start, speech.audio_seconds, speech.rows

        start = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(spoken, texts))
        wall = time.perf_counter() - start
        latencies, audio, rows = zip(*found, strict=True)
        measured = {"wall": wall, "latencies": list(latencies), "audio": sum(audio)}
        return {**measured, "rows": max(rows)}

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
        """Stream a text to a simulated player; the seed depends on `number`."""
        settings = replace(self.settings, seed=self.settings.seed + number)
        with self.synthesizer.stream(text, settings) as stream:
            for _ in stream:
                pass
        heard = underruns(stream.speech.arrivals)
        return {
            "first_audio_seconds": heard.first or 0.0,
            "audio_seconds": heard.audio,
            "waits": heard.count,
            "waited_seconds": heard.seconds,
        }

    def masks(self) -> dict[str, int]:
        """Where the threads of this process may run."""
        return dict(affinity.observe(self.spec.plan.cpus).masks)

    def memory(self, text: str) -> dict[str, Any]:
        """Peak of the process so far, and by stage while it speaks a text."""
        from edgepack.machine.memory import peak_rss_bytes, restart_peak
        from edgepack.runtime.engines.watch import Watched
        from edgepack.runtime.loading import session_of, with_session

        peak = peak_rss_bytes()
        peaks: dict[str, int] = {}

        def note(stage: str, seconds: float, feeds: Any, outputs: Any) -> None:
            """Record the peak since the previous call of any network, and reset it."""
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

    def operators(self) -> tuple[dict[str, dict[str, float]], dict[str, list[str]]]:
        """Seconds by stage and operator type, and by engine the stages that it gave no times of."""
        from edgepack.runtime.loading import session_of

        found: dict[str, dict[str, float]] = {}
        missing: dict[str, list[str]] = {}
        loaded = self.synthesizer.loaded
        for name, stage in loaded.bundle.manifest.stages.items():
            if seconds := session_of(loaded, name).operators():
                found[name] = seconds
            else:
                engine = stage.variants[self.spec.runtime].engine or self.spec.runtime
                missing.setdefault(engine, []).append(name)
        return found, missing
