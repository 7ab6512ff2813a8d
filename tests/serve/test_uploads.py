"""Voices that clients add: who may, what is refused before it is decoded, what is left behind."""

import io
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from linked import linked
from served import Answer, Served, serving
from support import GOLDEN, Build

from edgepack.bundle import voices
from edgepack.bundle.bundle import MANIFEST, Bundle, open_bundle
from edgepack.cli import main
from edgepack.runtime.audio.enrol import Enroller
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve.options import RequestLimits, ServeOptions

KEY = b"0123456789abcdef0123456789abcdef"
SAID = "今天天气很好，我们一起去公园散步吧。"
RATE = 24_000


@pytest.fixture(scope="module")
def loaded(bundle: Build, tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    """A bundle of this module's own."""
    return Synthesizer.load(
        linked(bundle("demo"), tmp_path_factory.mktemp("uploads")).folder, "ort", 2
    )


@pytest.fixture
def own(loaded: Synthesizer) -> Iterator[Bundle]:
    """The bundle; voices that a test adds to it are removed."""
    before = loaded.loaded.bundle
    yield before
    (before.folder.parent / f"{before.folder.name}.uploads.json").unlink(missing_ok=True)
    for name in open_bundle(before.folder).manifest.voices.keys() - before.manifest.voices.keys():
        voices.remove(before, name)
        loaded.loaded.voices.forget(name)
    unchanged(before)


def files(bundle: Bundle) -> set[str]:
    """Files of voices that there are."""
    return {f"voices/{path.name}" for path in (bundle.folder / "voices").iterdir()}


@pytest.fixture
def served(loaded: Synthesizer, own: Bundle) -> Iterator[Served]:
    with serving(loaded, ServeOptions(uploads=True, waiting=8)) as found:
        yield found


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    with np.load(GOLDEN / "demo-voice" / "sentences.npz") as recorded:
        samples: np.ndarray = recorded["zh02_wav"][0]
    return samples


def sound(
    samples: np.ndarray, kind: str = "WAV", subtype: str = "PCM_16", rate: int = RATE
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=kind)
    return file.getvalue()


def upload(
    served: Served, data: bytes | None, headers: dict[str, str] | None = None, **changed: str | None
) -> Answer:
    """Send a form; a field that is None is left out."""
    boundary = uuid.uuid4().hex
    given = {"name": "anna", "consent": "true", "ref_text": SAID, **changed}
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        for name, value in given.items()
        if value is not None
    ]
    if data is not None:
        about = 'Content-Disposition: form-data; name="audio_sample"; filename="a.wav"\r\n'
        parts.append(f"{about}Content-Type: audio/wav\r\n\r\n".encode() + data)
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts)
    body += f"--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}", **(headers or {})}
    return served.ask("POST", "/v1/audio/voices", body, kind)


def listed(served: Served) -> list[str]:
    return [voice["id"] for voice in json.loads(served.get("/v1/audio/voices").body)["voices"]]


def test_a_recording_becomes_a_voice_that_speaks_and_goes_again(
    served: Served, own: Bundle, spoken: np.ndarray
) -> None:
    answer = upload(served, sound(spoken, "FLAC"))
    assert answer.status == 200, answer.body
    assert json.loads(answer.body)["voice"] == {"name": "anna"}
    assert "anna" in listed(served)
    manifest = open_bundle(own.folder).manifest
    assert manifest.default_voice == own.manifest.default_voice
    assert manifest.voices["anna"] in manifest.files
    first = served.speak("Good morning.", voice="anna", response_format="pcm")
    assert first.status == 200
    assert first.body != served.speak("Good morning.", response_format="pcm").body
    assert upload(served, sound(spoken)).status == 409
    assert served.ask("DELETE", "/v1/audio/voices/anna").status == 200
    assert "anna" not in listed(served)
    assert served.speak("Good morning.", voice="anna").status == 400
    assert served.ask("DELETE", "/v1/audio/voices/anna").status == 404
    assert files(own) <= set(own.manifest.files)


