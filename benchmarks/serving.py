"""How fast a served bundle answers: callers at once, kept speech, and its health under load.

    python benchmarks/serving.py BUNDLE [--callers 1,2,4,8] [--rounds 3] [--requests 4]
        [--serve "--format ort"] [--with "--running 2"] [--text FILE] [-o TABLE.md]

`edgepack serve` runs in a process of its own, without a cache. So many callers ask it for PCM at
once, each for REQUESTS texts one after the other, a line of FILE each. First audio is the time from
sending a request until the first samples are there, its wait for a turn included; throughput is
seconds of audio a second, over the median round. `--serve` has options for every server. Each
`--with` is one server more with these options, which takes turns with the others; its throughput is
also given by that of the first, the median of the ratios of rounds. A speech of 10 s that is kept
is asked for again in two formats. Meanwhile nothing else should run. Exits with 1 if a limit is
passed.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx2
from full_size import Figure

from edgepack.machine.cpu import isa

TEXTS = (
    "Good morning, and how are you today?",
    "The train to the sea is late.",
    "Please close the door when you leave.",
    "It will rain in the evening.",
)
LONG = " ".join(TEXTS) * 8
KEPT_SECONDS, KEPT_TIMES, KEPT_LIMIT = 10.0, 50, 15.0  # ms to the last byte
HEALTH_TIMES, HEALTH_LIMIT = 300, 0.1
WAITING = 256
PATIENCE = 600.0
BYTES = 2  # of a sample
SEEDS = count(1)  # none twice, so that no request shares the synthesis of another


@dataclass(frozen=True)
class Answered:
    """One request: seconds until its first samples, and of its audio."""

    first: float
    audio: float


@dataclass(frozen=True)
class Round:
    """What a number of callers got at once, in `wall` seconds."""

    answers: list[Answered]
    wall: float

    @property
    def throughput(self) -> float:
        """Seconds of audio a second."""
        return sum(answer.audio for answer in self.answers) / self.wall


@dataclass
class Server:
    """A running `edgepack serve`, with the rounds by number of callers."""

    name: str
    client: httpx2.Client
    model: str
    rate: int
    rounds: dict[int, list[Round]] = field(default_factory=dict)

    def ask(self, text: str, stop: threading.Event | None = None) -> Answered:
        """Ask for a text, and read it to the end, or until told to stop."""
        body = {"model": self.model, "input": text, "response_format": "pcm", "seed": next(SEEDS)}
        start = time.perf_counter()
        first, size = None, 0
        with self.client.stream("POST", "/audio/speech", json=body) as answer:
            if answer.status_code != httpx2.codes.OK:
                raise SystemExit(f"{self.name}: {answer.read().decode()}")
            for data in answer.iter_raw():
                first = first or time.perf_counter() - start
                size += len(data)
                if stop and stop.is_set():
                    break
        return Answered(first or 0.0, size / BYTES / self.rate)

    def round(self, callers: int, texts: Sequence[str], requests: int) -> None:
        """Let so many callers ask at once."""

        def call(caller: int) -> list[Answered]:
            return [self.ask(texts[(caller + turn) % len(texts)]) for turn in range(requests)]

        start = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            answers = [one for each in pool.map(call, range(callers)) for one in each]
        self.rounds.setdefault(callers, []).append(Round(answers, time.perf_counter() - start))

    def first_audio(self, callers: int) -> list[float]:
        """Of all requests of all rounds, ascending."""
        return sorted(one.first for found in self.rounds[callers] for one in found.answers)

    def throughput(self, callers: int) -> float:
        """Of the median round."""
        return statistics.median(found.throughput for found in self.rounds[callers])

    def by(self, other: "Server", callers: int) -> float:
        """Throughput by another's, the median of the ratios of rounds."""
        pairs = zip(self.rounds[callers], other.rounds[callers], strict=True)
        return statistics.median(one.throughput / two.throughput for one, two in pairs)


