"""Speech over Wyoming, asked for by the client of its own package."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from served import LONG, MODEL
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from edgepack.errors import UsageError
from edgepack.runtime import guards
from edgepack.runtime.audio.sound_file import sixteen_bits
from edgepack.runtime.synthesizer import Settings, Synthesizer
from edgepack.serve import server
from edgepack.serve.options import RequestLimits, ServeOptions
from edgepack.serve.service import Service
from edgepack.serve.wyoming import address
from edgepack.serve.wyoming.listener import Listener
from edgepack.serve.wyoming.texts import ArrivingText

TEXT = "Good morning. How are you?"
SECONDS = 60


@asynccontextmanager
async def listening(
    *synthesizers: Synthesizer, **options: Any
) -> AsyncIterator[tuple[Service, AsyncTcpClient]]:
    """A listener in this event loop, and a client of it."""
    names = [MODEL, "another"][: len(synthesizers)]
    service = Service(dict(zip(names, synthesizers, strict=True)), ServeOptions(**options))
    with server.bound("127.0.0.1", 0) as opened:
        listener = Listener(service, opened)
        await listener.start()
        try:
            async with client(opened.getsockname()[1]) as found:
                yield service, found
        finally:
            await listener.stop(1)


def client(port: int) -> AsyncTcpClient:
    return AsyncTcpClient("127.0.0.1", port, read_timeout=SECONDS)


def beside(one: AsyncTcpClient) -> AsyncTcpClient:
    """Another client of the same server."""
    return client(one.port)


async def tell(to: AsyncTcpClient, *said: Eventable) -> None:
    for one in said:
        await to.write_event(one.event())


async def events(of: AsyncTcpClient, last: type[Eventable] = AudioStop) -> list[Event]:
    """What comes until an event of a kind, an error or the end of the connection."""
    found: list[Event] = []
    while (event := await of.read_event()) is not None:
        found.append(event)
        if last.is_type(event.type) or Error.is_type(event.type):
            break
    return found


def samples(of: list[Event]) -> np.ndarray:
    start, *chunks, _ = [event for event in of if not SynthesizeStopped.is_type(event.type)]
    begun = AudioStart.from_event(start)
    assert (begun.rate, begun.width, begun.channels) == (24_000, 2, 1)
    return np.frombuffer(b"".join(AudioChunk.from_event(one).audio for one in chunks), "<i2")


def spoken(synthesizer: Synthesizer, text: str, **settings: Any) -> np.ndarray:
    """The samples of a text as `run --stream` has them."""
    with synthesizer.stream(text, Settings(**settings)) as stream:
        return sixteen_bits(np.concatenate(list(stream)))


def running(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test in an event loop of its own, which takes the fixture `synthesizer`."""

    def run(synthesizer: Synthesizer) -> None:
        asyncio.run(asyncio.wait_for(test(synthesizer), SECONDS))

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


async def settled(reached: Callable[[], bool], seconds: float) -> float:
    start = time.monotonic()
    while not reached():
        assert time.monotonic() - start < seconds
        await asyncio.sleep(0.01)
    return time.monotonic() - start


def outcomes(service: Service, outcome: str) -> float:
    labels = {"outcome": outcome, "format": "wyoming"}
    return service.metrics.registry.get_sample_value("edgepack_requests_total", labels) or 0.0


@running
async def test_voices_are_described_with_their_languages(synthesizer: Synthesizer) -> None:
    async with listening(synthesizer) as (_, found):
        await tell(found, Describe(), Ping(text="there?"))
        (program,) = Info.from_event((await events(found, Info))[0]).tts
        assert [Pong.from_event(one).text for one in await events(found, Pong)] == ["there?"]
    assert program.installed
    assert program.supports_synthesize_streaming
    assert [voice.name for voice in program.voices] == ["espeak_female", "espeak_male"]
    languages = synthesizer.loaded.bundle.manifest.languages
    assert all(voice.languages == list(languages) for voice in program.voices)
    assert all(voice.attribution.name and voice.installed for voice in program.voices)


