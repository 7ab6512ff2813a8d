"""What `/metrics` tells, in the format of Prometheus. No text, voice or key is in it."""

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

import edgepack
from edgepack.energy.measurement import Measurement
from edgepack.errors import GateError
from edgepack.runtime import guards
from edgepack.runtime.speech import Speech
from edgepack.serve.flights import Flight

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0)
_FACTORS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_ROWS = (1, 2, 4, 6, 8, 12, 16, 32, 64)


class Metrics:
    """Counters and histograms of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to: dict[str, Any] = {"namespace": "edgepack", "registry": self.registry}
        self.requests = Counter(
            "requests",
            "Requests for speech by how they ended: ok, refused, busy, failed, cut after the first "
            "byte, or left by the client",
            ["outcome", "format"],
            **to,
        )
        self._in_flight = Gauge("requests_in_flight", "Texts that are being spoken", **to)
        self._queued = Gauge("requests_queued", "Texts that wait for their turn", **to)
        self._queue_seconds = Histogram(
            "queue_seconds", "Waiting for the turn", buckets=_SECONDS, **to
        )
        self.first_audio = Histogram(
            "first_audio_seconds",
            "From the arrival of a request to its first audio, waiting included",
            buckets=_SECONDS,
            **to,
        )
        self._factor = Histogram(
            "real_time_factor", "Synthesis seconds a second of audio", buckets=_FACTORS, **to
        )
        self.underrun = Histogram(
            "underrun_seconds",
            "Silence in a player that began with the first audio of a stream",
            buckets=(0.001, *_SECONDS),
            **to,
        )
        self._audio = Counter("audio_seconds", "Audio that was made", **to)
        self._stages = Counter("stage_seconds", "Wall seconds in networks", ["stage"], **to)
        self._rows = Histogram(
            "batch_rows",
            "Utterances that the language model decoded in one call with one at most, itself "
            "included",
            buckets=_ROWS,
            **to,
        )
        self._cancelled = Counter("cancelled", "Syntheses that nobody waited for any more", **to)
        self._faults = Counter("faults", "Faults of audio", ["kind"], **to)
        self.cache_requests = Counter(
            "cache_requests", "Requests by where their audio was: hit, joined or miss",
            ["result"], **to,
        )  # fmt: skip
        self.cache_faults = Counter(
            "cache_faults", "Times that the cache in Redis failed, which are misses", **to
        )
        self._cache_bytes = Gauge("cache_bytes", "Bytes of finished speech that are kept", **to)
        Info("build", "This version", **to).info({"version": edgepack.__version__})

    def watch(
        self,
        in_flight: Callable[[], float],
        queued: Callable[[], float],
        cache_bytes: Callable[[], float],
    ) -> None:
        """Read these when somebody asks for the metrics."""
        self._in_flight.set_function(in_flight)
        self._queued.set_function(queued)
        self._cache_bytes.set_function(cache_bytes)

    def measure(self, energy: Measurement) -> None:
        """Tell of a measurement of energy that has begun, what it has come to."""
        self.registry.register(_Energy(energy))

    def ended(self, flight: Flight) -> None:
        """Count a synthesis that came to its end, whatever that was."""
        if flight.queued is not None:
            self._queue_seconds.observe(flight.queued)
        rate = flight.order.synthesizer.sample_rate
        self._audio.inc(sum(map(len, flight.pieces)) / rate)
        if flight.abandoned:
            self._cancelled.inc()
        if isinstance(flight.error, GateError):
            self._fault(str(flight.error))
        if flight.speech is not None:
            self._spoken(flight.speech)

    def _spoken(self, speech: Speech) -> None:
        self._factor.observe(speech.real_time_factor)
        for stage, seconds in speech.stages.items():
            self._stages.labels(stage).inc(seconds)
        for utterance in speech.utterances:
            self._rows.observe(utterance.decoded.rows)
        for fault in speech.faults:
            self._fault(fault)

    def _fault(self, fault: str) -> None:
        kind = "not finite" if fault == guards.NOT_FINITE else fault.partition(":")[0]
        self._faults.labels(kind.replace(" ", "_")).inc()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)


class _Energy(Collector):
    """Joules of the meter's scope since the server began; no sample before there is a value."""

    def __init__(self, measurement: Measurement) -> None:
        self._measurement = measurement

    def collect(self) -> Iterator[CounterMetricFamily]:
        """As Prometheus' client asks for it."""
        family = CounterMetricFamily(
            "edgepack_energy_joules",
            "Energy since the server began, of all that the meter measures",
            labels=["method", "scope", "quality"],
        )
        found = self._measurement.so_far()
        if found.joules is not None:
            family.add_metric([found.method, found.scope, found.quality], found.joules)
        yield family