@contextmanager
def served(bundle: Path, name: str, *options: str) -> Iterator[Server]:
    """A server with options until the end of the block."""
    command = [sys.executable, "-m", "edgepack", "serve", str(bundle), "--port", "0", "--json"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        lines: list[str] = []
        while not lines or lines[-1].rstrip() != "}":
            lines.append(process.stdout.readline())
            if not lines[-1]:
                raise SystemExit(f"edgepack serve {' '.join(options)}: ended with {process.wait()}")
        told = json.loads("".join(lines))
        with httpx2.Client(base_url=told["url"], timeout=PATIENCE, trust_env=False) as client:
            model = client.get("/models").json()["data"][0]
            yield Server(name, client, model["id"], model["sample_rate"])
    finally:
        process.terminate()
        process.wait()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def health(server: Server) -> float:
    """The 99th percentile of the answer that the server lives, while it speaks to two callers."""
    url = server.client.base_url.copy_with(path="/health/live")
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            server.ask(LONG, stop)

    with ThreadPoolExecutor(2) as pool, httpx2.Client(trust_env=False) as client:
        speaking = [pool.submit(busy) for _ in range(2)]
        time.sleep(1)
        times = []
        for _ in range(HEALTH_TIMES):
            start = time.perf_counter()
            assert client.get(url).status_code == httpx2.codes.OK
            times.append(time.perf_counter() - start)
            time.sleep(0.01)
        stop.set()
        for one in speaking:
            one.result()
    return percentile(times, 0.99)


def kept(server: Server, texts: Sequence[str], kind: str) -> list[float]:
    """Milliseconds from a request to the last byte of a speech of 10 s that is kept."""
    text, audio = "", 0.0
    body: dict[str, Any] = {"model": server.model, "response_format": "pcm", "seed": 0}
    for one in cycle(texts):
        if audio >= KEPT_SECONDS:
            break
        text = f"{text} {one}".strip()
        answer = server.client.post("/audio/speech", json=body | {"input": text})
        audio = len(answer.content) / BYTES / server.rate
    body |= {"input": text, "response_format": kind}
    server.client.post("/audio/speech", json=body)  # encoded, from now on
    times = []
    for _ in range(KEPT_TIMES):
        start = time.perf_counter()
        answer = server.client.post("/audio/speech", json=body)
        times.append(1000 * (time.perf_counter() - start))
        assert "content-length" in answer.headers  # it was not made now
    return times


def callers_table(servers: Sequence[Server]) -> list[str]:
    """Markdown: a row a number of callers and server."""
    several = len(servers) > 1
    more = (" server |", " by the first |") if several else ("", "")
    rule = ("---|", "---|") if several else ("", "")
    lines = [
        f"| callers |{more[0]} throughput |{more[1]} first audio, p50 | p95 |",
        f"|---|{rule[0]}---|{rule[1]}---|---|",
    ]
    for callers in servers[0].rounds:
        for server in servers:
            first = server.first_audio(callers)
            cells = [str(callers)]
            cells += [server.name] * several
            cells.append(f"{server.throughput(callers):.2f}")
            cells += [f"× {server.by(servers[0], callers):.2f}"] * several
            cells += [f"{percentile(first, share):.2f} s" for share in (0.5, 0.95)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def figures(bundle: Path, options: Sequence[str], texts: Sequence[str]) -> Iterator[Figure]:
    """What does not depend on the number of callers, with its limit."""
    with served(bundle, "kept", "--cache-mb", "64", *options) as server:
        for kind in ("pcm", "mp3"):
            times = kept(server, texts, kind)
            name = f"10 s that are kept, {kind}"
            yield Figure(f"{name}, median", statistics.median(times), "ms", KEPT_LIMIT)
            yield Figure(f"{name}, p95", percentile(times, 0.95), "ms")
    with served(bundle, "busy", "--cache-mb", "0", "--running", "2", *options) as server:
        yield Figure("`/health/live` under load, p99", health(server), "s", HEALTH_LIMIT)


def limits_table(found: Sequence[Figure]) -> list[str]:
    """Markdown: a row a figure."""
    lines = ["| | | limit |", "|---|---|---|"]
    for one in found:
        limit = "" if one.limit is None else f"≤ {one.limit:g} {one.unit}"
        lines.append(f"| {one.name} | {one.value:.3g} {one.unit} | {limit} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--callers", default="1,2,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=4, help="of each caller in a round")
    parser.add_argument("--serve", default="", metavar="OPTIONS", help="for every server")
    parser.add_argument("--with", dest="others", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("--text", type=Path, metavar="FILE", help="texts, a line each")
    parser.add_argument("-o", "--output", type=Path, help="write the tables as Markdown")
    given: Any = parser.parse_args(arguments)
    texts = given.text.read_text("utf-8").split("\n") if given.text else TEXTS
    texts = [text for text in texts if text.strip()]
    options = shlex.split(given.serve)
    machine = f"{isa.model() or platform.machine()}, {os.cpu_count()} CPUs"
    print(machine, flush=True)
    plain = ["--cache-mb", "0", "--waiting", str(WAITING), *options]
    with ExitStack() as opened:
        servers = [opened.enter_context(served(given.bundle, "as it is", *plain))]
        for more in given.others:
            own = served(given.bundle, f"`{more}`", *plain, *shlex.split(more))
            servers.append(opened.enter_context(own))
        for server in servers:
            server.round(2, texts, 1)
            server.rounds.clear()  # it was to warm up
        for callers in map(int, given.callers.split(",")):
            for _ in range(given.rounds):
                for server in servers:
                    server.round(callers, texts, given.requests)
    lines = callers_table(servers)
    print("\n".join(lines), flush=True)
    found = []
    for figure in figures(given.bundle, options, texts):
        found.append(figure)
        print(figure, flush=True)
    if given.output:
        tables = [machine, "", *lines, "", *limits_table(found), ""]
        given.output.write_text("\n".join(tables), "utf-8")
    return int(not all(figure.passed for figure in found))


if __name__ == "__main__":
    sys.exit(main())
