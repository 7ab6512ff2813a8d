"""`edgepack inspect` and `edgepack targets`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from linked import linked
from support import Build, Checkpoints

from cli import Cli, copied
from edgepack.model.inspection import inspect_checkpoint
from edgepack.model.releases import Recognised
from edgepack.profiles import target


def test_a_bundle_is_told_as_its_manifest(
    cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # wherever this is run
    folder = bundle("tiny")
    told = cli("inspect", folder, "--json")
    assert (told.code, told.err) == (0, "")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    document = told.document
    measured = document.pop("measured")
    gpu = document.pop("gpu_delegate")
    assert (gpu["tensorflow"], gpu["checked"], gpu["networks"]) == (None, False, {})
    assert gpu["reason"] == "tensorflow is not installed; pip install 'edgepack[tensorflow]'"
    assert document == {"kind": "bundle", "path": str(folder), **manifest}
    assert set(measured["errors"]["openvino"]) == set(manifest["stages"])
    shown = cli("inspect", folder).out
    for word in (*manifest["stages"], "openvino", "cosyvoice2", "random", "speaker_encoder"):
        assert word in shown
    assert f"GPU delegate of LiteRT: not known; {gpu['reason']}" in shown
    assert cli("inspect", folder, "--quiet") == (0, "", "")


def test_a_bundle_says_which_language_model_it_has(cli: Cli, bundle: Build, tmp_path: Path) -> None:
    opened = linked(bundle("tiny"), tmp_path)
    assert "made of: cosyvoice2.yaml, llm.pt, " in cli("inspect", opened.folder).out
    files = {n.replace("llm.pt", "llm.rl.pt"): sha for n, sha in opened.manifest.source.items()}
    opened.with_manifest(msgspec.structs.replace(opened.manifest, source=files))
    assert "made of: cosyvoice2.yaml, llm.rl.pt, " in cli("inspect", opened.folder).out


def test_a_checkpoint_is_counted(cli: Cli, checkpoints: Checkpoints) -> None:
    folder = checkpoints("tiny")
    told = cli("inspect", folder, "--json")
    assert (told.code, told.err) == (0, "")
    document = told.document
    assert (document["kind"], document["family"]) == ("checkpoint", "cosyvoice2")
    assert document["voices"] == ["random"]
    assert document["enrolment"] == ["speaker_encoder", "speech_tokenizer"]
    for part in document["parts"]:
        stored = Path(folder, f"{part['name']}.pt").stat().st_size
        assert 0.8 * stored < part["bytes"] <= stored
        assert part["tensors"] == sum(part["dtypes"].values())
    shown = cli("inspect", folder).out
    assert f"{document['parts'][0]['parameters']:,}" in shown
    assert document["parts"][0]["file"] == "llm.pt"
    assert "llm.pt" in shown
    assert cli("inspect", folder, "--quiet") == (0, "", "")


def test_the_release_of_a_checkpoint_is_named(
    cli: Cli, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoints("tiny")
    release = cli("inspect", folder, "--json").document["release"]
    assert (release["model"], release["names"]) == ("CosyVoice2", [])
    assert "release: unknown: CosyVoice2 of other dimensions" in cli("inspect", folder).out
    found = inspect_checkpoint(Path(folder))
    known = Recognised("CosyVoice3", ("Third",), "29e01c4", "RL", {"llm.pt": "llm.rl.pt there"})
    monkeypatch.setattr(
        "edgepack.builder.survey.summary", lambda *_: (replace(found, release=known), None)
    )
    shown = cli("inspect", folder).out
    assert "release: Third (revision 29e01c4), RL language model, by its dimensions\n" in shown
    assert "files of the release: llm.pt (llm.rl.pt there)\n" in shown
    release = cli("inspect", folder, "--json").document["release"]
    assert (release["names"], release["variant"]) == (["Third"], "RL")


def test_a_folder_that_is_neither_is_a_usage_error(cli: Cli) -> None:
    assert cli("inspect", ".").code == 2


@pytest.mark.parametrize("name", ["[/b]", "[red]", ":smile:"])
def test_names_are_shown_as_they_are(cli: Cli, bundle: Build, name: str) -> None:
    folder = copied(bundle("tiny"), Path(f"x{name}"))
    shown = cli("voice", "list", folder)
    assert shown.code == 0
    assert f"voices of {folder}" in shown.out
    missing = cli("verify", folder, "--format", "ort", "--against", f"{name}/nothing")
    assert missing.code == 2
    assert f"{name}/nothing" in missing.message


def test_targets_are_listed_and_explained(cli: Cli) -> None:
    listed = cli("targets")
    assert (listed.code, listed.err) == (0, "")
    for name in target.names():
        assert name in listed.out
        explained = cli("targets", name)
        profile = cli("targets", name, "--json").document["targets"][name]
        assert explained.out.startswith(f"{name}: {profile['summary']}\n")
        for runtime in profile["runtimes"]:
            assert f"runtime: {runtime}, " in explained.out
        assert cli("targets", name, "--quiet") == (0, "", "")
    assert set(cli("targets", "--json").document["targets"]) == set(target.names())
    assert cli("targets", "--quiet") == (0, "", "")


def test_the_version_and_the_help_are_no_errors(cli: Cli) -> None:
    assert cli("--version").out.startswith("edgepack, version ")
    for arguments in (["--help"], ["-h"], ["run", "--help"]):
        ran = cli(*arguments)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith("Usage: edgepack")


def test_the_embedded_voice_can_be_looked_into(cli: Cli) -> None:
    told = cli("inspect", "demo", "--json")
    assert told.code == 0
    assert told.document["kind"] == "checkpoint"
    assert "espeak_female" in told.document["voices"]
