"""`edgepack serve` as a program."""

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path

import pytest
from linked import linked
from served import Start, listening, within
from support import Build
from wyoming.audio import AudioChunk, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.tts import Synthesize

from edgepack.cli import main
from edgepack.machine.cpu import topology, tuned
from edgepack.machine.cpu.plan import Wish
from edgepack.runtime.audio.sound_file import sixteen_bits
from edgepack.runtime.synthesizer import LoadOptions, Settings, Synthesizer

TEXT = "Good morning, and how are you today? " * 4
SHORT = "Good morning."
KEY = "0123456789abcdef"


def test_a_batch_speaks_as_many_at_once_with_the_samples_of_run(
    program: Start, bundle: Build
) -> None:
    _, document, found = program("--batch", "4", "--threads", "1", "--cache-mb", "0")
    assert (document["running"], document["waiting"]) == (4, 16)
    seeds = range(3)
    own = Synthesizer.load(bundle("demo"), "ort", 1, LoadOptions(batch=2))
    wanted = [own.speak(SHORT, Settings(seed=seed)).audio for seed in seeds]

    def heard(seed: int) -> bytes:
        return found.speak(SHORT, response_format="pcm", stream=False, seed=seed).body

    with ThreadPoolExecutor(len(seeds)) as pool:
        assert list(pool.map(heard, seeds)) == [sixteen_bits(one).tobytes() for one in wanted]
    assert found.metric("edgepack_batch_rows_count") == len(seeds)
    assert found.metric('edgepack_batch_rows_bucket{le="1.0"}') < len(seeds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_the_text_is_spoken(
    program: Start, number: signal.Signals, bundle: Build
) -> None:
    process, document, found = program("--running", "1", "--waiting", "3")
    assert document["models"] == [bundle("demo").name]
    assert (document["running"], document["waiting"]) == (1, 3)
    connection = found.begin(TEXT, response_format="wav")
    response = connection.getresponse()
    first = response.read(1000)
    os.kill(process.pid, number)
    heard = first + response.read()  # raises IncompleteRead if it is cut
    assert len(heard) > 5 * 48_000
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_is_not_spoken_in_time_is_cut(program: Start) -> None:
    process, _, found = program("--drain", "1", "--threads", "1")
    response = found.begin(TEXT * 8).getresponse()
    response.read(1000)
    process.terminate()
    with pytest.raises((IncompleteRead, ConnectionError)):
        response.read()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_it_takes_keys_a_folder_and_a_lead(program: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n")
    kept = tmp_path / "kept"
    options = ["--key-file", str(keys), "--host", "0.0.0.0", "--cache", str(kept), "--lead", "100"]
    _, document, found = program(*options)
    assert str(document["url"]).startswith("http://0.0.0.0:")
    assert found.speak("Good morning.").status == 401
    asked = {"model": found.model, "input": "Good morning.", "response_format": "pcm"}
    for _ in range(2):
        answer = found.post(asked, Authorization=f"Bearer {KEY}")
        assert answer.status == 200
        assert not any(answer.body[:4800])
    assert len(list(kept.iterdir())) == 1


def test_it_speaks_over_wyoming_from_the_same_cache(program: Start) -> None:
    process, document, found = program("--wyoming", "tcp://127.0.0.1:0", "--running", "1")
    port = int(str(document["wyoming"]).rpartition(":")[2])

    async def heard(text: str) -> bytes:
        data, told = b"", text != TEXT
        async with AsyncTcpClient("127.0.0.1", port, read_timeout=60) as client:
            await client.write_event(Synthesize(text=text).event())
            while (event := await client.read_event()) and not AudioStop.is_type(event.type):
                if AudioChunk.is_type(event.type):
                    data += AudioChunk.from_event(event).audio
                if len(data) > 4800 and not told:
                    process.terminate()  # what is begun is spoken to its end
                    told = True
        return data

    first = asyncio.run(heard("Good morning."))
    within(10, lambda: found.metric("edgepack_cache_bytes") > 0)  # it is written after the answer
    assert found.speak("Good morning.", response_format="pcm").body == first
    assert found.metric('edgepack_cache_requests_total{result="hit"}') == 1
    assert found.metric('edgepack_requests_total{format="wyoming",outcome="ok"}') == 1
    assert len(asyncio.run(heard(TEXT))) > 5 * 48_000
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["serve", *words]) == 2
    return capsys.readouterr().err


def test_others_are_let_in_only_with_a_key(
    bundle: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, str(bundle("demo")), "--host", "0.0.0.0")
    assert "--host 0.0.0.0: others could speak with it; give --key-file" in said


def test_wrong_requests_are_refused_before_anything_is_loaded(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(bundle("demo"))
    assert "2 bundles are in folders called" in refused(capsys, folder, folder)
    assert "keys" in refused(capsys, folder, "--key-file", str(tmp_path / "keys"))
    assert "nowhere" in refused(capsys, str(tmp_path / "nowhere"))
    assert "unknown energy meter 'rappl'" in refused(capsys, folder, "--energy", "rappl")
    said = refused(capsys, folder, "--port", "0", "--wyoming", "tcp://0.0.0.0:10200")
    assert "Wyoming has no keys" in said
    with listening() as taken:
        said = refused(capsys, folder, "--port", "0", "--wyoming", f"tcp://127.0.0.1:{taken}")
        assert f"127.0.0.1:{taken}: Address already in use" in said
        said = refused(capsys, folder, "--port", str(taken))
    assert f"127.0.0.1:{taken}: Address already in use" in said


def test_bundles_that_would_have_other_cpus_alone_are_named(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All bundles of a process have the CPUs and threads of the first."""
    other = linked(bundle("demo"), tmp_path).folder.rename(tmp_path / "other")
    tuned.write(other, topology.read(), "ort", Wish(), 1)
    with listening() as taken:
        folders = [str(bundle("demo")), str(other), "--port", str(taken), "--format", "ort"]
        assert f"{other}: alone it would have 1 thread on CPU" in refused(capsys, *folders)
        assert "alone it would" not in refused(capsys, *folders, "--threads", "2")


def test_a_cache_that_cannot_be_is_refused(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = [str(bundle("demo")), "--port", "0", "--cache", str(tmp_path / "file" / "kept")]
    assert str(tmp_path / "file") in refused(capsys, *words)
