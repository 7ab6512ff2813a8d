"""One client of Wyoming: its events are read while it is answered, so that it is known to be there.

After an error event the connection is closed: clients such as Home Assistant's read on otherwise.
"""

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, async_write_event
from wyoming.info import Describe
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeTextFormat,
)

from edgepack.serve.refusal import RefusalError
from edgepack.serve.service import Service
from edgepack.serve.wyoming import voices
from edgepack.serve.wyoming.speech import Answer
from edgepack.serve.wyoming.texts import ArrivingText

_TEXTS = 64  # of a connection, at once
# What comes of reading an event that is none, or of a client that has gone.
_NO_EVENT = (ValueError, LookupError, TypeError, AttributeError, RecursionError, EOFError, OSError)


@dataclass
class _Bounded:
    """A reader of events that refuses to hold more than `most` bytes of one."""

    reader: asyncio.StreamReader
    most: int

    async def readline(self) -> bytes:
        return await self.reader.readline()

    async def readexactly(self, count: int) -> bytes:
        if count > self.most:
            raise ValueError("an event is too large")
        return await self.reader.readexactly(count)


@dataclass
class Connection:
    """A client; `run` ends when it has gone, or was told of an error."""

    service: Service
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _texts: asyncio.Queue[ArrivingText] = field(default_factory=asyncio.Queue)
    _unfinished: list[ArrivingText] = field(default_factory=list)
    _arriving: ArrivingText | None = None

    @property
    def busy(self) -> bool:
        """Whether a text of it is being spoken, or waits."""
        return bool(self._unfinished)

    async def run(self) -> None:
        """Answer until the client has gone; what is spoken for it then stops."""
        working = [asyncio.create_task(self._read()), asyncio.create_task(self._speak())]
        try:
            await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            self.writer.close()

    async def _read(self) -> None:
        """Take events until there are no more, or one that is none."""
        most = self.service.options.limits.body_bytes
        reader = cast(asyncio.StreamReader, _Bounded(self.reader, most))
        try:
            while (event := await async_read_event(reader)) is not None:
                await self._take(event)
                waiting = sum(text.waiting for text in self._unfinished)
                if waiting > most or len(self._unfinished) > _TEXTS:
                    message = f"more than {most} characters, or {_TEXTS} texts, wait; send less"
                    raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        except RefusalError as refusal:
            await self._refuse(refusal)
        except _NO_EVENT:
            return

    async def _take(self, event: Event) -> None:
        """Answer an event, or note what it adds to be spoken; unknown ones are nothing."""
        if Describe.is_type(event.type):
            await self._send(await voices.info(self.service.models))
        elif Ping.is_type(event.type):
            await self._send(Pong(text=Ping.from_event(event).text))
        elif SynthesizeStart.is_type(event.type):
            self._end()
            start = SynthesizeStart.from_event(event)
            _require_plain(start)
            self._arriving = ArrivingText(start.voice, streamed=True)
            self._add(self._arriving)
        elif SynthesizeChunk.is_type(event.type) and self._arriving:
            self._arriving.add(_text(event))
        elif SynthesizeStop.is_type(event.type):
            self._end()
        # Between start and stop it is the same text again, for servers that know no pieces.
        elif Synthesize.is_type(event.type) and not self._arriving:
            asked = Synthesize.from_event(event)
            _require_plain(asked)
            self._add(ArrivingText.whole(_text(event), asked.voice))

    def _add(self, text: ArrivingText) -> None:
        self._unfinished.append(text)
        self._texts.put_nowait(text)

    def _end(self) -> None:
        if self._arriving:
            self._arriving.end()
            self._arriving = None

    async def _speak(self) -> None:
        """Speak texts in their order, until one fails or the client does not read."""
        while True:
            text = await self._texts.get()
            try:
                await Answer(self.service, text, self._send).give()
            except RefusalError as refusal:
                await self._refuse(refusal)
                return
            except OSError:
                return
            finally:
                self._unfinished.remove(text)

    async def _refuse(self, refusal: RefusalError) -> None:
        try:
            await self._send(Error(text=str(refusal), code=refusal.code))
        except OSError:
            return

    async def _send(self, said: Eventable) -> None:
        """Send an event; raises OSError if the client has gone, or does not read."""
        patience = self.service.options.limits.send_seconds
        try:
            async with asyncio.timeout(patience):
                await async_write_event(said.event(), self.writer)
        except TimeoutError:  # which is an OSError, too
            self.writer.transport.abort()
            raise


def _require_plain(asked: Synthesize | SynthesizeStart) -> None:
    """Raise RefusalError for a text with marks that would be read out."""
    kind = asked.text_format
    if kind not in (None, SynthesizeTextFormat.TEXT):
        named = kind.value if isinstance(kind, SynthesizeTextFormat) else kind
        message = f"{named} is not read; send plain text"
        raise RefusalError(HTTPStatus.BAD_REQUEST, message, code="unsupported_format")


def _text(event: Event) -> str:
    """The text of an event; raises TypeError if it is none."""
    text = event.data["text"]
    if not isinstance(text, str):
        raise TypeError("text has to be a string")
    return text
