"""What the server says of requests that it does not answer with audio."""

import json
import socket
import sys
from http.client import IncompleteRead
from typing import Any

import openai
import pytest
from served import MODEL, Serve, Served

from edgepack.runtime import guards
from edgepack.serve.options import RequestLimits

TEXT = "Good morning."


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "tts-1"}, 404, "model", "model_not_found"),
        ({"voice": "alloy"}, 400, "voice", "invalid_value"),
        ({"voice": "../secret"}, 400, "voice", "invalid_value"),
        ({"voice": 3}, 400, "voice", "invalid_value"),
        ({"input": ""}, 400, "input", "invalid_value"),
        ({"input": "a" * 4097}, 400, "input", "invalid_value"),
        ({"input": "..."}, 400, None, "usage"),
        ({"speed": 9}, 400, "speed", "invalid_value"),
        ({"speed": float("nan")}, 400, None, "invalid_json"),
        ({"seed": -1}, 400, "seed", "invalid_value"),
        ({"response_format": "midi"}, 400, "response_format", "invalid_value"),
        ({"stream_format": "tape"}, 400, "stream_format", "invalid_value"),
        ({"mode": "loud"}, 400, "mode", "invalid_value"),
        ({"mode": "instruct"}, 400, "mode", "invalid_value"),
        ({"solver": "exact"}, 400, "solver", "invalid_value"),
        ({"language": "tlh"}, 400, "language", "unsupported_language"),
        ({"sed": 1}, 400, "sed", "unknown_parameter"),
    ],
    ids=str,
)
def test_wrong_fields_are_named(
    served: Served, fields: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    answer = served.post({"model": MODEL, "input": TEXT, **fields})
    found = answer.error
    assert (answer.status, found["param"], found["code"]) == (status, param, code)
    assert found["type"] == "invalid_request_error"
    assert found["message"]


def test_aac_needs_a_package_that_is_named(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "edgepack.serve.aac", raising=False)
    answer = serve().speak(TEXT, response_format="aac")
    found = answer.error
    assert (answer.status, found["param"]) == (400, "response_format")
    assert found["code"] == "unsupported_format"
    said = "aac needs PyAV on the server: pip install 'edgepack[aac]'; or ask for mp3, opus, flac"
    assert found["message"].startswith(said)


def test_the_client_raises_its_own_errors(served: Served) -> None:
    create = served.client.audio.speech.create
    with pytest.raises(openai.NotFoundError, match="no model 'tts-1' here; there is demo"):
        create(model="tts-1", input=TEXT, voice="espeak_male")
    with pytest.raises(openai.BadRequestError, match="unknown voice 'alloy'"):
        create(model=MODEL, input=TEXT, voice="alloy")


def test_models_are_listed_as_openai_does(served: Served) -> None:
    (model,) = served.client.models.list().data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "edgepack")
    assert served.client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError):
        served.client.models.retrieve("other")


def test_voices_and_models_are_listed_as_open_webui_reads_them(served: Served) -> None:
    names = ["espeak_female", "espeak_male"]
    wanted = {"voices": [{"id": name, "name": name} for name in names]}
    assert json.loads(served.get("/v1/audio/voices").body) == wanted
    assert json.loads(served.get(f"/v1/audio/voices?model={MODEL}").body) == wanted
    assert served.get("/v1/audio/voices?model=other").status == 404
    models = json.loads(served.get("/v1/audio/models").body)
    assert models == {"models": [{"id": MODEL, "name": MODEL}]}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"model": "demo", "input": "\\ud800"}', "application/json", 400),
        (b"[]", "application/json; charset=utf-8", 400),
        (b"{}", "text/plain", 415),
        (b" " * 70_000, "application/json", 413),
    ],
    ids=["cut", "bytes", "surrogate", "list", "type", "large"],
)
def test_what_is_no_request_is_refused(served: Served, body: bytes, kind: str, status: int) -> None:
    answer = served.post(body, **{"Content-Type": kind})
    assert answer.status == status
    assert answer.error["type"] == "invalid_request_error"


def test_errors_of_the_path_look_alike(served: Served) -> None:
    assert served.get("/v1/nothing").status == 404
    assert served.get("/v1/nothing").error["type"] == "invalid_request_error"
    assert served.get("/v1/audio/speech").status == 405
    assert served.get("/v1/audio/speech").error["message"].startswith("/v1/audio/speech: ")


def test_a_body_that_does_not_come_is_given_up(serve: Serve) -> None:
    found = serve(limits=RequestLimits(body_seconds=0.3))
    with socket.create_connection(("127.0.0.1", found.port), timeout=30) as slow:
        head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
        slow.sendall(head + b"Content-Type: application/json\r\n\r\n{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_speech_that_gets_too_long_is_refused(serve: Serve) -> None:
    found = serve(limits=RequestLimits(audio_seconds=0.1))
    answer = found.speak(TEXT)
    assert answer.status == 400
    assert "longer than 0.1 s" in answer.error["message"]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sentence has a fault, which is found when it is complete."""
    monkeypatch.setattr(guards, "faults", lambda *audio, **counts: ["silence: made up"])


@pytest.mark.usefixtures("faulty")
def test_a_fault_of_whole_audio_is_an_error(serve: Serve) -> None:
    found = serve()
    answer = found.speak(TEXT, stream=False)
    assert (answer.status, answer.error["code"]) == (500, "faulty_audio")
    assert found.metric('edgepack_faults_total{kind="silence"}') == 1
    assert found.metric('edgepack_requests_total{format="mp3",outcome="failed"}') == 1


@pytest.mark.usefixtures("faulty")
def test_a_fault_of_a_stream_cuts_it_and_is_an_event(serve: Serve) -> None:
    found = serve()
    connection = found.begin(TEXT)
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises(IncompleteRead):
        response.read()
    events = found.speak(TEXT, stream_format="sse").body.split(b"\n\n")
    last = json.loads(events[-2].removeprefix(b"data: "))
    assert last["type"] == "speech.audio.error"
    assert last["error"]["code"] == "faulty_audio"
    assert found.metric('edgepack_requests_total{format="pcm",outcome="cut"}') == 1


@pytest.mark.usefixtures("faulty")
def test_a_server_that_only_warns_answers_and_does_not_keep_it(serve: Serve) -> None:
    found = serve(strict=False)
    for _ in range(2):
        assert found.speak(TEXT).status == 200
        assert found.speak(TEXT, stream=False, response_format="mp3").status == 200
    assert found.metric('edgepack_cache_requests_total{result="miss"}') == 4
    assert found.metric("edgepack_cache_bytes") == 0


def test_a_bug_shows_no_more_than_its_class(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*audio: Any, **counts: Any) -> list[str]:
        raise RuntimeError("a secret")

    monkeypatch.setattr(guards, "faults", broken)
    answer = serve().speak(TEXT, stream=False)
    assert answer.status == 500
    assert answer.error["message"] == "internal error: RuntimeError"