@running
async def test_a_text_has_the_samples_of_run(synthesizer: Synthesizer) -> None:
    async with listening(synthesizer) as (service, found):
        await tell(found, Synthesize(text=TEXT))
        heard = samples(await events(found))
        await tell(found, Synthesize(text=TEXT, voice=SynthesizeVoice(name="espeak_male")))
        other = samples(await events(found))
        await settled(lambda: outcomes(service, "ok") == 2, 5)
    assert np.array_equal(heard, spoken(synthesizer, TEXT))
    assert np.array_equal(other, spoken(synthesizer, TEXT, voice="espeak_male"))


@running
async def test_sentences_of_several_pieces_are_spoken_while_more_comes(
    synthesizer: Synthesizer,
) -> None:
    async with listening(synthesizer, lead_seconds=0.1) as (_, found):
        await tell(found, SynthesizeStart(), SynthesizeChunk(text="Good mor"))
        await tell(found, SynthesizeChunk(text="ning. It is 21.5 de"))
        first = await events(found, AudioChunk)  # and the rest has not come
        await tell(found, SynthesizeChunk(text="grees. :-) "), Synthesize(text="All of it."))
        await tell(found, SynthesizeStop())
        every = first + await events(found, SynthesizeStopped)
    assert [AudioStop.is_type(event.type) for event in every[-2:]] == [True, False]
    wanted = [spoken(synthesizer, text) for text in ("Good morning.", "It is 21.5 degrees. :-)")]
    assert np.array_equal(samples(every), np.concatenate([np.zeros(2400, "<i2"), *wanted]))


def test_sentences_do_not_depend_on_the_pieces() -> None:
    async def cut(pieces: list[str]) -> list[str]:
        text = ArrivingText(None, streamed=True)
        for piece in pieces:
            text.add(piece)
        text.end()
        return [sentence async for sentence in text.sentences()]

    text = "It is 3.5 m. Then 你好。 再见！ ... 😀 Well? Yes"
    found = asyncio.run(cut([text]))
    assert found == asyncio.run(cut(list(text)))
    assert found == ["It is 3.5 m.", "Then 你好。", "再见！", "... 😀 Well?", "Yes"]
    endless = asyncio.run(cut(["and so on " * 100] * 10))
    assert max(map(len, endless)) < 6000
    assert "".join("".join(endless).split()) == "andsoon" * 1000
    assert max(map(len, asyncio.run(cut(["A. " * 100] * 40)))) < 6000


@running
async def test_a_text_without_sound_has_an_end(synthesizer: Synthesizer) -> None:
    async with listening(synthesizer) as (_, found):
        await tell(found, SynthesizeStart(), SynthesizeChunk(text="😀 ... "), SynthesizeStop())
        kinds = [event.type for event in await events(found, SynthesizeStopped)]
        assert kinds == ["audio-start", "audio-stop", "synthesize-stopped"]
        await tell(found, Synthesize(text="..."))
        (refused,) = await events(found)
    assert Error.from_event(refused).code == "usage"


@running
async def test_speaking_stops_when_the_client_has_gone(synthesizer: Synthesizer) -> None:
    times = []
    async with listening(synthesizer, waiting=3) as (service, found):
        for state in ("before-audio", "while-it-sounds", "queued"):
            others = [beside(found) for _ in range(2 if state == "queued" else 1)]
            for number, one in enumerate(others):
                await one.connect()
                await tell(one, Synthesize(text=f"{state} {number}. {LONG}"))
                await settled(lambda: service.admission.running == 1, 10)
            if state == "while-it-sounds":
                await events(others[0], AudioChunk)
            if state == "queued":
                await settled(lambda: service.admission.waiting == 1, 10)
                await others.pop().disconnect()
                times.append(await settled(lambda: service.admission.waiting == 0, 10))
                assert service.admission.running == 1
            await asyncio.sleep(0.2)
            await others[0].disconnect()
            times.append(await settled(lambda: service.admission.running == 0, 10))
        await settled(lambda: outcomes(service, "left") == 4, 5)
        assert [one.name for one in threading.enumerate() if one.name == "edgepack-speaking"] == []
        await tell(found, Synthesize(text=TEXT))
        assert len(samples(await events(found))) > 24_000
    assert sorted(times)[2] < 0.5  # of half a minute; other processes want the CPUs, too
    assert max(times) < 2


