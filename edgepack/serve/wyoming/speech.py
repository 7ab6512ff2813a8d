"""Texts as audio events, spoken by the service that HTTP has."""

import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Eventable
from wyoming.tts import SynthesizeStopped

from edgepack.serve.refusal import RefusalError, refusal_of
from edgepack.serve.request import SpeechRequest
from edgepack.serve.service import Service
from edgepack.serve.wyoming.texts import ArrivingText
from edgepack.serve.wyoming.voices import chosen

FORMAT = "wyoming"  # in metrics
_CHUNK_SECONDS = 0.1
_BYTES = 2  # of a sample


@dataclass
class Answer:
    """The events for one text. Everything of it stops when `give` is cancelled."""

    service: Service
    text: ArrivingText
    send: Callable[[Eventable], Awaitable[None]]
    _rate: int = field(default=0)  # of the audio that was begun

    async def give(self) -> None:
        """Speak it; raises RefusalError, of which the client has not been told."""
        outcome = "left"
        try:
            await self._speak()
            outcome = "ok"
        except RefusalError as refusal:
            outcome = "cut" if self._rate else refusal.outcome
            raise
        except OSError:  # the client has gone
            raise
        except Exception as error:
            outcome = "failed"
            raise refusal_of(error) from error
        finally:
            self.service.metrics.requests.labels(outcome, FORMAT).inc()

    async def _speak(self) -> None:
        model, voice = chosen(self.service.models, self.text.voice)
        rate = self.service.models[model].synthesizer.sample_rate
        async for sentence in self.text.sentences():
            asked = SpeechRequest(model=model, input=sentence, voice=voice, response_format="pcm")
            arrived = time.monotonic()
            async with aclosing(self.service.audio(asked, again=bool(self._rate))) as audio:
                async for samples in audio:
                    if not self._rate:
                        self.service.metrics.first_audio.observe(time.monotonic() - arrived)
                        await self._begin(rate)
                        lead = self.service.lead(self.service.models[model])
                        samples = np.concatenate([lead, samples])
                    await self._chunks(samples)
        if not self._rate:
            await self._begin(rate)
        await self.send(AudioStop())
        if self.text.streamed:
            await self.send(SynthesizeStopped())

    async def _begin(self, rate: int) -> None:
        self._rate = rate
        await self.send(AudioStart(rate=rate, width=_BYTES, channels=1))

    async def _chunks(self, samples: np.ndarray) -> None:
        length = round(_CHUNK_SECONDS * self._rate)
        for start in range(0, len(samples), length):
            data = samples[start : start + length].tobytes()
            await self.send(AudioChunk(rate=self._rate, width=_BYTES, channels=1, audio=data))
