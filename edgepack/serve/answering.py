"""`POST /v1/audio/speech`: the answer, as a stream of audio or of events, or as a whole.

This talks to the server directly, without a framework's response classes: theirs wait in a
`finally` for work that nobody hears any more. Here a client that leaves ends the `with` of the
synthesis at once, whatever was awaited.
"""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from edgepack.runtime.audio.underruns import Underruns
from edgepack.serve import request as requests
from edgepack.serve.cache import Spoken
from edgepack.serve.encoding import Encoder, media_type
from edgepack.serve.flights import Flight
from edgepack.serve.models import ServedModel
from edgepack.serve.refusal import RefusalError, refusal_of
from edgepack.serve.request import SpeechRequest
from edgepack.serve.service import Service, heard, require

T = TypeVar("T")
_DELTA_BYTES = 32 * 1024  # of audio in one event, where all of it is there


@dataclass(frozen=True)
class SpeechEndpoint:
    """The ASGI app of the route."""

    service: Service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises RefusalError as long as nothing was sent."""
        arrived = time.monotonic()
        kind, outcome = "none", "failed"
        try:
            asked = await requests.read(Request(scope, receive), self.service.options.limits)
            kind = asked.response_format
            gone = asyncio.ensure_future(_left(receive))
            try:
                answer = _Answer(self.service, asked, _Client(gone, send, self._patience), arrived)
                outcome = await answer.give()
            finally:
                gone.cancel()
        except (ClientDisconnect, asyncio.CancelledError):
            outcome = "left"
            raise
        except _LeftError:
            outcome = "left"
        except RefusalError as refusal:
            outcome = refusal.outcome
            raise
        finally:
            self.service.metrics.requests.labels(outcome, kind).inc()

    @property
    def _patience(self) -> float:
        return self.service.options.limits.send_seconds


class _LeftError(Exception):
    """The client has gone, or does not read."""


async def _left(receive: Receive) -> None:
    """Wait until the client has gone; its body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True)
class _Client:
    """Who is answered: ends what is awaited when it has gone."""

    gone: asyncio.Future[None]
    send: Send
    patience: float

    async def awaiting(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; raises _LeftError if the client goes before."""
        task = asyncio.ensure_future(work)
        try:
            waited: set[asyncio.Future[Any]] = {task, self.gone}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _LeftError
            return task.result()
        finally:
            task.cancel()

    async def start(self, kind: str, length: int | None = None) -> None:
        """Send the status and headers of an answer with a body of a MIME type."""
        headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        message = {"type": "http.response.start", "status": 200, "headers": headers}
        await self._send(message)

    async def body(self, data: bytes, *, more: bool) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _send(self, message: dict[str, Any]) -> None:
        if self.gone.done():
            raise _LeftError
        try:
            await asyncio.wait_for(self.send(message), self.patience)
        except TimeoutError:  # it is connected, and does not read
            raise _LeftError from None


@dataclass
class _Answer:
    """One answer; `give` returns its outcome for the metrics."""

    service: Service
    asked: SpeechRequest
    client: _Client
    arrived: float
    _player: Underruns = field(default_factory=Underruns)

    async def give(self) -> str:
        """Answer, from what is kept or while it is made."""
        wanted = await self.client.awaiting(self.service.look(self.asked))
        model, key = wanted.model, wanted.key
        if wanted.kept:
            self._heard(model, wanted.kept.audio)
            return await self._whole(model, key, wanted.kept)
        flight = self.service.flight(wanted)
        with flight.listening():
            if flight.order.whole or flight.ended:  # it ended, and is about to be kept
                await self.client.awaiting(flight.end())
            elif await self.client.awaiting(flight.after(0)):
                return await self._stream(model, flight)
            require(flight)
            spoken = heard(flight)
            self._heard(model, spoken.audio)
            faultless = flight.speech is not None and not flight.speech.faults
            return await self._whole(model, key if faultless else None, spoken, flight)

    async def _whole(
        self, model: ServedModel, key: str | None, spoken: Spoken, flight: Flight | None = None
    ) -> str:
        """All of it, with its length; `flight` is the synthesis, unless it was kept."""
        kind = self.asked.response_format
        work = asyncio.to_thread(self.service.encoded, model, key, spoken, kind)
        data = await self.client.awaiting(work)
        if self.asked.stream_format == "audio":
            await self.client.start(media_type(kind, model.synthesizer.sample_rate), len(data))
            await self.client.body(data, more=False)
            return "ok"
        await self.client.start("text/event-stream")
        for at in range(0, len(data), _DELTA_BYTES):
            await self.client.body(_delta(data[at : at + _DELTA_BYTES]), more=True)
        await self.client.body(_done(spoken, flight), more=False)
        return "ok"

    async def _stream(self, model: ServedModel, flight: Flight) -> str:
        """Audio as it comes; a fault after its beginning is an event, or cuts the connection."""
        events = self.asked.stream_format == "sse"
        kind = self.asked.response_format
        rate = model.synthesizer.sample_rate
        await self.client.start("text/event-stream" if events else media_type(kind, rate))
        async with aclosing(self._encoded(model, flight)) as encoded:
            async for data in encoded:
                await self.client.body(_delta(data) if events else data, more=True)
        self.service.metrics.underrun.observe(self._player.seconds)
        if flight.error:
            if events:
                await self.client.body(_failed(refusal_of(flight.error)), more=False)
            return "cut"  # without an end of the body, which the client can tell
        await self.client.body(_done(heard(flight), flight) if events else b"", more=False)
        return "ok"

    async def _encoded(self, model: ServedModel, flight: Flight) -> AsyncGenerator[bytes]:
        """What can be sent, until the flight ends; encoded in threads, not in the event loop."""
        encoder = Encoder(self.asked.response_format, model.synthesizer.sample_rate)
        lead, count = self.service.lead(model), 0
        while await self.client.awaiting(flight.after(count)):
            pieces = flight.pieces[count:]
            count += len(pieces)
            samples = np.concatenate([lead, *pieces])
            self._heard(model, samples)
            lead = lead[:0]
            if data := await self.client.awaiting(asyncio.to_thread(encoder.add, samples)):
                yield data
        if not flight.error and (
            data := await self.client.awaiting(asyncio.to_thread(encoder.finish))
        ):
            yield data

    def _heard(self, model: ServedModel, samples: np.ndarray) -> None:
        """Note when audio is there, and how much later than a player needs it."""
        now = time.monotonic()
        if self._player.first is None:
            self.service.metrics.first_audio.observe(now - self.arrived)
        self._player.add(now, len(samples) / model.synthesizer.sample_rate)


def _event(kind: str, **fields: Any) -> bytes:
    return b"data: " + msgspec.json.encode({"type": kind, **fields}) + b"\n\n"


def _delta(audio: bytes) -> bytes:
    return _event("speech.audio.delta", audio=base64.b64encode(audio).decode())


def _done(spoken: Spoken, flight: Flight | None) -> bytes:
    """The last event: what OpenAI counts, and what the synthesis took, unless it was kept."""
    given, made = spoken.input_tokens, spoken.output_tokens
    usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
    fields: dict[str, Any] = {"usage": usage}
    if flight and flight.speech:
        fields["synthesis"] = {
            "queued_seconds": flight.queued,
            "seconds": flight.speech.seconds,
            "stages": flight.speech.stages,
        }
    return _event("speech.audio.done", **fields)


def _failed(refusal: RefusalError) -> bytes:
    return _event("speech.audio.error", **refusal.body)
