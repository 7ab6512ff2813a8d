"""Hundreds of requests, some of which are left or refused, take nothing that is not given back."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
import pytest
from served import Served, Start, within

REQUESTS, WARM, CALLERS = 500, 50, 2
TEXT = "Good morning."


@dataclass(frozen=True)
class Held:
    """What the server's process has while nobody asks: bytes of memory, threads, open files."""

    memory: int
    threads: int
    files: int


def held(process: psutil.Process, served: Served) -> Held:
    within(20, lambda: served.metric("edgepack_requests_in_flight") == 0)
    return Held(process.memory_info().rss, process.num_threads(), process.num_fds())


def ask(served: Served, number: int) -> None:
    """Every seventh is left after its first samples, every ninth cannot be answered."""
    if number % 9 == 0:
        faulty = random.Random(number).choice(
            [{"model": "nobody"}, {"input": ""}, {"voice": "nobody"}, {"response_format": "midi"}]
        )
        body = {"model": served.model, "input": TEXT, "response_format": "pcm", **faulty}
        assert 400 <= served.post(body).status < 500
        return
    connection = served.begin(TEXT, seed=number)
    try:
        response = connection.getresponse()
        assert response.status == 200
        heard = response.read(1000 if number % 7 == 0 else None)
        assert len(heard) > 10_000 or number % 7 == 0
    finally:
        connection.close()


@pytest.mark.slow
def test_hundreds_of_requests_leave_no_memory_thread_or_file_behind(program: Start) -> None:
    process, _, served = program("--cache-mb", "0", "--running", str(CALLERS), "--energy", "none")
    server = psutil.Process(process.pid)
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda n: ask(served, n), range(WARM)))
        before = held(server, served)
        list(pool.map(lambda n: ask(served, n), range(WARM, REQUESTS)))
        after = held(server, served)
    assert after.memory <= 1.05 * before.memory
    assert after.threads <= before.threads + CALLERS  # of pools, which grow with callers at once
    assert after.files <= before.files + CALLERS
