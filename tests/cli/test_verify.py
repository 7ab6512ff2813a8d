"""`edgepack verify`: hashes and the self-test. Vectors: tests/verification/test_vectors.py."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from linked import changed, linked
from safetensors.numpy import load_file, save_file
from support import RUNTIMES, Build

from cli import Cli, contents, copied
from edgepack.bundle.bundle import open_bundle, stored
from edgepack.bundle.manifest import FORMAT


@pytest.fixture
def tiny(bundle: Build) -> Path:
    return bundle("tiny")


@pytest.fixture
def changeable(tiny: Path, tmp_path: Path) -> Path:
    return copied(tiny, tmp_path)


def change_answer(bundle: Path, stage: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change an answer in the self-test, and the manifest with it."""
    opened = open_bundle(bundle)
    path = opened.path(opened.manifest.self_test)
    arrays = load_file(path)
    name = next(name for name in arrays if name.startswith(f"{stage}/0/out/"))
    save_file({**arrays, name: np.ascontiguousarray(change(arrays[name]))}, path)
    files = {**opened.manifest.files, opened.manifest.self_test: stored(path)}
    opened.with_manifest(msgspec.structs.replace(opened.manifest, files=files))


def test_an_intact_bundle_passes_in_every_runtime(cli: Cli, tiny: Path) -> None:
    before = contents(tiny)
    told = cli("verify", tiny, "--json")
    assert (told.code, told.err) == (0, "")
    assert told.document["passed"] is True
    assert "error" not in told.document
    assert set(told.document["runtimes"]) == set(RUNTIMES)
    stages = json.loads((tiny / "manifest.json").read_text())["stages"]
    for result in told.document["runtimes"].values():
        assert [row["stage"] for row in result["self_test"]] == list(stages)
        assert all(0 <= row["error"] <= row["limit"] for row in result["self_test"])
        assert all(row["passed"] for row in result["self_test"])
        assert result["arrays"] == []
    assert contents(tiny) == before


def test_one_runtime_can_be_asked_for(cli: Cli, tiny: Path) -> None:
    told = cli("verify", tiny, "--format", "ort")
    assert told.code == 0
    assert told.err == "verify: [0:00:00] 1 of 1: self-test in ort\n"
    assert "all checks passed in ort" in told.out
    assert "openvino" not in told.out
    assert cli("verify", tiny, "--format", "ort", "--quiet") == (0, "", "")
    assert cli("verify", tiny, "--format", "or").code == 2


@pytest.mark.parametrize(
    "change", [lambda a: a[..., :1], lambda a: a * np.nan], ids=["shape", "NaN"]
)
def test_a_self_test_of_other_networks_is_refused(
    cli: Cli, changeable: Path, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    change_answer(changeable, "text_embedding", change)
    ran = cli("verify", changeable, "--format", "ort")
    assert ran.code == 4
    assert "selftest.safetensors: " in ran.message


def test_a_network_that_answers_otherwise_fails_and_is_named(cli: Cli, changeable: Path) -> None:
    change_answer(changeable, "text_embedding", lambda answer: answer + 1)
    ran = cli("verify", changeable, "--format", "ort", "--json")
    assert ran.code == 1
    assert "first ort text_embedding" in ran.message
    assert ran.document["passed"] is False
    assert ran.document["error"]["kind"] == "gate"
    rows = ran.document["runtimes"]["ort"]["self_test"]
    assert [row["stage"] for row in rows if not row["passed"]] == ["text_embedding"]
    shown = cli("verify", changeable, "--format", "ort")
    assert shown.code == 1
    assert shown.out.count("OFF") == 1


def test_a_changed_byte_anywhere_is_found(cli: Cli, changeable: Path) -> None:
    for path in sorted(p for p in changeable.rglob("*") if p.is_file()):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        ran = cli("verify", changeable, "--format", "ort")
        path.write_bytes(data)
        assert ran.code == 4, path
        assert path.name in ran.message


def test_a_missing_file_is_found(cli: Cli, changeable: Path) -> None:
    (changeable / "tokenizer.json").unlink()
    ran = cli("verify", changeable, "--json")
    assert ran.code == 4
    assert ran.document["error"]["kind"] == "integrity"
    assert "tokenizer.json: missing" in ran.message


def test_a_newer_bundle_format_is_unsupported(cli: Cli, changeable: Path) -> None:
    manifest = changeable / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    ran = cli("verify", changeable)
    assert ran.code == 3
    assert "update edgepack" in ran.message


def test_an_older_bundle_format_has_to_be_built_again(cli: Cli, changeable: Path) -> None:
    manifest = changeable / "manifest.json"
    old = FORMAT - 1
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', f'"format": {old}'))
    ran = cli("verify", changeable)
    assert ran.code == 3
    assert ran.message.startswith(f"{manifest}: bundle format {old}, ")
    assert "build it again" in ran.message


@pytest.mark.parametrize("part", ["tokenizer", "voice", "normalizer"])
def test_what_speaks_besides_networks_is_opened(
    cli: Cli, tiny: Path, tmp_path: Path, part: str
) -> None:
    bundle = linked(tiny, tmp_path)
    manifest = bundle.manifest
    name = {
        "tokenizer": manifest.tokenizer,
        "voice": next(iter(manifest.voices.values())),
        "normalizer": next(n.files[0] for n in manifest.normalizers.values() if n.files),
    }[part]
    changed(bundle, name, b"{}", listed=True)
    ran = cli("verify", bundle.folder, "--format", "ort")
    assert ran.code == 4
    assert Path(name).name in ran.err  # where a library has its say as well
