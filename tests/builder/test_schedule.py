"""How long a build is said to take, before it begins."""

from pathlib import Path

import pytest

from edgepack.builder import schedule
from edgepack.builder.planning import BuildRequest, Source, open_source, plan

DEMO = open_source("demo")
FULL_SIZE = 2_570_000_000  # bytes of a checkpoint of CosyVoice2-0.5B's dimensions


def seconds(*formats: str, target: str = "intel-cpu", precision: str = "auto") -> float:
    request = BuildRequest("demo", [target], Path("out"), formats, precision)
    return sum(schedule.sizes(DEMO, plan(request, DEMO)).values())


# What two idle x86-64 cores took.
@pytest.mark.parametrize(
    ("took", "formats", "options"),
    [
        (3, ["ort"], {}),
        (7, ["ort", "openvino", "tflite"], {}),
        (50, ["ort"], {"precision": "int8"}),
        (137, ["ort", "openvino"], {"precision": "int4"}),
        (58, [], {"target": "android-arm64"}),
        (58, [], {"target": "linux-arm64-rpi5"}),
        (48, [], {"target": "intel-cpu-avx2"}),
        (22, [], {"target": "jetson-orin"}),
    ],
)
def test_an_estimate_is_within_a_factor_of_two(
    took: float, formats: list[str], options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert took / 2 < seconds(*formats, **options) < took * 2 + 3


def test_an_estimate_of_full_size_is_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 for two runtimes took 49 s."""
    monkeypatch.setattr(Source, "bytes", FULL_SIZE)
    assert 49 / 2 < seconds("ort", "openvino") < 49 * 2


def test_a_long_build_says_so_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """INT8 at full size took 12 minutes on two cores."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(Source, "bytes", FULL_SIZE)
    request = BuildRequest("demo", ["intel-cpu"], Path("out"), ["ort"], "int8")
    sizes = schedule.sizes(DEMO, plan(request, DEMO))
    told: list[str] = []
    steps: list[str] = []
    parts = schedule.parts(steps.append, told.append, sizes)
    parts.begin(schedule.TEXT)
    parts("preparing text")
    assert told == ["8 parts, estimated to take about 13 min"]
    assert steps == ["1 of 8, about 13 min left: preparing text"]


def test_parts_are_those_of_all_targets() -> None:
    request = BuildRequest("demo", ["jetson-orin", "intel-cpu"], Path("out"), ["ort"])
    parts = list(schedule.sizes(DEMO, plan(request, DEMO)))
    assert parts[:5] == [
        schedule.TEXT, schedule.NETWORKS, schedule.REFERENCE, schedule.VOICES, schedule.CALIBRATION,
    ]  # fmt: skip
    assert parts[5:] == [
        ("conversion", "jetson-orin", "ort"),
        ("memory", "jetson-orin", "ort"),
        ("evaluation", "jetson-orin", "ort"),
        ("conversion", "intel-cpu", "ort"),
    ]
