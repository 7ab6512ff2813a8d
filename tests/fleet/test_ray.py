"""`edgepack serve --ray` on a cluster of two nodes of this machine, of which parts are killed."""

import json
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import httpx2
import numpy as np
import openai
import psutil
import pytest
import yaml
from served import LONG, Served, within

from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.runtime.audio.sound_file import sixteen_bits
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve import server

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(find_spec("ray") is None, reason="no ray (extra ray)"),
]

RAY = Path(sys.executable).with_name("ray")
TEXT = LONG[:440]  # many seconds of a replica's time


@pytest.fixture(scope="module", autouse=True)
def token() -> Iterator[None]:
    """What nodes and drivers know each other by; the variable keeps Ray from writing a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


def unused_port() -> int:
    with server.bound("127.0.0.1", 0) as opened:
        port: int = opened.getsockname()[1]
        return port


@contextmanager
def program(command: Sequence[object]) -> Iterator[subprocess.Popen[str]]:
    """A running program, which is killed at the end with all that it started."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
        process.communicate()


@contextmanager
def node(*options: str) -> Iterator[subprocess.Popen[str]]:
    """A node of a cluster with one CPU, once it is up."""
    command = [RAY, "start", "--num-cpus=1", "--block", "--disable-usage-stats", *options]
    with program(command) as process:
        assert process.stdout
        lines: list[str] = []
        while not any("Ray runtime started" in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()[1]
        yield process


@contextmanager
def served(*words: str) -> Iterator[tuple[subprocess.Popen[str], Served]]:
    """The command, once it serves."""
    port = unused_port()
    command = ["serve", *words, "--ray", "--port", str(port), "--threads", "1", "--json"]
    with program([sys.executable, "-m", "edgepack", *command]) as process:
        assert process.stdout
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()[1]
        document = json.loads("".join(lines))
        assert "url" in document, document
        assert document["url"] == f"http://127.0.0.1:{port}/v1"
        yield process, Served(port, document["models"][0])


def called(name: str, *parents: psutil.Process) -> list[psutil.Process]:
    """Processes below others that are called so."""
    found = []
    for child in [child for one in parents for child in one.children(recursive=True)]:
        with suppress(psutil.Error):  # it has just ended
            if name in " ".join(child.cmdline()):
                found.append(child)
    return found


@dataclass(frozen=True)
class Cluster:
    """Two nodes with a replica each: one text is spoken by each, and one waits."""

    found: Served
    nodes: list[subprocess.Popen[str]]
    address: str

    @property
    def replicas(self) -> list[psutil.Process]:
        """The processes that speak."""
        nodes = [psutil.Process(one.pid) for one in self.nodes]
        return called("ServeReplica:edgepack", *nodes)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo voice in one runtime, which is built in a few seconds."""
    folder = tmp_path_factory.mktemp("demo")
    request = BuildRequest("demo", ["intel-cpu"], folder, ["ort"], precision="fp32")
    return build(request)[0].bundle.folder


@pytest.fixture(scope="module")
def cluster(demo: Path) -> Iterator[Cluster]:
    # Its sockets have long paths, so it needs a short one to begin with.
    folder = tempfile.mkdtemp(prefix="ray-")
    head_port = unused_port()
    with ExitStack() as opened:
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        options = ["--include-dashboard=false", f"--temp-dir={folder}"]
        nodes = [opened.enter_context(node("--head", f"--port={head_port}", *options))]
        nodes.append(opened.enter_context(node(f"--address=127.0.0.1:{head_port}")))
        words = ["--ray-address", f"127.0.0.1:{head_port}", "--replicas", "2"]
        words += ["--running", "1", "--waiting", "1", "--cache-mb", "0", "--format", "ort"]
        _, found = opened.enter_context(served(str(demo), *words))
        yield Cluster(found, nodes, f"127.0.0.1:{head_port}")


def rest(response: HTTPResponse) -> str:
    """How an answer that has begun goes on: whole, or cut without its last chunk."""
    try:
        response.read()
    except (HTTPException, OSError):
        return "cut"
    return "whole"


def require_good(found: Served, count: int) -> None:
    """Ask as a program does, without asking again; each answer has to be whole."""
    for number in range(count):
        spoken = found.client.audio.speech.create(
            model=found.model, voice="espeak_male", input=f"Good morning, {number}."
        )
        assert len(spoken.content) > 5000


def test_each_replica_has_cpus_of_its_own(cluster: Cluster) -> None:
    replicas = cluster.replicas
    masks = [one.cpu_affinity() for one in replicas]
    assert len(masks) == 2
    if (os.cpu_count() or 1) > 1:
        assert sorted(map(len, masks)) == [1, 1]
        assert masks[0] != masks[1]


def test_the_app_is_that_of_a_plain_server(cluster: Cluster, demo: Path) -> None:
    found = cluster.found
    assert [one.id for one in found.client.models.list()] == [found.model]
    with Synthesizer.load(demo, "ort", 1).stream("Good morning.") as stream:
        ours = np.concatenate([sixteen_bits(chunk) for chunk in stream]).tobytes()
    for kind in ("pcm", "wav", "mp3", "opus", "flac"):
        answer = found.speak("Good morning.", response_format=kind)
        assert answer.status == 200
        if kind == "pcm":
            assert answer.body == ours
    events = found.speak("Good morning.", stream_format="sse").body
    assert re.findall(rb"speech\.audio\.(\w+)", events)[-1] == b"done"
    with pytest.raises(openai.NotFoundError):
        found.client.audio.speech.create(model="other", voice="x", input="Good morning.")
    assert found.get("/health/ready").status == 200


def test_who_lacks_the_token_is_refused(
    cluster: Cluster, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_py_gcs_connect_timeout_s", "3")  # that Ray asks again
    words = ["serve", str(demo), "--ray", "--ray-address", cluster.address]
    command = [sys.executable, "-m", "edgepack", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (5, "")
    assert "is RAY_AUTH_TOKEN that of the cluster?" in ran.stderr.splitlines()[-1]


def test_what_is_too_much_is_told_to_come_later(cluster: Cluster) -> None:
    """Of twenty: two come to each replica, and four wait in each of the two proxies."""
    connections = []
    for number in range(20):
        connections.append(cluster.found.begin(f"{number}. {LONG}"))
        time.sleep(0.1)  # so that the proxy has found out who is free

    def answered() -> list[HTTPConnection]:
        readable, _, _ = select.select([one.sock for one in connections], [], [], 0)
        return [one for one in connections if one.sock in readable]

    within(30, lambda: len(answered()) >= 10)  # the refused, and the two that sound
    answers = [one.getresponse() for one in answered()]
    refused = [one for one in answers if one.status != 200]
    assert 8 <= len(refused) <= 14
    for one in refused:
        assert one.status == 429
        assert int(one.headers["Retry-After"]) >= 1
    for connection in connections:  # which ends what they speak, or they would for a minute
        connection.close()
    require_good(cluster.found, 2)


def test_a_killed_replica_cuts_its_stream_and_no_other(cluster: Cluster) -> None:
    found, sound = cluster.found, threading.Barrier(3)
    victim, _ = cluster.replicas

    def hear(number: int) -> str:
        asked = found.client.audio.speech.with_streaming_response.create(
            model=found.model, voice="espeak_male", input=f"{number}. {TEXT}", response_format="pcm"
        )
        with asked as answer:
            pieces = answer.iter_bytes()
            assert next(pieces)
            sound.wait(60)
            try:
                return f"whole, {sum(map(len, pieces)) > 100_000}"
            except httpx2.RemoteProtocolError:
                return "cut"

    with ThreadPoolExecutor(2) as pool:
        heard = [pool.submit(hear, number) for number in range(2)]
        sound.wait(60)
        victim.kill()
        assert sorted(one.result() for one in heard) == ["cut", "whole, True"]
    require_good(cluster.found, 8)
    within(60, lambda: len(cluster.replicas) == 2)
    require_good(cluster.found, 4)


def test_a_killed_node_cuts_its_streams_and_later_ones_are_good(cluster: Cluster) -> None:
    """Streams that another node speaks or hands on are cut with either of the two."""
    victim = psutil.Process(cluster.nodes[1].pid)
    (raylet,) = [one for one in victim.children(recursive=True) if one.name() == "raylet"]
    responses = [cluster.found.begin(f"{n}. {TEXT}").getresponse() for n in range(2)]
    assert all(response.read(1000) for response in responses)
    raylet.kill()
    found = sorted(map(rest, responses))
    assert found in (["cut", "whole"], ["cut", "cut"])
    require_good(cluster.found, 20)


def test_ray_takes_the_configuration() -> None:
    """By its own schema, and up to what it would deploy."""
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    text = (Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml").read_text("utf-8")
    (app,) = ServeDeploySchema.model_validate(yaml.safe_load(text)).applications
    module, _, name = app.import_path.partition(":")
    assert isinstance(getattr(import_module(module), name)(app.args), Application)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--ray-address", "127.0.0.1:1"], 5, "--ray-address 127.0.0.1:1: nobody answers"),
        (["--ray-address", "ray://head:10001"], 2, "give HOST:PORT, or auto"),
        (["--threads", "1000"], 2, "replicas that need 1000 CPUs: this machine has"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    demo: Path, words: list[str], code: int, said: str
) -> None:
    command = [sys.executable, "-m", "edgepack", "serve", str(demo), "--ray", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two replicas need two CPUs")
def test_it_grows_and_a_signal_ends_the_cluster_that_it_started(demo: Path) -> None:
    with served(str(demo), "--replicas", "1:2") as (process, found):
        own = psutil.Process(process.pid)
        responses = [found.begin(f"{n}. {TEXT}") for n in range(3)]  # two more than one replica's
        within(60, lambda: len(called("ServeReplica:edgepack", own)) == 2)
        children = own.children(recursive=True)
        assert "raylet" in {child.name() for child in children}
        process.send_signal(signal.SIGTERM)
        assert [rest(one.getresponse()) for one in responses] == ["whole"] * 3
        out, err = process.communicate(timeout=90)
        assert (process.returncode, out, err) == (0, "", "")
        assert not psutil.wait_procs(children, timeout=20)[1]