def test_a_voice_of_an_upload_is_that_of_voice_add(
    served: Served, own: Bundle, spoken: np.ndarray, bundle: Build, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(sound(spoken))
    other = linked(bundle("demo"), tmp_path).folder
    words = ["voice", "add", str(other), "anna", str(tmp_path / "a.wav"), "--text", SAID]
    assert main([*words, "--format", "ort", "--threads", "2", "--quiet"]) == 0
    assert upload(served, sound(spoken)).status == 200
    wanted, found = (open_bundle(folder).manifest.voices for folder in (other, own.folder))
    assert found["anna"] == wanted["anna"]  # the name has a hash of the content


def test_only_uploaded_voices_are_removed(served: Served, own: Bundle, spoken: np.ndarray) -> None:
    default = own.manifest.default_voice
    answer = served.ask("DELETE", f"/v1/audio/voices/{default}")
    assert (answer.status, answer.error["code"]) == (403, "not_uploaded")
    assert upload(served, sound(spoken)).status == 200
    _, voice = voices.read(own, None)
    voices.add(own, "anna", voice, replace=True)  # by the owner of the bundle
    assert served.ask("DELETE", "/v1/audio/voices/anna").status == 403
    assert "anna" in listed(served)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda _: sound(np.zeros(48_000 * 60, np.float32), "OGG", "OPUS", 48_000), "60.0 s long"),
        (lambda _: sound(np.zeros(48_000 * 600, np.int16), "FLAC", rate=48_000), "600.0 s long"),
        (lambda one: sound(np.tile(one, 20)), "s long; a recording has to be 0.5 to 30 s"),
        (lambda one: sound(one[:4000]), "0.2 s long"),
        (lambda one: sound(np.zeros((RATE * 40, 8)), "FLAC", rate=96_000), "8 channels"),
        (lambda one: sound(one, rate=8000), "8000 Hz is too low"),
        (lambda one: sound(one * 0), "nothing is heard in it"),
        (lambda one: sound(one, "AIFF"), "not a WAV, FLAC, Ogg or MP3 file"),
        (lambda one: b"RIFF" + bytes(1000), "not a readable sound file"),
        (lambda one: b"<html>" * 100, "not a WAV, FLAC, Ogg or MP3 file"),
        (lambda one: b"", "not a WAV, FLAC, Ogg or MP3 file"),
        (lambda one: None, "attach a recording as a file"),
    ],
)
def test_what_is_no_recording_is_refused_in_a_line(
    served: Served,
    own: Bundle,
    spoken: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    data: Any,
    message: str,
) -> None:
    if "0.0 s long" in message:  # a small file that holds a lot: nothing of it is decoded
        monkeypatch.setattr(soundfile.SoundFile, "read", None)
    answer = upload(served, data(spoken))
    assert answer.status == 400
    assert message in answer.error["message"]
    assert "\n" not in answer.error["message"]
    unchanged(own)


def unchanged(own: Bundle) -> None:
    """Nothing is left of an upload, in the bundle or beside it."""
    assert open_bundle(own.folder).manifest == own.manifest
    assert files(own) == {name for name in own.manifest.files if name.startswith("voices/")}
    assert not list(own.folder.parent.glob("*.uploads.json"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": "../x"}, None), ({"name": "/etc/x"}, None), ({"name": "a/b"}, None),
        ({"name": "."}, None), ({"name": ""}, "name"), ({"name": None}, "name"),
        ({"name": "x" * 65}, None), ({"consent": None}, "consent"),
        ({"consent": "false"}, "consent"), ({"consent": " No "}, "consent"),
        ({"ref_text": None}, "ref_text"), ({"ref_text": "..."}, None),
        ({"model": "other"}, "model"), ({"ref_audio": "http://elsewhere/x.wav"}, "ref_audio"),
    ],
)  # fmt: skip
def test_fields_are_checked(
    served: Served,
    own: Bundle,
    spoken: np.ndarray,
    fields: dict[str, str | None],
    param: str | None,
) -> None:
    answer = upload(served, sound(spoken), None, **fields)
    assert answer.status == (404 if "model" in fields else 400)
    assert param is None or param in (answer.error["param"] or answer.error["message"])
    unchanged(own)


def test_a_body_is_counted_while_it_is_read(loaded: Synthesizer, own: Bundle) -> None:
    limits = RequestLimits(upload_bytes=1000)
    with serving(loaded, ServeOptions(uploads=True, limits=limits)) as found:
        for size in (1001, 200_000):
            answer = upload(found, b"RIFF" + bytes(size))
            assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        kind = {"Content-Type": "application/json"}
        assert found.ask("POST", "/v1/audio/voices", b"{}", kind).status == 415
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert found.ask("POST", "/v1/audio/voices", b"nothing", kind).status == 400
    unchanged(own)


