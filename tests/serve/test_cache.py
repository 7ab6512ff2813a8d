"""Finished speech that is kept: bounds, damaged files, what counts as the same."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from served import MODEL, Serve, within

from edgepack.bundle import voices
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve.cache import Cache, FolderStore, MemoryStore, Spoken, Store
from edgepack.serve.models import ServedModel
from edgepack.serve.request import SpeechRequest

TEXT = "Good morning. How are you?"
HIT = 'edgepack_cache_requests_total{result="hit"}'
MISS = 'edgepack_cache_requests_total{result="miss"}'
KEYS = ["a" * 64, "b" * 64, "c" * 64]


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """One with room for two values of 1000 bytes."""
    return MemoryStore(2100) if request.param == "memory" else FolderStore(tmp_path / "kept", 2100)


def test_what_was_not_used_for_longest_makes_room(store: Store) -> None:
    for key in KEYS[:2]:
        store.put(key, key[:1].encode() * 1000)
    assert store.get(KEYS[0]) == b"a" * 1000
    store.put(KEYS[2], b"c" * 1000)
    assert [store.get(key) is not None for key in KEYS] == [True, False, True]
    assert 2000 <= store.size <= 2100


def test_what_is_larger_than_all_is_not_kept(store: Store) -> None:
    store.put(KEYS[0], b"a" * 1000)
    store.put(KEYS[1], b"b" * 3000)
    assert store.get(KEYS[1]) is None
    assert store.get(KEYS[0]) is not None


def test_a_value_may_be_replaced(store: Store) -> None:
    store.put(KEYS[0], b"a" * 1000)
    store.put(KEYS[0], b"b" * 10)
    assert store.get(KEYS[0]) == b"b" * 10
    assert store.size < 100


def test_a_folder_is_there_after_a_restart(tmp_path: Path) -> None:
    first = FolderStore(tmp_path, 10_000)
    for number, key in enumerate(KEYS):
        first.put(key, key.encode())
        os.utime(tmp_path / f"{key}.speech", (number, number))
    again = FolderStore(tmp_path, 10_000)
    assert again.size == first.size
    assert again.get(KEYS[0]) == KEYS[0].encode()
    os.utime(tmp_path / f"{KEYS[0]}.speech", (9, 9))
    small = FolderStore(tmp_path, 200)
    assert [small.get(key) is not None for key in KEYS] == [True, False, True]


def test_a_damaged_or_removed_file_is_a_miss(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, 10_000)
    for key in KEYS:
        store.put(key, b"value")
    (tmp_path / f"{KEYS[0]}.speech").write_bytes(b"x" * 37)
    (tmp_path / f"{KEYS[1]}.speech").unlink()
    assert [store.get(key) for key in KEYS] == [None, None, b"value"]
    assert [path.name for path in tmp_path.glob("*.speech")] == [f"{KEYS[2]}.speech"]
    assert store.size == 37


def test_a_folder_that_has_gone_is_only_misses(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "kept", 10_000)
    (tmp_path / "kept").rmdir()
    store.put(KEYS[0], b"value")
    assert store.get(KEYS[0]) is None
    assert store.size == 0


def test_speech_comes_back_as_it_was() -> None:
    cache = Cache(MemoryStore(10_000))
    audio = np.arange(-5, 5, dtype=np.int16)
    cache.keep(KEYS[0], Spoken(audio.tobytes(), 3, 4))
    found = cache.spoken(KEYS[0])
    assert found
    assert np.array_equal(found.audio, audio)
    assert (found.input_tokens, found.output_tokens) == (3, 4)
    cache.keep_encoded(KEYS[0], "mp3 1 0", b"mp3")
    assert cache.encoded(KEYS[0], "mp3 1 0") == b"mp3"
    assert cache.encoded(KEYS[0], "mp3 2 0") is None


@pytest.fixture(scope="module")
def model(synthesizer: Synthesizer) -> ServedModel:
    return ServedModel.of(MODEL, synthesizer)


def key(model: ServedModel, *, whole: bool = False, **fields: Any) -> str:
    asked = SpeechRequest(**{"model": MODEL, "input": TEXT, **fields})
    return model.key(asked, asked.settings(strict=True), whole=whole)


def test_all_that_changes_the_audio_changes_the_key(model: ServedModel) -> None:
    found = [
        key(model),
        key(model, whole=True),
        key(model, input=f"{TEXT} "),
        key(model, voice="espeak_male"),
        key(model, instructions="Whisper."),
        key(model, instructions="Shout."),
        key(model, seed=1),
        key(model, solver="reference"),
        key(model, speed=2.0),
        key(model, language="en"),
    ]
    assert len(set(found)) == len(found)


def test_other_names_for_the_same_audio_are_one_key(model: ServedModel) -> None:
    same = key(model)
    assert key(model, voice="espeak_female") == same  # the default
    assert key(model, mode="zero-shot" if _prompted(model) else "sft") == same
    assert key(model, response_format="opus", stream_format="sse") == same


def _prompted(model: ServedModel) -> bool:
    return model.synthesizer.loaded.voices.read(None)[1].prompt is not None


def test_a_voice_counts_by_its_content(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = model.synthesizer.loaded.voices
    _, voice = kept.read("espeak_male")
    louder = voices.Voice(voice.speaker * 1.01, voice.prompt)
    of = {"one": voice, "its copy": voice, "louder": louder}
    monkeypatch.setattr(type(kept), "read", lambda _, name: (name, of[name]))
    assert key(model, voice="one") == key(model, voice="its copy")
    assert key(model, voice="one") != key(model, voice="louder")


def test_the_content_of_a_voice_is_hashed_once(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[voices.Voice] = []
    to_bytes = voices.Voice.to_bytes

    def counting(own: voices.Voice) -> bytes:
        hashed.append(own)
        return to_bytes(own)

    monkeypatch.setattr(voices.Voice, "to_bytes", counting)
    kept = model.synthesizer.loaded.voices
    _, voice = kept.read("espeak_male")
    again = voices.Voice(voice.speaker, voice.prompt)
    monkeypatch.setattr(type(kept), "read", lambda _, name: (name, again))
    assert len({key(model, input=text) for text in ("One.", "Two.", "Three.")}) == 3
    assert len(hashed) == 1


def test_a_bundle_counts_by_its_networks(model: ServedModel, synthesizer: Synthesizer) -> None:
    bundle = synthesizer.loaded.bundle
    other = msgspec.structs.replace(bundle.manifest, sample_rate=bundle.manifest.sample_rate + 1)
    changed = dataclasses.replace(bundle, manifest=other)
    object.__setattr__(synthesizer.loaded, "bundle", changed)
    try:
        assert ServedModel.of(MODEL, synthesizer).digest != model.digest
    finally:
        object.__setattr__(synthesizer.loaded, "bundle", bundle)
    assert ServedModel.of(MODEL, synthesizer).digest == model.digest


def test_a_hot_text_is_spoken_once_and_then_has_a_length(serve: Serve) -> None:
    found = serve()
    made = found.speak(TEXT, response_format="wav")
    assert "content-length" not in made.headers
    for kind in ("wav", "flac", "mp3", "mp3", "opus", "pcm"):
        kept = found.speak(TEXT, response_format=kind)
        assert int(kept.headers["content-length"]) == len(kept.body)
        if kind == "wav":
            assert kept.body[44:] == made.body[44:]
            assert int.from_bytes(kept.body[40:44], "little") == len(kept.body) - 44
    assert (found.metric(MISS), found.metric(HIT)) == (1, 6)
    assert found.metric("edgepack_cache_bytes") > len(made.body)


def test_events_of_kept_audio_say_what_it_cost(serve: Serve) -> None:
    found = serve()
    made, kept = (
        found.speak(TEXT, response_format="pcm", stream_format="sse").body for _ in range(2)
    )
    assert found.metric(HIT) == 1
    first, second = (
        msgspec.json.decode(body.split(b"\n\n")[-2].removeprefix(b"data: "))
        for body in (made, kept)
    )
    assert first["usage"] == second["usage"]
    assert "synthesis" in first
    assert "synthesis" not in second  # nothing was spoken for it


def test_a_folder_of_speech_survives_the_server(serve: Serve, tmp_path: Path) -> None:
    first = serve(cache_folder=tmp_path / "kept")
    made = first.speak(TEXT, response_format="pcm")
    within(10, lambda: first.metric("edgepack_cache_bytes") > 0)  # it is written after the answer
    second = serve(cache_folder=tmp_path / "kept")
    assert second.speak(TEXT, response_format="pcm").body == made.body
    assert (second.metric(MISS), second.metric(HIT)) == (0, 1)