@running
async def test_who_finds_no_place_is_told(synthesizer: Synthesizer) -> None:
    async with listening(synthesizer, running=1, waiting=0) as (service, found):
        async with beside(found) as first:
            await tell(first, SynthesizeStart(), SynthesizeChunk(text=f"{LONG}. Then "))
            await settled(lambda: service.admission.running == 1, 10)
            start = time.monotonic()
            await tell(found, Synthesize(text=TEXT))
            (busy,) = await events(found)
            assert Error.from_event(busy).code == "rate_limit_exceeded"
            assert time.monotonic() - start < 2
            assert await found.read_event() is None  # Home Assistant would read on
        await settled(lambda: outcomes(service, "busy") == 1, 5)


@running
async def test_a_text_that_was_begun_goes_on_when_others_have_come(
    synthesizer: Synthesizer,
) -> None:
    async with listening(synthesizer, running=1, waiting=0) as (service, found):
        await tell(found, SynthesizeStart(), SynthesizeChunk(text="Good morning. And "))
        first = await events(found, AudioChunk)
        await settled(lambda: service.admission.running == 0, 20)
        async with beside(found) as other:
            await tell(other, Synthesize(text=TEXT * 4))
            await settled(lambda: service.admission.running == 1, 10)
            await tell(found, SynthesizeChunk(text="good night."), SynthesizeStop())
            every = first + await events(found, SynthesizeStopped)
            assert len(samples(await events(other))) > 96_000
    wanted = [spoken(synthesizer, text) for text in ("Good morning.", "And good night.")]
    assert np.array_equal(samples(every), np.concatenate(wanted))


@running
async def test_voices_of_several_bundles_have_the_names_of_both(synthesizer: Synthesizer) -> None:
    async with listening(synthesizer, synthesizer, cache_bytes=0) as (_, found):
        await tell(found, Describe())
        (program,) = Info.from_event((await events(found, Info))[0]).tts
        names = ["espeak_female", "espeak_male"]
        wanted = [f"{model}/{name}" for model in (MODEL, "another") for name in names]
        assert [voice.name for voice in program.voices] == wanted
        for voice in (
            SynthesizeVoice(name="another/espeak_female"),
            SynthesizeVoice(language="en-GB"),
        ):
            await tell(found, Synthesize(text="Good morning.", voice=voice))
            heard = samples(await events(found))
            assert np.array_equal(heard, spoken(synthesizer, "Good morning."))


@pytest.mark.parametrize(
    ("voice", "said"),
    [
        (SynthesizeVoice(name="alloy"), "unknown voice 'alloy'"),
        (SynthesizeVoice(name="../secret"), "unknown voice"),
        (SynthesizeVoice(language="tlh"), "no bundle here speaks 'tlh'"),
    ],
)
def test_unknown_voices_are_refused(
    synthesizer: Synthesizer, voice: SynthesizeVoice, said: str
) -> None:
    async def ask() -> Error:
        async with listening(synthesizer) as (_, found):
            await tell(found, Synthesize(text=TEXT, voice=voice))
            return Error.from_event((await events(found))[-1])

    assert said in asyncio.run(ask()).text


