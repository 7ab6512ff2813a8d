"""Who may ask, and what the metrics tell."""

import math
from pathlib import Path

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import MODEL, Serve, Served

import edgepack
from edgepack.errors import UsageError
from edgepack.serve import keys

KEY = b"0123456789abcdef0123456789abcdef"
TEXT = "Good morning."


@pytest.fixture
def guarded(serve: Serve) -> Served:
    return serve(keys=(b"another-key-of-this-server", KEY))


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer 0123456789abcdef", f"Basic {KEY.decode()}", KEY.decode()],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/voices", "/metrics", "/nothing"])
def test_without_a_key_there_is_only_health(guarded: Served, header: str, path: str) -> None:
    answer = guarded.get(path, **({"Authorization": header} if header else {}))
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.error["type"] == "authentication_error"
    assert guarded.get("/health/live").status == guarded.get("/health/ready").status == 200


def test_either_key_opens(guarded: Served) -> None:
    for key in ("another-key-of-this-server", KEY.decode()):
        assert guarded.get("/v1/models", Authorization=f"Bearer {key}").status == 200
        assert guarded.get("/metrics", authorization=f"bearer {key}").status == 200


def test_the_client_is_told_that_its_key_is_wrong(guarded: Served) -> None:
    with pytest.raises(openai.AuthenticationError):
        guarded.client.models.list()
    client = guarded.client.with_options(api_key=KEY.decode())
    assert client.audio.speech.create(model=MODEL, input=TEXT, voice="espeak_male").content


def test_keys_are_read_from_lines(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"# of the kitchen\n" + KEY + b"\r\n\n  another-key-of-this-server\n")
    assert keys.read(file) == (KEY, b"another-key-of-this-server")


@pytest.mark.parametrize("text", ["", "# none\n\n", "short\n", "ключ" * 8, "two words of a key"])
def test_keys_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text, "utf-8")
    with pytest.raises(UsageError):
        keys.read(file)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("box.local", False),
    ],
)  # fmt: skip
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert keys.is_loopback(host) is loopback


def test_metrics_tell_what_was_done(serve: Serve) -> None:
    found = serve()
    secret = "The password of the cellar is a secret."
    assert found.speak(secret, voice="espeak_male").status == 200
    assert found.speak(secret, voice="espeak_male", stream_format="sse").status == 200
    assert found.speak(secret, seed=-1).status == 400
    answer = found.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.body.decode())
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }
    assert values["edgepack_requests_total", "mp3", "ok"] == 2
    assert values["edgepack_requests_total", "none", "refused"] == 1
    assert values["edgepack_cache_requests_total", "miss"] == 1
    assert values["edgepack_cache_requests_total", "hit"] == 1
    assert values["edgepack_requests_in_flight",] == values["edgepack_requests_queued",] == 0
    assert values["edgepack_first_audio_seconds_count",] == 2
    assert values["edgepack_queue_seconds_count",] == 1
    assert values["edgepack_real_time_factor_count",] == 1
    assert values["edgepack_underrun_seconds_count",] == 1
    assert values["edgepack_cancelled_total",] == 0
    assert values["edgepack_cache_bytes",] > 10_000
    assert 1 < values["edgepack_audio_seconds_total",] < 20
    stages = [value for name, value in values.items() if name[0] == "edgepack_stage_seconds_total"]
    assert len(stages) > 3
    assert all(value > 0 and math.isfinite(value) for value in stages)
    assert values["edgepack_build_info", edgepack.__version__] == 1
    assert b"password" not in answer.body
    assert b"espeak" not in answer.body
