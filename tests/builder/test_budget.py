"""Budgets of a device: a build that is over one fails with the numbers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import Build

from edgepack.builder import budget
from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.bundle.bundle import open_bundle
from edgepack.errors import GateError
from edgepack.process.isolation import isolated
from edgepack.profiles import target
from edgepack.profiles.target import MemoryBudget, Packaging, TargetProfile
from edgepack.report import silent
from edgepack.verification.footprint import peak

PLENTY = MemoryBudget(ram_mb=9999, bundle_mb=9999, peak_mb=9999)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TargetProfile]:
    """Gives intel-cpu other budgets."""
    plain = target.load("intel-cpu")

    def change(**parts: Any) -> TargetProfile:
        profile = msgspec.structs.replace(plain, **parts)
        monkeypatch.setattr(target, "load", lambda name: profile)
        return profile

    return change


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    return BuildRequest("demo", ["intel-cpu"], tmp_path / "out", ["ort"])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"memory": msgspec.structs.replace(PLENTY, bundle_mb=20)},
            r"files for ort are \d\d MB, the device's budget is 20 MB",
        ),
        (
            {"memory": msgspec.structs.replace(PLENTY, peak_mb=30)},
            r"speaking with ort took \d+ MB of memory on this machine, .* is 30 MB",
        ),
        pytest.param(
            {"packaging": Packaging("stored", part_mb=5)},
            r" is \d+ MB, one file may have 5 MB",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["files", "memory", "part"],
)
def test_a_bundle_over_its_budget_is_not_written(
    plant: Callable[..., TargetProfile],
    request_: BuildRequest,
    parts: dict[str, Any],
    words: str,
) -> None:
    plant(**parts)
    with pytest.raises(GateError, match=words):
        build(request_)
    assert not list(request_.output.glob("*/manifest.json"))


@pytest.mark.slow
def test_what_speaking_took_is_told(
    plant: Callable[..., TargetProfile], request_: BuildRequest
) -> None:
    plant(memory=PLENTY)
    (built,) = build(request_)
    assert built.measured
    assert 40e6 < built.measured.peaks["ort"] < 1e9
    plant()
    (other,) = build(replace(request_, output=request_.output / "other"))
    assert other.measured
    assert other.measured.peaks == {}  # nothing was measured, so nothing is said


def test_files_of_other_runtimes_do_not_count(bundle: Build) -> None:
    manifest = open_bundle(bundle("demo")).manifest
    whole = sum(file.bytes for file in manifest.files.values())
    sizes = {runtime: budget.runtime_bytes(manifest, runtime) for runtime in ("ort", "tflite")}
    for size in sizes.values():
        assert whole / 4 < size < whole / 2
    shared = budget.runtime_bytes(manifest, "none of them")
    of_ort = {f for s in manifest.stages.values() for f in s.variants["ort"].files}
    assert sizes["ort"] == shared + sum(manifest.files[f].bytes for f in of_ort)


def test_runtimes_that_fit_are_named_with_what_to_ask_for(
    bundle: Build, plant: Callable[..., TargetProfile]
) -> None:
    """One runtime is over a budget, and the others are not: of files, of one file, of memory."""
    manifest = open_bundle(bundle("demo")).manifest
    variants = manifest.stages["speech_lm"].variants
    (weights,) = variants["tflite"].files
    swollen = msgspec.structs.replace(manifest.files[weights], bytes=1_000_000_000)
    manifest = msgspec.structs.replace(manifest, files={**manifest.files, weights: swollen})
    runtimes = plant().runtimes
    assert set(runtimes) == {"ort", "openvino", "tflite"}
    advice = "Try --format ort --format openvino, as ort and openvino fit, or a lower --precision"
    tight = msgspec.structs.replace(PLENTY, bundle_mb=500, peak_mb=500)
    with pytest.raises(GateError, match=f"files for tflite are 1\\d+ MB, .*{advice}"):
        budget.require_size(manifest, plant(memory=tight))
    with pytest.raises(GateError, match=f"is 1000 MB, one file may have 500 MB.*{advice}"):
        budget.require_size(manifest, plant(memory=None, packaging=Packaging("stored", 500)))
    peaks = {"ort": 4e8, "openvino": 3e8, "tflite": 6e8}
    with pytest.raises(GateError, match=f"with tflite took 600 MB .*{advice}"):
        budget.require_memory(
            "intel-cpu", plant(memory=tight), {r: int(p) for r, p in peaks.items()}
        )


def test_a_larger_bundle_takes_more_memory(bundle: Build) -> None:
    small, large = (isolated(peak, bundle(m), "ort", 1, step=silent) for m in ("tiny", "demo"))
    assert small < large