def test_two_at_once_are_both_kept_and_of_one_name_only_one(
    served: Served, own: Bundle, spoken: np.ndarray
) -> None:
    data = sound(spoken)
    with ThreadPoolExecutor(4) as pool:
        names = ["anna", "berta", "carla", "carla"]
        answers = list(pool.map(lambda name: upload(served, data, name=name), names))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 409]
    manifest = open_bundle(own.folder).manifest
    assert manifest.voices.keys() - own.manifest.voices.keys() == {"anna", "berta", "carla"}
    assert served.speak("Good morning.", voice="berta").status == 200
    for name in ("anna", "berta", "carla"):
        assert served.ask("DELETE", f"/v1/audio/voices/{name}").status == 200
    unchanged(own)


@pytest.mark.parametrize("where", ["enrolling", "writing"])
def test_a_fault_midway_leaves_nothing(
    served: Served, own: Bundle, spoken: np.ndarray, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fails(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    if where == "enrolling":
        monkeypatch.setattr(Enroller, "voice", fails)
    else:
        monkeypatch.setattr(Bundle, "with_manifest", fails)
    answer = upload(served, sound(spoken))
    assert answer.status == 503
    assert "No space left on device" in answer.error["message"]
    unchanged(own)
    monkeypatch.undo()
    assert upload(served, sound(spoken)).status == 200


def test_an_upload_waits_for_its_turn_like_a_text(
    loaded: Synthesizer, own: Bundle, spoken: np.ndarray
) -> None:
    with serving(loaded, ServeOptions(uploads=True, running=1, waiting=0)) as found:
        connection = found.begin("Good morning, and how are you today? " * 40)
        connection.getresponse().read(100)
        answer = upload(found, sound(spoken))
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        connection.close()
    unchanged(own)


def test_a_damaged_record_is_told_and_removes_nothing(served: Served, own: Bundle) -> None:
    record = own.folder.parent / f"{own.folder.name}.uploads.json"
    record.write_text("[")
    answer = served.ask("DELETE", "/v1/audio/voices/espeak_male")
    assert answer.status == 500
    assert f"{record}: not a list of uploaded voices" in answer.error["message"]
    assert "espeak_male" in listed(served)


def test_they_are_off_unless_they_are_turned_on(
    loaded: Synthesizer, own: Bundle, spoken: np.ndarray
) -> None:
    with serving(loaded, ServeOptions()) as found:
        answer = upload(found, sound(spoken))
        assert answer.status == 403
        assert "--uploads" in answer.error["message"]
        assert found.ask("DELETE", "/v1/audio/voices/espeak_male").status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "elsewhere.example"}, 403),  # a name that was made to mean this machine
        ({"Host": "elsewhere.example", "Origin": "http://elsewhere.example"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 400),
        ({"Host": "[::1]:8000"}, 400),
        ({"Host": "::["}, 403),
    ],
)
def test_pages_of_others_change_nothing(
    served: Served, headers: dict[str, str], status: int
) -> None:
    assert upload(served, None, headers).status == status
    assert served.ask("DELETE", "/v1/audio/voices/x", None, headers).status in (403, 404)


def test_with_keys_whoever_has_one_may(
    loaded: Synthesizer, own: Bundle, spoken: np.ndarray
) -> None:
    with serving(loaded, ServeOptions(uploads=True, keys=(KEY,))) as found:
        assert upload(found, sound(spoken)).status == 401
        unchanged(own)
        key = {"Authorization": f"Bearer {KEY.decode()}", "Host": "box.local"}
        assert upload(found, sound(spoken), key).status == 200
        assert found.ask("DELETE", "/v1/audio/voices/anna", None, key).status == 200


def test_bundles_without_the_networks_refuse_in_a_line(
    bundle: Build, tmp_path: Path, spoken: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = linked(bundle("demo"), tmp_path)
    gone = {carried.file for carried in demo.manifest.enrolment.values()}
    kept = {name: file for name, file in demo.manifest.files.items() if name not in gone}
    (demo.folder / MANIFEST).unlink()
    lacking = demo.with_manifest(msgspec.structs.replace(demo.manifest, enrolment={}, files=kept))
    for name in gone:
        (demo.folder / name).unlink()
    assert main(["serve", str(lacking.folder), "--uploads", "--format", "ort"]) == 2
    assert "no bundle has networks to make a voice with" in capsys.readouterr().err
    without = Synthesizer.load(lacking.folder, "ort", 1)
    with serving(without, ServeOptions(uploads=True)) as found:
        answer = upload(found, sound(spoken))
        assert answer.status == 400
        assert "has no networks to make a voice with" in answer.error["message"]
