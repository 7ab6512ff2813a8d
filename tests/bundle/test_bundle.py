"""Bundles on disk: what is in the manifest, what is refused, and folders that appear whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bounded import refused_within
from linked import changed, linked
from support import Build

from edgepack.bundle.bundle import MANIFEST, Bundle, open_bundle, stored
from edgepack.bundle.manifest import FORMAT, StoredFile
from edgepack.errors import IntegrityError, UnsupportedError, UsageError

TOKENIZER = "tokenizer.json"


@pytest.fixture
def tiny(bundle: Build, tmp_path: Path) -> Bundle:
    """A copy to change, by replacing files."""
    return linked(bundle("tiny"), tmp_path)


def put(bundle: Bundle, data: bytes) -> None:
    """Another manifest."""
    (bundle.folder / MANIFEST).unlink()
    (bundle.folder / MANIFEST).write_bytes(data)


def test_every_file_is_listed_with_its_size_and_hash(tiny: Bundle) -> None:
    found = {str(p.relative_to(tiny.folder)) for p in tiny.folder.rglob("*") if p.is_file()}
    assert found - {MANIFEST} == set(tiny.manifest.files)
    for name, wanted in tiny.manifest.files.items():
        assert stored(tiny.path(name)) == wanted
    tiny.check(tiny.manifest.files)


def by_size(bundle: Bundle) -> list[str]:
    return sorted(bundle.manifest.files, key=lambda name: bundle.manifest.files[name].bytes)


@pytest.mark.parametrize("place", [0, -1], ids=["smallest", "largest"])
@pytest.mark.parametrize("byte", [0, 1 / 2, 1], ids=["first", "middle", "last"])
def test_a_flipped_bit_is_found(tiny: Bundle, place: int, byte: float) -> None:
    name = by_size(tiny)[place]
    data = bytearray((tiny.folder / name).read_bytes())
    data[int(byte * (len(data) - 1))] ^= 1
    changed(tiny, name, bytes(data))
    with pytest.raises(IntegrityError, match=f"{name}: not the bytes that were built"):
        tiny.check([name])
    tiny.check(set(tiny.manifest.files) - {name})


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b""])
def test_a_file_of_another_length_is_found(tiny: Bundle, change: Callable[[bytes], bytes]) -> None:
    changed(tiny, TOKENIZER, change((tiny.folder / TOKENIZER).read_bytes()))
    with pytest.raises(IntegrityError, match="not the bytes that were built"):
        tiny.check([TOKENIZER])


def test_a_missing_file_and_a_folder_in_its_place_are_found(tiny: Bundle) -> None:
    (tiny.folder / TOKENIZER).unlink()
    for folder in (False, True):
        if folder:
            (tiny.folder / TOKENIZER).mkdir()
        with pytest.raises(IntegrityError, match=f"{TOKENIZER}: missing from the bundle"):
            tiny.check([TOKENIZER])


def test_a_file_that_is_not_listed_is_never_used(tiny: Bundle) -> None:
    (tiny.folder / "extra").write_bytes(b"x")
    with pytest.raises(IntegrityError, match="extra is used but not listed"):
        tiny.path("extra")
    open_bundle(tiny.folder).check(tiny.manifest.files)


def test_a_changed_byte_anywhere_in_the_manifest_is_found(tiny: Bundle) -> None:
    whole = (tiny.folder / MANIFEST).read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 200)):
        for mask in (1, 0x20):  # the second changes the case of a letter
            put(tiny, whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
            with pytest.raises((IntegrityError, UnsupportedError)) as caught:
                open_bundle(tiny.folder)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format": %d}' % FORMAT]
)
def test_what_is_no_manifest_is_refused(tiny: Bundle, data: bytes) -> None:
    put(tiny, data)
    with pytest.raises(IntegrityError, match=MANIFEST):
        open_bundle(tiny.folder)


def test_a_manifest_of_any_size_is_not_read(tiny: Bundle) -> None:
    put(tiny, b"")
    with (tiny.folder / MANIFEST).open("wb") as file:
        file.truncate(9 << 20)
    with pytest.raises(IntegrityError, match="larger than 8 MiB"):
        open_bundle(tiny.folder)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (0, "build it again"),
        (FORMAT - 1, "build it again"),
        (FORMAT + 1, "update"),
        (str(FORMAT), "update"),
        ([FORMAT], "update"),
    ],
)
def test_another_format_is_unsupported(tiny: Bundle, number: object, advice: str) -> None:
    tree = json.loads((tiny.folder / MANIFEST).read_bytes()) | {"format": number}
    put(tiny, json.dumps(tree).encode())
    with pytest.raises(UnsupportedError, match=f"this edgepack reads {FORMAT}; {advice}"):
        open_bundle(tiny.folder)


@pytest.mark.parametrize("filling", [b"[]", b"{}", b'""'])
def test_a_manifest_full_of_nothing_takes_little_memory(tiny: Bundle, filling: bytes) -> None:
    many = b",".join([filling] * (2 << 20))
    put(tiny, b'{"format":%d,"a":[' % FORMAT + many + b"]}")
    refused_within(open_bundle, tiny.folder, match="not a valid manifest")


def test_a_manifest_written_another_way_is_refused(tiny: Bundle) -> None:
    tree = json.loads((tiny.folder / MANIFEST).read_bytes())
    put(tiny, json.dumps(tree).encode())
    with pytest.raises(IntegrityError, match="does not match its own hash"):
        open_bundle(tiny.folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="no bundle there"):
            open_bundle(folder)


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "..\\secret", "ABSOLUTE"])
def test_names_outside_the_bundle_are_refused(tiny: Bundle, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    name = name.replace("ABSOLUTE", str(secret))
    files = tiny.manifest.files | {name: StoredFile(bytes=1, sha256=stored(secret).sha256)}
    listed = tiny.with_manifest(msgspec.structs.replace(tiny.manifest, files=files, tokenizer=name))
    with pytest.raises(IntegrityError, match=r"not a valid manifest .*\$\.tokenizer"):
        open_bundle(tiny.folder)
    assert listed.manifest.tokenizer == name


def test_links_out_of_the_bundle_are_refused_and_links_inside_are_not(
    tiny: Bundle, tmp_path: Path
) -> None:
    inside, outside = tiny.folder / "moved", tmp_path / "outside"
    (tiny.folder / TOKENIZER).rename(inside)
    (tiny.folder / TOKENIZER).symlink_to("moved")
    tiny.check([TOKENIZER])
    inside.rename(outside)
    (tiny.folder / TOKENIZER).unlink()
    (tiny.folder / TOKENIZER).symlink_to(outside)
    with pytest.raises(IntegrityError, match="points outside the bundle"):
        tiny.check([TOKENIZER])


def test_a_linked_folder_out_of_the_bundle_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    (tiny.folder / "voices").rename(tmp_path / "voices")
    (tiny.folder / "voices").symlink_to(tmp_path / "voices")
    with pytest.raises(IntegrityError, match="points outside the bundle"):
        tiny.check(tiny.manifest.voices.values())


def test_a_manifest_is_replaced_in_one_step(tiny: Bundle) -> None:
    renamed = tiny.with_manifest(msgspec.structs.replace(tiny.manifest, name="other"))
    assert open_bundle(tiny.folder) == renamed
    assert renamed.manifest.name == "other"
    assert not list(tiny.folder.glob(".*"))


def test_a_runtime_that_one_stage_lacks_is_not_offered(tiny: Bundle) -> None:
    assert tiny.runtimes() == ["ort", "openvino", "tflite"]
    stages: dict[str, Any] = dict(tiny.manifest.stages)
    only = {"openvino": stages["hift"].variants["openvino"]}
    stages["hift"] = msgspec.structs.replace(stages["hift"], variants=only)
    manifest = msgspec.structs.replace(tiny.manifest, stages=stages)
    assert Bundle(tiny.folder, manifest).runtimes() == ["openvino"]
