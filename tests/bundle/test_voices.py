"""Voices in a bundle: added, replaced, read back, and files that are none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from linked import changed, linked
from safetensors.numpy import save
from support import Build

from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.bundle.voices import Prompt, Voice
from edgepack.errors import IntegrityError, UsageError

RNG = np.random.default_rng(0)
SPEAKER = RNG.standard_normal(192).astype(np.float32)
MEL = RNG.standard_normal((8, 80)).astype(np.float32)
PROMPT = Prompt(np.array([5, 6]), np.array([1, 2, 3, 4]), MEL)
VOICE = Voice(SPEAKER, PROMPT)


@pytest.fixture
def tiny(bundle: Build, tmp_path: Path) -> Bundle:
    """A copy to change; its one voice is `random`."""
    return linked(bundle("tiny"), tmp_path)


def voice_files(bundle: Bundle) -> set[str]:
    found = (bundle.folder / "voices").iterdir()
    return {str(path.relative_to(bundle.folder)) for path in found}


def same(one: Voice, other: Voice) -> bool:
    return one.to_bytes() == other.to_bytes()


@pytest.mark.parametrize("voice", [Voice(SPEAKER), VOICE], ids=["speaker", "prompt"])
@pytest.mark.parametrize("name", ["me", "邻居 2", "a.b-c_d", "_", "x" * 64])
def test_an_added_voice_is_there_after_reopening(tiny: Bundle, name: str, voice: Voice) -> None:
    voices.add(tiny, name, voice)
    opened = open_bundle(tiny.folder)
    opened.check(opened.manifest.files)
    found, read = voices.read(opened, name)
    assert found == name
    assert same(read, voice)
    assert set(opened.manifest.voices) == {"random", name}
    assert voice_files(opened) == set(opened.manifest.voices.values())


def test_a_new_voice_does_not_become_the_default(tiny: Bundle) -> None:
    assert voices.read(tiny, None)[0] == "random"
    added = voices.add(voices.add(tiny, "z", VOICE), "a", VOICE)
    assert voices.read(added, None)[0] == "random"
    chosen = voices.make_default(added, "z")
    assert voices.read(open_bundle(tiny.folder), None)[0] == "z"
    assert voices.read(voices.add(chosen, "b", VOICE), None)[0] == "z"
    with pytest.raises(UsageError, match="unknown voice 'zz'"):
        voices.make_default(chosen, "zz")


def test_a_voice_is_removed_with_its_file(tiny: Bundle) -> None:
    added = voices.add(voices.add(tiny, "z", VOICE), "a", VOICE)
    left = voices.remove(added, "z")
    assert set(left.manifest.voices) == {"random", "a"}
    assert voice_files(left) == set(left.manifest.voices.values())
    assert voices.read(left, None)[0] == "random"
    left = voices.remove(left, "random")
    assert voices.read(open_bundle(tiny.folder), None)[0] == "a"
    left.check(left.manifest.files)
    bare = voices.remove(left, "a")
    with pytest.raises(UsageError, match="no voices in it"):
        voices.read(bare, None)
    assert voices.read(voices.add(bare, "z", VOICE), None)[0] == "z"
    with pytest.raises(UsageError, match="unknown voice 'a'"):
        voices.remove(bare, "a")


def test_the_last_voice_stays_where_none_can_be_made(tiny: Bundle) -> None:
    closed = tiny.with_manifest(msgspec.structs.replace(tiny.manifest, enrolment={}))
    with pytest.raises(UsageError, match="'random' is its last voice"):
        voices.remove(closed, "random")


def test_a_voice_is_replaced_only_when_asked(tiny: Bundle) -> None:
    added = voices.add(tiny, "me", VOICE)
    with pytest.raises(UsageError, match="'me' exists already"):
        voices.add(added, "me", Voice(SPEAKER))
    replaced = voices.add(added, "me", Voice(SPEAKER), replace=True)
    assert voices.read(replaced, "me")[1].prompt is None
    assert voice_files(replaced) == set(replaced.manifest.voices.values())
    assert len(replaced.manifest.files) == len(added.manifest.files)
    again = voices.add(replaced, "me", Voice(SPEAKER), replace=True)
    assert again.manifest == replaced.manifest
    assert same(voices.read(open_bundle(tiny.folder), "me")[1], Voice(SPEAKER))


def test_two_names_of_one_voice_have_their_own_files(tiny: Bundle) -> None:
    both = voices.add(voices.add(tiny, "a b", VOICE), "a.b", VOICE)
    left = voices.add(both, "a b", Voice(SPEAKER), replace=True)
    assert same(voices.read(left, "a.b")[1], VOICE)


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "../evil", "a/b", "/etc/passwd", "a\\b", "a\0b", "a\n", "x" * 65]
)
def test_a_name_that_is_a_path_or_none_is_refused(tiny: Bundle, name: str) -> None:
    before = voice_files(tiny)
    with pytest.raises(UsageError, match="voice name") as caught:
        voices.add(tiny, name, VOICE)
    assert "\n" not in str(caught.value)
    assert voice_files(tiny) == before
    assert open_bundle(tiny.folder) == tiny


def test_an_unknown_voice_is_met_with_a_suggestion(tiny: Bundle) -> None:
    with pytest.raises(UsageError, match="unknown voice 'randon'; did you mean 'random'"):
        voices.read(tiny, "randon")


PARTS: dict[str, Any] = {
    "speaker": SPEAKER,
    "prompt_text": PROMPT.text,
    "prompt_tokens": PROMPT.tokens,
}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        save({"speaker": SPEAKER})[:-1],
        save({"other": SPEAKER}),
        save(PARTS),
        save({**PARTS, "prompt_mel": MEL, "surprise": MEL}),
    ],
    ids=["empty", "noise", "cut off", "no speaker", "half a prompt", "unknown part"],
)
def test_a_file_that_is_no_voice_is_refused(tiny: Bundle, data: bytes) -> None:
    listed = changed(tiny, tiny.manifest.voices["random"], data, listed=True)
    with pytest.raises(IntegrityError, match="not a voice file"):
        voices.read(listed, "random")


def test_a_changed_voice_is_found_before_it_is_read(tiny: Bundle) -> None:
    name = tiny.manifest.voices["random"]
    other = changed(tiny, name, VOICE.to_bytes())
    with pytest.raises(IntegrityError, match="not the bytes that were built"):
        voices.read(other, "random")


def test_what_a_killed_process_left_is_cleared_away(tiny: Bundle) -> None:
    for name in ("lost-0123456789ab.safetensors", ".lost-0123456789ab.safetensors.99.tmp"):
        (tiny.folder / "voices" / name).write_bytes(VOICE.to_bytes())
    added = voices.add(tiny, "me", VOICE)
    assert voice_files(added) == set(added.manifest.voices.values())
    assert set(added.manifest.voices) == {"random", "me"}


def test_voices_that_are_added_at_once_are_all_there(tiny: Bundle) -> None:
    """Whoever adds one need not know of the others: the manifest is read again under a lock."""
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda n: voices.add(tiny, f"v{n}", VOICE), range(8)):
            pass
    opened = open_bundle(tiny.folder)
    assert set(opened.manifest.voices) == {"random", *(f"v{n}" for n in range(8))}
    opened.check(opened.manifest.files)
    assert voice_files(opened) == set(opened.manifest.voices.values())


def test_a_voice_has_one_way_to_be_written() -> None:
    wide = Prompt(
        PROMPT.text.astype(np.int32)[::1],
        np.repeat(PROMPT.tokens, 2)[::2],
        np.asfortranarray(MEL.astype(np.float64)),
    )
    assert Voice(SPEAKER.astype(np.float64), wide).to_bytes() == VOICE.to_bytes()


def test_a_default_that_is_no_voice_is_refused(tiny: Bundle) -> None:
    tiny.with_manifest(msgspec.structs.replace(tiny.manifest, default_voice="nobody"))
    with pytest.raises(IntegrityError, match="default_voice: not one of the voices"):
        open_bundle(tiny.folder)


@pytest.mark.parametrize(
    "name", ["女声(温柔)", "a/b", "", ".", "..", "x" * 65, "a\n", "\ud800", "+@#"]
)
def test_a_name_of_elsewhere_becomes_one_that_can_be(tiny: Bundle, name: str) -> None:
    safe = voices.safe_name(name)
    assert safe != name
    assert voices.safe_name(safe) == safe
    added = voices.add(tiny, safe, VOICE)
    assert voices.read(added, name or safe)[0] == safe


def test_a_name_that_can_be_stays_and_no_two_become_one() -> None:
    assert voices.safe_name("邻居 2") == "邻居 2"
    assert len({voices.safe_name(name) for name in ("a/b", "a#b", "a_b", "a//b")}) == 4
