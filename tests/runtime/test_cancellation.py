"""A request is ended from another thread, whatever it is doing, and the next one is as good."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import LIMIT, PATIENCE, Asking, no_thread_left
from fakes import Changed
from support import RUNTIMES, Build

from edgepack.errors import CancelledError
from edgepack.runtime import cancellation
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.loading import session_of, with_session
from edgepack.runtime.synthesizer import LoadOptions, Settings, Synthesizer

TEXT = "今天天气很好，我们一起去公园散步。" * 2 + "明天早上还要去上班。"
SPOKEN = "今天天气很好。"
PLAIN = Settings(seed=4)
# What a request is doing, by the network that is called.
STATES = {
    "decoding": "speech_lm",
    "encoding tokens": "flow_encoder",
    "in the solver": "flow_estimator",
    "vocoding": "hift",
}


@pytest.fixture(scope="module", params=RUNTIMES)
def subject(request: pytest.FixtureRequest, bundle: Build) -> Synthesizer:
    return Synthesizer.load(bundle("demo"), request.param, 2)


@pytest.fixture(scope="module")
def ort(bundle: Build) -> Synthesizer:
    return Synthesizer.load(bundle("demo"), "ort", 2)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with no_thread_left():
        yield


def slowed(subject: Synthesizer, stage: str) -> tuple[Synthesizer, threading.Event]:
    """The same with a network whose calls last until they are interrupted; and when one began."""
    begun = threading.Event()

    def last(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        ended = threading.Event()
        with cancellation.interruptible(ended.set):
            begun.set()
            assert ended.wait(PATIENCE)
            raise RuntimeError("the engine's own error")

    session = Changed(session_of(subject.loaded, stage), last)
    return Synthesizer(with_session(subject.loaded, stage, session), subject.clock), begun


def noting(subject: Synthesizer, stage: str) -> tuple[Synthesizer, threading.Event]:
    """The same, and when it called a network."""
    called = threading.Event()

    def note(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        called.set()
        return outputs

    session = Changed(session_of(subject.loaded, stage), note)
    return Synthesizer(with_session(subject.loaded, stage, session), subject.clock), called


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("stage", STATES.values(), ids=STATES)
def test_an_utterance_ends_during_a_long_call(ort: Synthesizer, stage: str, overlap: bool) -> None:
    slow, begun = slowed(ort, stage)
    token = Cancellation()
    asking = Asking(lambda: slow.speak(TEXT * 3, replace(PLAIN, overlap=overlap), token))
    assert begun.wait(PATIENCE)
    asking.cancelled(token.cancel)
    assert len(slow._idle) == 1


@pytest.mark.parametrize("stage", STATES.values(), ids=STATES)
def test_a_stream_ends_during_a_long_call(ort: Synthesizer, stage: str) -> None:
    slow, begun = slowed(ort, stage)
    stream = slow.stream(TEXT, PLAIN)
    asking = Asking(lambda: list(stream))
    assert begun.wait(PATIENCE)
    asking.cancelled(stream.cancel)
    assert len(slow._idle) == 1


@pytest.mark.parametrize("stage", STATES.values(), ids=STATES)
def test_an_utterance_ends_wherever_it_is_and_the_next_is_as_good(
    subject: Synthesizer, stage: str
) -> None:
    wanted = subject.speak(SPOKEN, PLAIN).audio
    busy, called = noting(subject, stage)
    token = Cancellation()
    asking = Asking(lambda: busy.speak(TEXT * 4, PLAIN, token))
    assert called.wait(PATIENCE)
    asking.cancelled(token.cancel)
    np.testing.assert_array_equal(busy.speak(SPOKEN, PLAIN).audio, wanted)
    assert len(busy._idle) == 1


@pytest.mark.parametrize("how", ["its own", "a token"])
def test_a_stream_ends_wherever_it_is_and_the_next_is_as_good(
    subject: Synthesizer, how: str
) -> None:
    def streamed() -> np.ndarray:
        with subject.stream(SPOKEN, PLAIN) as stream:
            return np.concatenate(list(stream))

    wanted = streamed()
    token = Cancellation()
    with subject.stream(TEXT * 4, PLAIN, token) as stream:
        next(stream)
        asking = Asking(lambda: list(stream))
        asking.cancelled(stream.cancel if how == "its own" else token.cancel)
    assert token.cancelled == (how == "a token")
    assert len(stream.speech.utterances) >= 1
    np.testing.assert_array_equal(streamed(), wanted)


def test_a_stream_that_nobody_reads_stops_decoding(ort: Synthesizer) -> None:
    token = Cancellation()
    with ort.stream(TEXT * 4, PLAIN, token) as stream:
        token.cancel()
        stream._making.decoding._thread.join(LIMIT)
        assert not stream._making.decoding._thread.is_alive()
        with pytest.raises(CancelledError):
            next(stream)
        assert list(stream) == []


def test_a_stream_whose_text_does_not_come_is_cancelled(ort: Synthesizer) -> None:
    more = threading.Event()

    def pieces() -> Iterator[str]:
        yield SPOKEN
        more.wait(PATIENCE)

    stream = ort.stream(pieces(), PLAIN)
    asking = Asking(lambda: list(stream))
    time.sleep(0.2)
    asking.cancelled(stream.cancel)
    more.set()


def test_of_two_streams_of_a_token_one_is_cancelled_alone(ort: Synthesizer) -> None:
    token = Cancellation()
    with ort.stream(SPOKEN, PLAIN, token) as one, ort.stream(SPOKEN, PLAIN, token) as other:
        one.cancel()
        with pytest.raises(CancelledError):
            list(one)
        assert sum(map(len, other)) > 0


@pytest.mark.parametrize("memory", ["low"])
def test_a_request_that_waits_for_its_turn_is_cancelled(bundle: Build, memory: str) -> None:
    subject = Synthesizer.load(bundle("demo"), "ort", 1, options=LoadOptions(memory=memory))
    token = Cancellation()
    with subject._speaker():  # somebody else's turn
        asking = Asking(lambda: subject.speak(SPOKEN, PLAIN, token))
        time.sleep(0.2)
        asking.cancelled(token.cancel)
    assert subject.speak(SPOKEN, PLAIN).audio_seconds > 0.3


@pytest.mark.parametrize("stage", ["speech_lm", "flow_estimator", "hift"])
def test_with_litert_a_request_that_waits_for_a_network_is_cancelled(
    bundle: Build, stage: str
) -> None:
    subject = Synthesizer.load(bundle("demo"), "tflite", 1)
    token = Cancellation()
    with session_of(subject.loaded, stage).turn():  # another utterance has it
        asking = Asking(lambda: subject.speak(SPOKEN, PLAIN, token))
        time.sleep(0.2)
        asking.cancelled(token.cancel)
    assert subject.speak(SPOKEN, PLAIN).audio_seconds > 0.3


def test_what_is_cancelled_beforehand_is_not_begun(subject: Synthesizer) -> None:
    token = Cancellation()
    token.cancel()
    busy, called = noting(subject, "speech_lm")
    for request in (busy.speak, busy.stream):
        with pytest.raises(CancelledError):
            request(SPOKEN, PLAIN, token)
    with pytest.raises(CancelledError):
        busy.speak_tokens([1, 2, 3], PLAIN, token)
    assert not called.is_set()
    assert len(busy._idle) == 1


def test_tokens_are_cancelled(ort: Synthesizer) -> None:
    slow, begun = slowed(ort, "hift")
    token = Cancellation()
    asking = Asking(lambda: slow.speak_tokens([1, 2, 3] * 20, PLAIN, token))
    assert begun.wait(PATIENCE)
    asking.cancelled(token.cancel)


def test_the_token_of_the_callers_block_counts(ort: Synthesizer) -> None:
    token = Cancellation()
    token.cancel()
    with cancellation.working(token), pytest.raises(CancelledError):
        ort.speak(SPOKEN, PLAIN)
    assert ort.speak(SPOKEN, PLAIN).audio_seconds > 0.3
