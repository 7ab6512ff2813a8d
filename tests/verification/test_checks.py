"""What `verification.checks` finds of a bundle, and in which order it looks."""

from pathlib import Path

import numpy as np
import pytest
from linked import changed, linked
from safetensors.numpy import load_file, save
from support import RUNTIMES, Build

from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.errors import UsageError
from edgepack.verification.checks import CheckRequest, prepare


@pytest.fixture
def tiny(bundle: Build) -> Path:
    return bundle("tiny")


def test_every_runtime_is_announced_before_it_is_checked(tiny: Path) -> None:
    told: list[str] = []

    def starting(bundle: Bundle, runtime: str) -> None:
        told.append(f"starting {bundle.folder.name} {runtime}")

    checked = prepare(tiny).run(told.append, starting)
    assert (list(checked.runtimes), checked.skipped, checked.failed) == (list(RUNTIMES), {}, [])
    assert [line.split(": ")[-1] for line in told] == [
        line
        for runtime in RUNTIMES
        for line in (f"self-test in {runtime}", f"starting {tiny.name} {runtime}")
    ]
    stages = list(open_bundle(tiny).manifest.stages)
    for found in checked.runtimes.values():
        assert [outcome.stage for outcome in found.outcomes] == stages
        assert (found.rows, found.measured, found.missed, found.not_measured) == ([], {}, [], ())


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (CheckRequest(against=Path("/nowhere")), "none of"),
        (CheckRequest("ort", solver="calibrated"), "no calibrated solver for ort"),
        (CheckRequest("ort", solver="exact"), "solver 'exact'"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_before_an_engine_starts(
    tiny: Path, request_: CheckRequest, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        prepare(tiny, request_)


def test_an_unknown_runtime_is_refused(tiny: Path) -> None:
    with pytest.raises(UsageError, match="runtime 'tensorrt'"):
        prepare(tiny, CheckRequest("tensorrt")).run()


def test_what_is_off_is_named_with_its_runtime(tiny: Path, tmp_path: Path) -> None:
    bundle = linked(tiny, tmp_path)
    arrays = load_file(bundle.path(bundle.manifest.self_test))
    name = next(name for name in arrays if name.startswith("speech_lm/0/out/"))
    arrays[name] = np.ascontiguousarray(arrays[name] + 1)
    changed(bundle, bundle.manifest.self_test, save(arrays), listed=True)
    checked = prepare(bundle.folder, CheckRequest("ort")).run()
    assert checked.failed == ["ort speech_lm"]
    assert checked.runtimes["ort"].failed == ["speech_lm"]
