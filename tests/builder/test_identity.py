"""What a key stands for, what is the same in every build, and what is not in the bundle."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgepack.builder.calibration import recordings
from edgepack.builder.choices import read_choices
from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest, Plan, open_source, plan, tools
from edgepack.bundle import measurements
from edgepack.bundle.bundle import MANIFEST, Bundle
from edgepack.bundle.manifest import Manifest
from edgepack.bundle.measurements import Measurements
from edgepack.errors import UsageError

SOURCE = open_source("demo")


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    return BuildRequest("demo", ["intel-cpu"], tmp_path / "out", ["ort"], precision="int8")


def planned(request: BuildRequest, **options: object) -> Plan:
    return plan(replace(request, **options), SOURCE)[0]  # type: ignore[arg-type]


def test_everything_that_decides_is_in_the_key(request_: BuildRequest, tmp_path: Path) -> None:
    recipe, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    recipe.write_text("ort: {speech_lm: nbits8}")
    other.write_text("ort: {speech_lm: fp16}")
    table = tmp_path / "table.json"
    step = {"time": 0, "guided": False, "conditional": [1], "free": []}
    table.write_bytes(msgspec.json.encode({"steps": [step]}))
    keys = [
        planned(request_, **options).key
        for options in (
            {},
            {"recipe": recipe},
            {"recipe": other},
            {"solver": str(table)},
            {"solver": "reference"},
            {"allow_failed_gate": True},
            {"precision": "int4"},
            {"languages": ["zh"]},
        )
    ]
    assert len(set(keys)) == len(keys)
    assert planned(request_).key == keys[0]
    recipe.write_text("# the same\nort:\n  speech_lm: nbits8\n")
    assert planned(request_, recipe=recipe).key == keys[1]


def test_the_package_that_measures_pesq_is_in_the_key(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(request_).key
    found = {**tools(), "pesq": "0.0.4"} if "pesq" not in tools() else dict(tools())
    if "pesq" in tools():
        del found["pesq"]
    monkeypatch.setattr("edgepack.builder.planning.tools", lambda: found)
    assert planned(request_).key != before


def test_a_bundle_of_the_same_request_says_only_which_outcome_is_wanted(
    request_: BuildRequest, int8_demo: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = planned(request_)
    chosen = read_choices(int8_demo.folder)
    monkeypatch.setattr(
        "edgepack.builder.planning.read_choices", lambda path: replace(chosen, build=plain.key)
    )
    same = planned(request_, recipe=int8_demo.folder)
    assert same.key == plain.key
    assert same.choices.name("ort", "speech_lm") == "nbits8"
    monkeypatch.setattr("edgepack.builder.planning.read_choices", lambda path: chosen)
    assert planned(request_, recipe=int8_demo.folder).key != plain.key


def test_nothing_that_was_measured_for_the_choice_is_in_the_manifest(int8_demo: Bundle) -> None:
    fields = {f.name for record in records(Manifest) for f in msgspec.structs.fields(record)}
    assert {"recipe", "reason", "limits", "not_measured"} <= fields
    assert not {"speed", "seconds", "offers", "error", "errors", "peak"} & fields
    measured = measurements.read(int8_demo)
    assert measured
    assert set(measured.errors["ort"]) == set(int8_demo.manifest.stages)
    assert sum(measured.seconds.values()) > 0
    assert measurements.place(int8_demo.folder).parent == int8_demo.folder.parent


def records(kind: object) -> set[type[msgspec.Struct]]:
    """A type of a record and those of its parts."""
    found: set[type[msgspec.Struct]] = set()

    def visit(kind: object) -> None:
        info = msgspec.inspect.type_info(kind)
        for part in walk(info):
            if isinstance(part, msgspec.inspect.StructType) and part.cls not in found:
                found.add(part.cls)
                for one in part.fields:
                    for inner in walk(one.type):
                        if isinstance(inner, msgspec.inspect.StructType):
                            visit(inner.cls)

    def walk(info: object) -> list[object]:
        parts = [info]
        for name in ("types", "item_types"):
            parts += [p for inner in getattr(info, name, ()) for p in walk(inner)]
        for name in ("item_type", "value_type", "type"):
            if (inner := getattr(info, name, None)) is not None:
                parts += walk(inner)
        return parts

    visit(kind)
    return found


def test_measurements_of_another_build_are_not_shown(int8_demo: Bundle) -> None:
    measured = measurements.read(int8_demo)
    assert isinstance(measured, Measurements)
    other = msgspec.structs.replace(int8_demo.manifest, build="another")
    assert measurements.read(Bundle(int8_demo.folder, other)) is None


def test_recordings_are_of_the_code_that_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Path] = []
    first = recordings.recorded("kind", "key", made.append)
    assert recordings.recorded("kind", "key", made.append) == first
    assert len(made) == 1
    monkeypatch.setattr(recordings, "_code", lambda: "another constant")
    assert recordings.recorded("kind", "key", made.append) != first
    assert len(made) == 2


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_with_the_recipes_of_a_bundle_everything_is_the_same(
    request_: BuildRequest, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes were chosen by measured times; who is told them gets the same bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
    (first,) = build(request_)
    again = replace(request_, output=tmp_path / "again", recipe=first.bundle.folder)
    (second,) = build(again)
    one, other = contents(first.bundle.folder), contents(second.bundle.folder)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    assert MANIFEST in one
    assert build(replace(request_, recipe=first.bundle.folder))[0].reused is True
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("ort: {default: fp32}")
    with pytest.raises(UsageError, match="other inputs"):
        build(replace(request_, recipe=recipe))
