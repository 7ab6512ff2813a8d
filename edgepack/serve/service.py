"""What finds the audio of a request: kept, on its way to somebody else, or to be made now."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve import encoding, redis_store
from edgepack.serve.admission import Admission, no_turn
from edgepack.serve.cache import Cache, FolderStore, MemoryStore, Spoken, Store
from edgepack.serve.flights import Flight, Flights
from edgepack.serve.metrics import Metrics
from edgepack.serve.models import ServedModel, named
from edgepack.serve.options import ServeOptions
from edgepack.serve.redis_store import RedisStore
from edgepack.serve.refusal import RefusalError, refusal_of
from edgepack.serve.request import SpeechRequest
from edgepack.serve.speaking import Order


@dataclass(frozen=True)
class WantedSpeech:
    """What a request asks for: its model, the key and order of the audio, which may be `kept`."""

    model: ServedModel
    key: str
    order: Order
    kept: Spoken | None


class Service:
    """Everything that requests share. Its methods are called in the event loop."""

    def __init__(self, synthesizers: Mapping[str, Synthesizer], options: ServeOptions) -> None:
        self.options, self.metrics = options, Metrics()
        self.models = {name: ServedModel.of(name, one) for name, one in synthesizers.items()}
        self.admission = Admission(options.running, options.waiting)
        self._cache = Cache(self._store())
        self._flights = Flights(self.admission, options.limits.queue_seconds, self._ended)
        self.metrics.watch(
            lambda: self.admission.running, lambda: self.admission.waiting, lambda: self._cache.size
        )

    def _store(self) -> Store:
        """Where finished speech is kept; raises UsageError or OSError if it cannot be there."""
        options = self.options
        if options.cache_url and options.cache_bytes:
            client = redis_store.connected(options.cache_url)
            return RedisStore(client, options.cache_bytes, self.metrics.cache_faults.inc)
        if options.cache_folder:
            return FolderStore(options.cache_folder, options.cache_bytes)
        return MemoryStore(options.cache_bytes)

    async def look(self, asked: SpeechRequest) -> WantedSpeech:
        """What a request wants, with its audio if that is kept; raises RefusalError."""
        model = named(self.models, asked.model)
        return await asyncio.to_thread(self._look, model, asked)

    def _look(self, model: ServedModel, asked: SpeechRequest) -> WantedSpeech:
        settings = asked.settings(strict=self.options.strict)
        whole = not asked.stream or asked.speed != 1.0 or model.synthesizer.loaded.low_memory
        key = model.key(asked, settings, whole=whole)
        most = self.options.limits.audio_seconds
        order = Order(model.synthesizer, asked.input, settings, whole, most)
        kept = self._cache.spoken(key)
        if kept is not None:
            self.metrics.cache_requests.labels("hit").inc()
        return WantedSpeech(model, key, order, kept)

    def flight(self, wanted: WantedSpeech, *, again: bool = False) -> Flight:
        """The synthesis of what is not kept: that of others, or a new one.

        Who calls this has to be listening before the next `await`, or it may be abandoned by then.
        Raises RefusalError if there is no place for a new one (`Admission.enter`).
        """
        joined = self._flights.joined(wanted.key)
        result = "miss" if joined is None else "hit" if joined.ended else "joined"
        self.metrics.cache_requests.labels(result).inc()
        return joined or self._flights.begin(wanted.key, wanted.order, again=again)

    async def audio(
        self, asked: SpeechRequest, *, again: bool = False
    ) -> AsyncGenerator[np.ndarray]:
        """The audio of a request as it comes, int16 [n] each; raises RefusalError.

        To be closed: when its last listener has gone, a synthesis stops.
        """
        wanted = await self.look(asked)
        if wanted.kept:
            yield wanted.kept.audio
            return
        flight, count = self.flight(wanted, again=again), 0
        with flight.listening():
            while await flight.after(count):
                pieces = flight.pieces[count:]
                count += len(pieces)
                yield np.concatenate(pieces)
            require(flight)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place among the syntheses for other work; raises RefusalError if there is none."""
        seconds = self.options.limits.queue_seconds
        place = self.admission.enter()
        try:
            try:
                async with asyncio.timeout(seconds):
                    await place.turn()
            except TimeoutError:
                raise no_turn(seconds) from None
            yield
        finally:
            place.leave(measured=False)

    async def _ended(self, flight: Flight) -> None:
        self.metrics.ended(flight)
        spoken = spoken_by(flight)
        if spoken is not None:
            await asyncio.to_thread(self._cache.keep, flight.key, spoken)

    def encoded(self, model: ServedModel, key: str | None, spoken: Spoken, kind: str) -> bytes:
        """A whole utterance in a format, kept under `key` if that is given.

        To be called in a thread, as it takes a while.
        """
        rate = model.synthesizer.sample_rate
        lead = self.lead(model)
        audio = np.concatenate([lead, spoken.audio])
        if key is None or kind in ("pcm", "wav"):
            return encoding.whole(kind, rate, audio)
        form = f"{kind} {encoding.SETTINGS} {len(lead)}"
        data = self._cache.encoded(key, form)
        if data is None:
            data = encoding.whole(kind, rate, audio)
            self._cache.keep_encoded(key, form, data)
        return data

    def lead(self, model: ServedModel) -> np.ndarray:
        """The silence before an utterance, int16 [n]."""
        return np.zeros(round(self.options.lead_seconds * model.synthesizer.sample_rate), "<i2")


def require(flight: Flight) -> None:
    """Raise the error of a flight that ended with one, as RefusalError."""
    if isinstance(flight.error, RefusalError):
        raise flight.error.again()
    if flight.error:
        raise refusal_of(flight.error) from flight.error


def spoken_by(flight: Flight) -> Spoken | None:
    """What a flight made, if it is whole and without a fault."""
    speech = flight.speech
    if speech is None or speech.faults:
        return None
    return heard(flight)


def heard(flight: Flight) -> Spoken:
    """What a flight made, as far as it came."""
    samples = b"".join(piece.tobytes() for piece in flight.pieces)
    decoded = [utterance.decoded for utterance in flight.speech.utterances] if flight.speech else []
    return Spoken(
        samples,
        sum(len(one.text_ids) for one in decoded),
        sum(len(one.speech_tokens) for one in decoded),
    )
