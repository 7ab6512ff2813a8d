"""Manifests: one way to be written, closed to everything they do not know."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import Build

from edgepack.bundle.bundle import MANIFEST, open_bundle
from edgepack.bundle.goals import Goals
from edgepack.bundle.manifest import Manifest, encode
from edgepack.errors import IntegrityError

Tree = dict[str, Any]


@pytest.fixture
def data(bundle: Build) -> bytes:
    return (bundle("tiny") / MANIFEST).read_bytes()


def opened(folder: Path, tree: Tree) -> Manifest:
    """The manifest of a tree, written as it has to be and with the right hash."""

    def canonical(tree: Tree) -> bytes:
        return (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode()

    rest = {key: value for key, value in tree.items() if key != "sha256"}
    digest = hashlib.sha256(canonical(rest)).hexdigest()
    (folder / MANIFEST).write_bytes(canonical({"sha256": digest, **rest}))
    return open_bundle(folder).manifest


def test_reading_and_writing_gives_the_same_bytes(data: bytes, tmp_path: Path) -> None:
    assert encode(opened(tmp_path, json.loads(data))) == data
    assert (tmp_path / MANIFEST).read_bytes() == data


def test_what_older_bundles_do_not_say_is_left_out(data: bytes, tmp_path: Path) -> None:
    tree = json.loads(data)
    tree["device"].pop("peak_bytes", None)
    assert opened(tmp_path, tree).device.peak_bytes is msgspec.UNSET
    tree["device"]["peak_bytes"] = 2_200_000_000
    assert opened(tmp_path, tree).device.peak_bytes == 2_200_000_000
    assert opened(tmp_path, tree).device.goals == Goals()
    del tree["device"]["goals"]
    assert opened(tmp_path, tree).device.goals is msgspec.UNSET


def test_the_hash_is_of_everything_else(data: bytes) -> None:
    head, rest = data.split(b"\n", 2)[1:]
    digest = hashlib.sha256(b"{\n" + rest).hexdigest()
    assert head == f' "sha256": "{digest}",'.encode()


def test_names_of_every_script_are_kept(data: bytes, tmp_path: Path) -> None:
    tree = json.loads(data)
    tree["voices"] = {"邻居": tree["voices"]["random"]}
    tree["default_voice"] = "邻居"
    assert list(opened(tmp_path, tree).voices) == ["邻居"]
    assert "邻居".encode() in (tmp_path / MANIFEST).read_bytes()


def records(tree: Any, where: str = "") -> list[tuple[str, Tree]]:
    """Every object below a tree with its path."""
    found = [(where, tree)] if isinstance(tree, dict) else []
    below = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in below:
        if isinstance(value, dict | list):
            found += records(value, f"{where}.{key}")
    return found


def test_an_unknown_field_is_refused_wherever_it_stands(data: bytes, tmp_path: Path) -> None:
    places = [where for where, _ in records(json.loads(data))]
    assert len(places) > 40
    for place in places:
        tree = json.loads(data)
        dict(records(tree))[place]["surprise"] = {"a": []}
        with pytest.raises(IntegrityError, match="not a valid manifest"):
            opened(tmp_path, tree)


def test_a_missing_field_is_refused(data: bytes, tmp_path: Path) -> None:
    required = [
        f.name for f in msgspec.structs.fields(Manifest) if f.required and f.name != "format"
    ]
    assert len(required) > 15
    for name in required:
        tree = json.loads(data)
        del tree[name]
        with pytest.raises(IntegrityError, match=f"not a valid manifest .*{name}"):
            opened(tmp_path, tree)


def swap(*path: str, value: object) -> Callable[[Tree], None]:
    def change(tree: Tree) -> None:
        for key in path[:-1]:
            tree = tree[key]
        assert path[-1] in tree
        tree[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        swap("sample_rate", value="24000"),
        swap("sample_rate", value=24000.5),
        swap("host", "flow", "steps", value=None),
        swap("files", "tokenizer.json", "bytes", value=-0.5),
        swap("files", "tokenizer.json", value=3),
        swap("stages", value=[]),
        swap("voices", "random", value=[]),
        swap("host", "language_model", "mix", value=[5]),
        swap("host", "prompt", "high", value=True),
    ],
)
def test_a_value_of_another_type_is_refused(
    data: bytes, tmp_path: Path, change: Callable[[Tree], None]
) -> None:
    tree = json.loads(data)
    change(tree)
    with pytest.raises(IntegrityError, match="not a valid manifest"):
        opened(tmp_path, tree)


def test_a_manifest_cannot_be_changed(bundle: Build) -> None:
    manifest = open_bundle(bundle("tiny")).manifest
    with pytest.raises(AttributeError):
        manifest.sample_rate = 8000  # type: ignore[misc]
