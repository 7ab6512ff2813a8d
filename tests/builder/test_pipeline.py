"""Building: keys that stand for every input, reuse, and bundles that appear whole or not."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch_zip_writer as writer
from support import DATA, GOLDEN

from edgepack.builder import pipeline
from edgepack.builder import planning as planning
from edgepack.builder.conversion import convert
from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest, VoiceRequest, open_source, plan
from edgepack.bundle import measurements, voices
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.bundle.measurements import Measurements
from edgepack.errors import GateError, IntegrityError, UsageError
from edgepack.process.isolation import isolated

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
TARGET = "intel-cpu"
PROMPT = (GOLDEN / "common" / "prompt_24k.wav").read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint to change, by replacing files."""
    return Path(shutil.copytree(SOURCE, tmp_path / "model", copy_function=os.link))


def request(model: Path, output: Path) -> BuildRequest:
    return BuildRequest(model=str(model), targets=[TARGET], output=output, formats=["ort"])


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def key(wanted: BuildRequest) -> str:
    (found,) = plan(wanted, open_source(wanted.model))
    return found.key


def put(path: Path, data: bytes) -> Path:
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One bundle for all tests that do not change it."""
    folder = tmp_path_factory.mktemp("built")
    model = Path(shutil.copytree(SOURCE, folder / "model"))
    (result,) = build(request(model, folder / "out"))
    assert not result.reused
    return result.bundle


def copy_of(built: Bundle, output: Path) -> Bundle:
    """The bundle where a build into `output` looks for it."""
    copied = shutil.copytree(built.folder, output / built.folder.name, copy_function=os.link)
    return open_bundle(Path(copied))


def test_a_build_leaves_a_bundle_and_nothing_else(built: Bundle) -> None:
    assert set(built.folder.parent.iterdir()) == {built.folder, measurements.place(built.folder)}
    assert open_bundle(built.folder) == built
    built.check(built.manifest.files)
    assert built.manifest.build == key(request(built.folder.parent.parent / "model", Path("x")))


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(
    built: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, there = measurements.write, list[bool]()

    def watched(bundle: Path, measured: Measurements) -> None:
        there.append(bundle.exists())
        write(bundle, measured)

    monkeypatch.setattr(measurements, "write", watched)
    (again,) = build(request(folder, tmp_path / "other"))
    assert there == [False]  # a build that is killed between the two leaves no bundle without them
    wanted, found = contents(built.folder), contents(again.bundle.folder)
    assert wanted.keys() == found.keys()
    assert [name for name in wanted if wanted[name] != found[name]] == []


def test_an_intact_bundle_is_reused_untouched(built: Bundle, folder: Path, tmp_path: Path) -> None:
    bundle = copy_of(built, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in bundle.folder.rglob("*")}
    told: list[str] = []
    (again,) = build(request(folder, tmp_path), told.append)
    assert again.reused
    assert again.bundle == bundle
    assert told == ["reading the checkpoint"]
    assert {path: path.stat().st_mtime_ns for path in bundle.folder.rglob("*")} == times


def test_what_killed_builds_left_goes_also_when_there_is_nothing_to_build(
    built: Bundle, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(built.folder.parent, output)
    before = {path.name for path in output.iterdir()}
    for left in (".hub.0000000a.tmp", f".{built.folder.name}.0000000b.tmp"):
        (output / left / "new").mkdir(parents=True)
        (output / left / "lock").touch()
    (output / f".{built.folder.name}.build.json.0000000c.tmp").touch()
    assert build(request(folder, output))[0].reused
    assert {path.name for path in output.iterdir()} == before


@pytest.mark.slow
def test_a_damaged_bundle_is_not_reused_but_repaired_by_force(
    built: Bundle, folder: Path, tmp_path: Path
) -> None:
    bundle = copy_of(built, tmp_path)
    put(bundle.folder / "tokenizer.json", b"{}")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: not the bytes that were built"):
        build(request(folder, tmp_path))
    (again,) = build(replace(request(folder, tmp_path), force=True))
    assert not again.reused
    assert contents(again.bundle.folder) == contents(built.folder)


def test_a_bundle_of_other_inputs_is_replaced_only_by_force(
    built: Bundle, folder: Path, tmp_path: Path
) -> None:
    bundle = copy_of(built, tmp_path)
    before = contents(bundle.folder)
    put(folder / "cosyvoice2.yaml", (SOURCE / "cosyvoice2.yaml").read_bytes() + b"\n# more\n")
    with pytest.raises(UsageError, match="give --force to replace it"):
        build(request(folder, tmp_path))
    assert contents(bundle.folder) == before


@pytest.mark.slow
def test_a_build_that_fails_late_leaves_what_was_there(
    built: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise UsageError("late")

    bundle = copy_of(built, tmp_path / "out")
    before = contents(bundle.folder)
    monkeypatch.setattr(pipeline, "describe", fails)
    with pytest.raises(UsageError, match="late"):
        build(replace(request(folder, tmp_path / "out"), force=True))
    assert list((tmp_path / "out").iterdir()) == [bundle.folder]
    assert contents(bundle.folder) == before


@pytest.mark.slow
def test_a_runtime_that_cannot_be_built_for_says_that_another_can(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the conversion, where the first runtime has been converted already."""

    def refusing(function: Callable[..., object], *arguments: object, **options: object) -> object:
        if function is convert and getattr(arguments[0], "runtime", "") == "openvino":
            raise GateError("speech_lm is off")
        return isolated(function, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("edgepack.builder.pipeline.isolated", refusing)
    wanted = replace(request(folder, tmp_path / "out"), formats=["ort", "openvino"])
    with pytest.raises(GateError, match=r"openvino failed: speech_lm is off; ort .*--format ort$"):
        build(wanted)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_voices_of_a_table_are_named_safely_and_found_by_their_own_names(
    folder: Path, tmp_path: Path
) -> None:
    names = ["../../evil", "女声(温柔)"]
    tree: dict[str, object] = {name: {"embedding": np.zeros((1, 192))} for name in names}
    (folder / "spk2info.pt").unlink()
    writer.save(folder / "spk2info.pt", tree | {"no voice": 1})
    (made,) = build(request(folder, tmp_path / "out"))
    bundle = made.bundle
    files = {path.parent for path in tmp_path.rglob("*evil*")}
    assert files == {bundle.folder / "voices"}
    assert all("evil" in n or n.startswith("女声_温柔-") for n in bundle.manifest.voices)
    assert {voices.read(bundle, name)[0] for name in names} == set(bundle.manifest.voices)
    assert [line.split("'")[1] for line in made.warnings] == [*names, "no voice"]
    chosen = voices.make_default(bundle, names[1])
    assert set(voices.remove(chosen, names[1]).manifest.voices) == {voices.safe_name(names[0])}


def test_a_request_with_a_voice_that_cannot_be_named_is_refused_before_anything(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "planned", None)
    for names, words in ((["a/b"], "voice name 'a/b'"), (["a", "a"], "'a' is given twice")):
        wanted = [VoiceRequest(name, GOLDEN / "common" / "prompt_24k.wav", "Hi") for name in names]
        with pytest.raises(UsageError, match=words):
            build(replace(request(folder, tmp_path / "out"), voices=wanted))


CHANGES: dict[str, Callable[[BuildRequest, Path], BuildRequest]] = {
    "target": lambda r, f: replace(r, targets=["linux-arm64"]),
    "format": lambda r, f: replace(r, formats=["openvino"]),
    "precision": lambda r, f: replace(r, precision="fp16"),
    "language": lambda r, f: replace(r, languages=["en"]),
    "voice": lambda r, f: replace(r, voices=[VoiceRequest("a", put(f / "a.wav", PROMPT), "hello")]),
    "enrolment": lambda r, f: replace(r, keep_enrolment=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_key_changes_with_the_request(folder: Path, tmp_path: Path, change: str) -> None:
    plain = request(folder, tmp_path)
    assert key(CHANGES[change](plain, tmp_path)) != key(plain)


def test_the_key_changes_with_what_files_of_the_request_hold(folder: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    plain = replace(request(folder, tmp_path), languages=["en"], keep_text=words)
    assert key(replace(plain, keep_text=put(words, b"a"))) != key(
        replace(plain, keep_text=put(words, b"b"))
    )


def test_the_key_changes_with_every_file_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    plain = request(folder, tmp_path)
    source = open_source(plain.model)
    keys = [key(plain)]
    for name in source.hashes:
        data = (folder / name).read_bytes()
        put(folder / name, data + b" ")
        keys.append(key(plain))
        put(folder / name, data)
    assert len(set(keys)) == 1 + len(source.hashes)
    assert key(plain) == keys[0]


def test_the_key_changes_with_the_tools(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = request(folder, tmp_path)
    before, tools = key(plain), planning.tools()
    monkeypatch.setattr(planning, "tools", lambda: tools | {"onnxruntime": "9.9"})
    assert key(plain) != before


def test_the_key_does_not_depend_on_places(folder: Path, tmp_path: Path) -> None:
    plain = request(folder, tmp_path)
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "model"))
    other = replace(plain, model=str(moved), output=tmp_path / "elsewhere", force=True)
    assert key(other) == key(plain)


def test_only_the_formats_asked_for_are_planned(folder: Path, tmp_path: Path) -> None:
    plain = replace(request(folder, tmp_path), formats=())
    source = open_source(plain.model)
    for formats, wanted in (
        ((), ["ort", "openvino"]),
        (["openvino"], ["openvino"]),
        (["openvino", "ort"], ["ort", "openvino"]),
    ):
        (found,) = plan(replace(plain, formats=formats), source)
        assert list(found.profile.runtimes) == wanted
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        plan(replace(plain, formats=["openvin"]), source)


def test_a_target_named_twice_is_built_once(folder: Path, tmp_path: Path) -> None:
    twice = replace(request(folder, tmp_path), targets=[TARGET, TARGET])
    assert len(plan(twice, open_source(twice.model))) == 1


def test_a_bundle_has_only_the_runtimes_asked_for(built: Bundle) -> None:
    assert built.runtimes() == ["ort"]
    assert not [name for name in built.manifest.files if name.startswith("openvino")]
    listed = {
        file
        for stage in built.manifest.stages.values()
        for variant in stage.variants.values()
        for file in variant.files
    }
    assert listed == {name for name in built.manifest.files if name.startswith("ort/")}
    assert msgspec.to_builtins(built.manifest)["target"] == TARGET
