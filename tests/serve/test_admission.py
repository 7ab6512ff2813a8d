"""Many requests at once: who is spoken, who waits, who is told to come later, who leaves."""

import gc
import socket
import struct
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest
from served import LONG, Serve, Served, within

from edgepack.serve.flights import Flight, Flights
from edgepack.serve.options import RequestLimits, running_for, waiting_for

IN_FLIGHT = "edgepack_requests_in_flight"
QUEUED = "edgepack_requests_queued"


def leave(connection: HTTPConnection) -> None:
    """Reset a connection, as a client that is killed does."""
    assert connection.sock
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sock.close()
    connection.close()


def idle(served: Served) -> bool:
    return served.metric(IN_FLIGHT) == served.metric(QUEUED) == 0


@pytest.mark.parametrize("ending", ["spoken", "refused", "left"])
def test_audio_is_freed_when_nobody_hears_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Without the garbage collector, which large arrays do not call."""
    flights: list[weakref.ref[Flight]] = []
    begin = Flights.begin

    def noting(self: Flights, *given: Any, **more: Any) -> Flight:
        flight = begin(self, *given, **more)
        flights.append(weakref.ref(flight))
        return flight

    monkeypatch.setattr(Flights, "begin", noting)
    found = serve(
        cache_bytes=0, limits=RequestLimits(audio_seconds=0.1 if ending == "refused" else 60)
    )
    gc.disable()
    try:
        if ending == "left":
            connection = found.begin(LONG)
            within(10, lambda: found.metric(IN_FLIGHT) == 1)
            leave(connection)
        else:
            answer = found.speak("Good morning.", stream=False)
            assert (answer.status == 200) == (ending == "spoken")
        within(10, lambda: idle(found) and all(flight() is None for flight in flights))
    finally:
        gc.enable()
    assert len(flights) == 1


def test_exactly_the_surplus_is_told_to_come_later(serve: Serve) -> None:
    found = serve(running=1, waiting=2)
    connections = [found.begin(f"{number}. {LONG}") for number in range(3)]
    within(10, lambda: found.metric(IN_FLIGHT) + found.metric(QUEUED) == 3)
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: found.speak(f"Surplus {n}."), range(4)))
    took = time.monotonic() - start
    assert [answer.status for answer in answers] == [429] * 4
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in answers)
    assert {answer.error["code"] for answer in answers} == {"rate_limit_exceeded"}
    assert took < 2  # at once, though the CPUs are busy
    assert (found.metric(IN_FLIGHT), found.metric(QUEUED)) == (1, 2)
    for connection in connections:
        leave(connection)
    within(10, lambda: idle(found))
    assert found.speak("Good morning.").status == 200
    assert found.metric('edgepack_requests_total{format="mp3",outcome="busy"}') == 4


def test_the_time_until_a_place_is_free_is_that_of_whole_syntheses(serve: Serve) -> None:
    """Those that were cut short tell nothing of it."""
    found = serve(running=1, waiting=0)
    for number in range(12):
        connection = found.begin(f"{number}. {LONG}")
        within(10, lambda: found.metric(IN_FLIGHT) == 1)
        leave(connection)
        within(10, lambda: idle(found))
    connection = found.begin(LONG)
    within(10, lambda: found.metric(IN_FLIGHT) == 1)
    assert found.speak("Good morning.").headers["retry-after"] == "2"  # as before any was measured
    leave(connection)
    within(10, lambda: idle(found))


def test_who_leaves_the_queue_makes_room_and_the_next_is_spoken(serve: Serve) -> None:
    found = serve(running=1, waiting=1)
    first = found.begin(LONG)
    within(10, lambda: found.metric(IN_FLIGHT) == 1)
    second = found.begin(f"2. {LONG}")
    within(10, lambda: found.metric(QUEUED) == 1)
    assert found.speak("Good morning.").status == 429
    leave(second)
    within(5, lambda: found.metric(QUEUED) == 0)
    third = found.begin("Good morning.")
    within(10, lambda: found.metric(QUEUED) == 1)
    leave(first)
    response = third.getresponse()
    assert response.status == 200
    assert len(response.read()) > 10_000
    third.close()
    within(10, lambda: idle(found))


@pytest.mark.parametrize("state", ["before-audio", "while-it-sounds", "whole"])
def test_speaking_stops_when_the_client_has_gone(serve: Serve, state: str) -> None:
    found = serve()
    connection = found.begin(LONG, stream=state != "whole")
    within(10, lambda: found.metric(IN_FLIGHT) == 1)
    if state == "while-it-sounds":
        assert connection.getresponse().read(1000)
    time.sleep(0.5)
    leave(connection)
    took = within(10, lambda: found.metric(IN_FLIGHT) == 0)
    assert took < 2  # of about half a minute that the text takes
    within(5, lambda: found.metric("edgepack_cancelled_total") == 1)
    assert found.metric('edgepack_requests_total{format="pcm",outcome="left"}') == 1
    assert found.metric("edgepack_cache_bytes") == 0
    within(10, lambda: not _speaking())


def test_a_synthesis_goes_on_for_whom_is_left(serve: Serve) -> None:
    found = serve(running=1, waiting=0)
    text = "Good morning, and how are you today? " * 4
    first = found.begin(text)
    within(10, lambda: found.metric(IN_FLIGHT) == 1)
    second = found.begin(text)
    response = second.getresponse()
    assert response.status == 200  # there is no second place: it is the same synthesis
    leave(first)
    heard = response.read()
    second.close()
    assert len(heard) > 100_000
    assert found.metric('edgepack_cache_requests_total{result="joined"}') == 1
    assert found.metric("edgepack_cancelled_total") == 0
    assert found.speak(text, response_format="pcm").body == heard


def test_listeners_at_once_share_a_synthesis_in_every_format(serve: Serve) -> None:
    found = serve(running=1, waiting=0, cache_bytes=0)
    kinds = ["mp3", "opus", "flac", "wav", "pcm", "pcm"]
    text = "Good morning, and how are you today? " * 3
    with ThreadPoolExecutor(len(kinds)) as pool:
        asked = [pool.submit(found.speak, text, response_format=kind) for kind in kinds]
        answers = [one.result() for one in asked]
    assert [answer.status for answer in answers] == [200] * 6
    assert answers[3].body[44:] == answers[4].body == answers[5].body
    assert found.metric('edgepack_cache_requests_total{result="miss"}') == 1
    assert found.metric('edgepack_cache_requests_total{result="joined"}') == 5


def test_a_turn_that_does_not_come_is_given_up(serve: Serve) -> None:
    found = serve(running=1, waiting=1, limits=RequestLimits(queue_seconds=0.3))
    first = found.begin(LONG)
    within(10, lambda: found.metric(IN_FLIGHT) == 1)
    answer = found.speak("Good morning.")
    assert (answer.status, answer.error["code"]) == (503, "queue_timeout")
    assert answer.headers["retry-after"] == "1"
    leave(first)
    within(10, lambda: idle(found))


def test_a_client_that_does_not_read_is_given_up(serve: Serve) -> None:
    # The silence is more than the system keeps for a client.
    found = serve(limits=RequestLimits(send_seconds=0.5), lead_seconds=200)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", found.port))
    connection = HTTPConnection("127.0.0.1", found.port)
    connection.sock = slow
    body = f'{{"model": "demo", "input": "{LONG}", "response_format": "pcm"}}'
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    within(60, lambda: found.metric('edgepack_requests_total{format="pcm",outcome="left"}') == 1)
    within(10, lambda: idle(found))
    connection.close()


def test_the_server_says_that_it_lives_while_it_is_busy(serve: Serve) -> None:
    found = serve(running=2, waiting=2)
    connections = [found.begin(f"{number}. {LONG}", response_format="opus") for number in range(2)]
    within(10, lambda: found.metric(IN_FLIGHT) == 2)
    slow = min(_ninety_ninth(found) for _ in range(3))  # other processes want the CPUs, too
    assert slow <= 0.1
    assert found.get("/health/ready").status == 200
    assert found.metric(IN_FLIGHT) == 2  # they were spoken all the while
    for connection in connections:
        leave(connection)
    within(10, lambda: idle(found))


def test_nothing_is_left_of_many_requests(serve: Serve) -> None:
    found = serve(running=2, waiting=8, cache_bytes=0)
    assert found.speak("Good morning.").status == 200
    within(10, lambda: not _speaking())
    threads = threading.active_count()

    def ask(number: int) -> int:
        if number % 3:
            return found.speak(f"Good morning, {number}.").status
        connection = found.begin(f"{number}. {LONG}")
        time.sleep(0.2)
        leave(connection)
        return 0

    with ThreadPoolExecutor(4) as pool:
        statuses = Counter(pool.map(ask, range(12)))
    assert statuses == {200: 8, 0: 4}
    within(20, lambda: idle(found) and not _speaking())
    within(20, lambda: threading.active_count() <= threads + 4)  # of the loop's own pool


def _ninety_ninth(served: Served) -> float:
    """Of a hundred times that the server takes to say that it lives, the second longest."""
    times = []
    for _ in range(100):
        start = time.monotonic()
        assert served.get("/health/live").status == 200
        times.append(time.monotonic() - start)
    return sorted(times)[-2]


def _speaking() -> list[str]:
    """Threads of syntheses that there are."""
    names = ("edgepack-speaking", "edgepack-lm")
    return [thread.name for thread in threading.enumerate() if thread.name in names]


def test_bounds_follow_the_threads_of_the_plan() -> None:
    assert [running_for(threads) for threads in (1, 2, 3, 4, 8)] == [1, 1, 1, 2, 4]
    assert waiting_for(2) == 8
