"""Texts that clients send: at once, or in pieces, which are put together to sentences.

A sentence is spoken when it is complete, as a text of its own. So numbers are read out, and it
sounds the same in whatever pieces it came, also with models that read a text as a whole.
"""

import asyncio
from collections.abc import AsyncIterator

from sentence_stream import SentenceBoundaryDetector
from wyoming.tts import SynthesizeVoice

_LONGEST = 4096  # characters without an end of a sentence


class ArrivingText:
    """One text, by the sentences that it is known to have; `streamed` is whether it is in pieces.

    `waiting` is how many of its characters were not taken yet.
    """

    def __init__(self, voice: SynthesizeVoice | None, *, streamed: bool) -> None:
        self.voice, self.streamed = voice, streamed
        self.waiting = 0
        self._pieces = SentenceBoundaryDetector()
        self._sentences: asyncio.Queue[str | None] = asyncio.Queue()

    @staticmethod
    def whole(text: str, voice: SynthesizeVoice | None) -> "ArrivingText":
        """A text that is spoken as it is."""
        found = ArrivingText(voice, streamed=False)
        found._put(text)
        found._sentences.put_nowait(None)
        return found

    def add(self, piece: str) -> None:
        """More of it."""
        for sentence in self._pieces.add_chunk(piece):
            self._put_heard(sentence)
        unknown = len(self._pieces.current_sentence) + len(self._pieces.remaining_text)
        if unknown > _LONGEST:
            self._put_heard(self._pieces.finish())

    def end(self) -> None:
        """That was all of it."""
        self._put_heard(self._pieces.finish())
        self._sentences.put_nowait(None)

    def _put_heard(self, sentence: str) -> None:
        """Add a sentence that has a letter or a number; others, such as a smile, have no sound."""
        if any(map(str.isalnum, sentence)):
            self._put(sentence)

    def _put(self, sentence: str) -> None:
        self.waiting += len(sentence)
        self._sentences.put_nowait(sentence)

    async def sentences(self) -> AsyncIterator[str]:
        """What to speak, one after the other, as it becomes known."""
        while (sentence := await self._sentences.get()) is not None:
            self.waiting -= len(sentence)
            yield sentence
