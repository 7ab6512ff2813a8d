"""Whatever becomes of an utterance or a stream, the next one has its networks to itself."""

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import Changed

from edgepack.bundle.bundle import Bundle
from edgepack.errors import GateError
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.loading import session_of, with_session
from edgepack.runtime.streaming import SpeechStream
from edgepack.runtime.synthesizer import Settings, Synthesizer

LONG = "今天天气很好，我们一起去公园散步。" * 6
SPOKEN = "明天见。"
PLAIN = Settings(seed=4)
LIMIT_SECONDS = 30


class TakingTurns(Synthesizer):
    """As on a GPU: whoever wants to speak waits until nobody does."""

    concurrent = False


@pytest.fixture(scope="module", params=["ort", "tflite"])
def subject(request: pytest.FixtureRequest, int8_demo: Bundle) -> Synthesizer:
    return Synthesizer.load(int8_demo.folder, request.param, 2)


@pytest.fixture(scope="module")
def ort(int8_demo: Bundle) -> Synthesizer:
    return Synthesizer.load(int8_demo.folder, "ort", 2)


def failing_once(subject: Synthesizer) -> Synthesizer:
    """The subject with a vocoder whose first audio is broken.

    By then a second sentence has been begun, and is far from its end.
    """
    begun: list[int] = []
    faulty = threading.Event()

    def broken(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        first, audio = not faulty.is_set(), outputs["audio"]
        faulty.set()
        return {**outputs, "audio": np.full_like(audio, np.nan) if first else audio}

    def slow(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        begun.extend([1] * (feeds["embeddings"].shape[1] > 1))
        if len(begun) == 2:
            faulty.wait(LIMIT_SECONDS)
            time.sleep(0.002)
        return outputs

    loaded = subject.loaded
    for stage, change in (("hift", broken), ("speech_lm", slow)):
        loaded = with_session(loaded, stage, Changed(session_of(loaded, stage), change))
    return Synthesizer(loaded, subject.clock)


def decoding() -> bool:
    return "edgepack-lm" in {thread.name for thread in threading.enumerate()}


def test_after_a_fault_of_sentences_decoded_ahead_the_next_utterance_is_clean(
    subject: Synthesizer,
) -> None:
    wanted = subject.speak(SPOKEN, PLAIN).audio
    broken = failing_once(subject)
    try:
        broken.speak(LONG, replace(PLAIN, overlap=True))
    except GateError:
        assert not decoding()
        assert len(broken._idle) == 1
        np.testing.assert_array_equal(broken.speak(SPOKEN, PLAIN).audio, wanted)
    else:
        pytest.fail("the planted fault was not found")


def test_after_a_fault_of_a_stream_the_next_utterance_is_clean(subject: Synthesizer) -> None:
    wanted = subject.speak(SPOKEN, PLAIN).audio
    broken = failing_once(subject)
    stream = broken.stream(LONG, PLAIN)
    try:
        list(stream)
    except GateError:
        assert not decoding()
        assert len(broken._idle) == 1
        np.testing.assert_array_equal(broken.speak(SPOKEN, PLAIN).audio, wanted)
    else:
        pytest.fail("the planted fault was not found")


def read(stream: SpeechStream) -> SpeechStream:
    list(stream)
    return stream


def cut(stream: SpeechStream) -> SpeechStream:
    next(stream)
    stream.close()
    return stream


def cancelled(stream: SpeechStream) -> SpeechStream:
    """Closed by another thread than reads it."""
    next(stream)
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    stream.close()
    reader.join(LIMIT_SECONDS)
    assert not reader.is_alive()
    return stream


def unread(stream: SpeechStream) -> None:
    """Dropped before anything of it was read."""


def dropped(stream: SpeechStream) -> None:
    next(iter(stream))


def collected(stream: SpeechStream) -> None:
    """In a circle of objects, which only the garbage collector frees."""
    circle: list[object] = [stream]
    circle.append(circle)
    next(stream)
    del circle, stream


@pytest.mark.parametrize("way", [read, cut, cancelled, unread, dropped, collected])
def test_where_callers_take_turns_the_next_one_gets_its_turn(
    ort: Synthesizer, way: Callable[[SpeechStream], SpeechStream | None]
) -> None:
    subject = TakingTurns(ort.loaded, ort.clock)
    held = [way(subject.stream(LONG if way is not read else SPOKEN, PLAIN))]
    gc.collect()
    found: list[np.ndarray] = []
    caller = threading.Thread(target=lambda: found.append(subject.speak(SPOKEN, PLAIN).audio))
    caller.daemon = True
    caller.start()
    caller.join(LIMIT_SECONDS)
    assert found
    np.testing.assert_array_equal(found[0], ort.speak(SPOKEN, PLAIN).audio)
    assert not decoding()
    assert len(subject._idle) == 1
    del held


def test_a_stream_in_a_loop_is_read_to_its_end(ort: Synthesizer) -> None:
    """Nothing but the loop has it."""
    wanted = ort.stream(SPOKEN, PLAIN)
    whole = np.concatenate(list(wanted))
    chunks = []
    for chunk in ort.stream(SPOKEN, PLAIN):
        gc.collect()
        chunks.append(chunk)
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_text_that_never_comes_keeps_nobody(ort: Synthesizer) -> None:
    """A stream is closed while it waits for text: nothing of that text is decoded later."""
    comes = threading.Event()

    def pieces() -> Any:
        comes.wait(LIMIT_SECONDS)
        yield LONG

    subject = TakingTurns(ort.loaded, ort.clock)
    with subject.stream(pieces(), PLAIN):
        pass
    wanted = ort.speak(SPOKEN, PLAIN).audio
    decoder = subject.loaded.decoder.language_model
    before = decoder.caches()
    comes.set()
    for thread in threading.enumerate():
        if thread.name == "edgepack-lm":
            thread.join(LIMIT_SECONDS)
    for name, value in decoder.caches().items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(subject.speak(SPOKEN, PLAIN).audio, wanted)
