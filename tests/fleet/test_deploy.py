"""What is in deploy/, in the programs that it is for."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from served import LONG, Served, serving, within
from support import Build

from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve import server
from edgepack.serve.options import ServeOptions

pytestmark = pytest.mark.fleet

DEPLOY = Path(__file__).parents[2] / "deploy"
# Daemons are in a folder that only root has in its path.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
PROMTOOL, HAPROXY = (shutil.which(name, path=PATH) for name in ("promtool", "haproxy"))
with_promtool = pytest.mark.skipif(not PROMTOOL, reason="no promtool (Debian's prometheus)")
with_haproxy = pytest.mark.skipif(not HAPROXY, reason="no haproxy (Debian's haproxy)")


@pytest.fixture(scope="module")
def synthesizer(bundle: Build) -> Synthesizer:
    return Synthesizer.load(bundle("demo"), "ort", 2)


def run(*command: str | Path | None, given: bytes = b"") -> str:
    """What a program says, which has to succeed."""
    done = subprocess.run(
        [str(word) for word in command], input=given, capture_output=True, check=False, timeout=60
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


@with_promtool
def test_prometheus_takes_its_files() -> None:
    place = DEPLOY / "prometheus"
    assert re.search(r"SUCCESS: \d+ rules", run(PROMTOOL, "check", "rules", place / "alerts.yml"))
    assert "SUCCESS" in run(PROMTOOL, "check", "config", "--syntax-only", place / "prometheus.yml")


@with_promtool
def test_prometheus_reads_what_a_server_exports(synthesizer: Synthesizer) -> None:
    with serving(synthesizer, ServeOptions()) as found:
        assert found.speak("Good morning.").status == 200
        assert run(PROMTOOL, "check", "metrics", given=found.get("/metrics").body) == ""


@with_haproxy
def test_haproxy_takes_its_file() -> None:
    run(HAPROXY, "-c", "-f", DEPLOY / "haproxy" / "haproxy.cfg")


@contextmanager
def balanced(folder: Path, *servers: Served) -> Iterator[Served]:
    """HAProxy in front of servers, set up as ours, with their addresses in place of the names."""
    with server.bound("127.0.0.1", 0) as unused:
        port = unused.getsockname()[1]
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text("utf-8")
    text = text.replace("bind :8000", f"bind 127.0.0.1:{port}")
    for number, one in enumerate(servers, 1):
        text, found = re.subn(rf"speech-{number}:8000", f"127.0.0.1:{one.port}", text)
        assert found == 1
    file = folder / "haproxy.cfg"
    file.write_text(text)
    assert HAPROXY
    process = subprocess.Popen([HAPROXY, "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    proxy = Served(port)
    try:
        within(20, lambda: answers(proxy))
        yield proxy
    finally:
        process.terminate()
        process.wait(20)


def answers(served: Served) -> bool:
    try:
        return served.get("/health/ready").status == 200
    except OSError:
        return False


@with_haproxy
def test_speech_goes_on_when_one_of_two_servers_ends(
    synthesizer: Synthesizer, tmp_path: Path
) -> None:
    with ExitStack() as opened:
        one, other = ExitStack(), ExitStack()
        opened.push(one)
        opened.push(other)
        servers = [
            stack.enter_context(serving(synthesizer, ServeOptions())) for stack in (one, other)
        ]
        proxy = opened.enter_context(balanced(tmp_path, *servers))
        connections = [proxy.begin(f"{number}. {LONG[:400]}") for number in range(2)]
        responses = [connection.getresponse() for connection in connections]
        assert all(response.read(1000) for response in responses)
        # One to each: leastconn.
        assert [found.metric("edgepack_requests_in_flight") for found in servers] == [1, 1]
        one.close()  # it finishes what it speaks
        assert all(len(response.read()) > 100_000 for response in responses)
        for number in range(4):
            assert proxy.speak(f"Good morning, {number}.").status == 200