def test_a_fault_ends_with_an_error(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "faults", lambda *audio, **counts: ["silence: made up"])

    async def ask() -> tuple[list[Event], float]:
        async with listening(synthesizer) as (service, found):
            await tell(found, Synthesize(text=TEXT))
            return await events(found), outcomes(service, "cut")

    heard, cut = asyncio.run(ask())
    assert Error.from_event(heard[-1]).code == "faulty_audio"
    assert cut == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n",
        b"[]\n",
        b"{}\n",
        b'{"type": "synthesize"}\n',
        b'{"type": "synthesize", "data": {"text": 3}}\n',
        b'{"type": "synthesize", "data_length": 10000000000}\n',
        b'{"type": "synthesize", "payload_length": 70000}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 300_000,
    ],
    ids=range(9),
)
def test_what_is_no_event_ends_the_connection(synthesizer: Synthesizer, sent: bytes) -> None:
    async def ask() -> bytes:
        async with listening(synthesizer) as (_, found):
            reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
            writer.write(sent)
            async with asyncio.timeout(10):
                answer = await reader.read()
            writer.close()
            await tell(found, Ping())
            assert len(await events(found, Pong)) == 1
            return answer

    try:
        assert asyncio.run(ask()) == b""
    except ConnectionResetError:  # there was more to read
        assert len(sent) > 100_000


@running
async def test_more_text_than_can_wait_is_refused(synthesizer: Synthesizer) -> None:
    async with listening(synthesizer, limits=RequestLimits(body_bytes=2000)) as (_, found):
        await tell(found, *[Synthesize(text=f"{number}. {LONG[:900]}") for number in range(5)])
        last = (await events(found))[-1]
    assert "more than 2000 characters" in Error.from_event(last).text


@running
async def test_more_texts_than_can_wait_are_refused(synthesizer: Synthesizer) -> None:
    async with listening(synthesizer) as (_, found):
        await tell(found, *[SynthesizeStart() for _ in range(100)])
        refused = [one for one in await events(found, Error) if Error.is_type(one.type)]
        while not refused:
            refused = [one for one in await events(found, Error) if Error.is_type(one.type)]
    assert "64 texts" in Error.from_event(refused[0]).text


@running
async def test_marks_are_not_read_out(synthesizer: Synthesizer) -> None:
    async with listening(synthesizer) as (_, found):
        await tell(found, Synthesize(text="<speak>Hi.</speak>", text_format="ssml"))
        refused = Error.from_event((await events(found))[-1])
    assert "ssml is not read; send plain text" in refused.text


def test_a_client_that_does_not_read_is_given_up(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    async def endless(*asked: Any, **more: Any) -> AsyncIterator[np.ndarray]:
        try:
            while True:
                yield np.zeros(100_000, "<i2")
        finally:
            ended.append(True)

    monkeypatch.setattr(Service, "audio", endless)

    async def ask() -> None:
        limits = RequestLimits(send_seconds=0.3)
        async with listening(synthesizer, limits=limits) as (service, found):
            await tell(found, Synthesize(text=TEXT))
            await settled(lambda: outcomes(service, "left") == 1, SECONDS)
            assert ended == [True]

    asyncio.run(ask())


def test_addresses_are_loopback_unless_everybody_may_speak() -> None:
    assert address.read("tcp://127.0.0.1:10200", everybody=False) == ("127.0.0.1", 10200)
    assert address.read("tcp://[::1]:0", everybody=False) == ("::1", 0)
    assert address.read("tcp://0.0.0.0:1", everybody=True) == ("0.0.0.0", 1)
    with pytest.raises(UsageError, match=r"no keys.*--wyoming-open"):
        address.read("tcp://0.0.0.0:1", everybody=False)
    for wrong in ("10200", "127.0.0.1:10200", "tcp://127.0.0.1", "tcp://h:x", "udp://h:1"):
        with pytest.raises(UsageError, match="write tcp://HOST:PORT"):
            address.read(wrong, everybody=True)
