"""Exact trajectories of the demo voice, against Euler's method with many steps."""

from pathlib import Path

import pytest
from support import Build

from edgepack.builder.calibration.exact import HELD_OUT, TOKENS, record
from edgepack.profiles import language
from edgepack.report import silent
from edgepack.runtime.loading import load
from edgepack.runtime.stages.solver import euler
from edgepack.verification import trajectories
from edgepack.verification.trajectories import decibel


@pytest.mark.slow
def test_they_are_more_exact_than_eighty_euler_steps(
    bundle: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sentences = language.sentences("zh")
    made = record(bundle("demo"), sentences[:9], sentences[9:], "key", silent)
    judged = trajectories.read(made / trajectories.FILE)
    flow = load(bundle("demo"), "ort", 2).flow
    assert len(judged) == HELD_OUT
    assert all(one.mu.shape[2] <= flow.settings.frames(TOKENS) for one in judged)
    one = judged[0]

    def by_euler(steps: int) -> float:
        solver = euler(flow.settings, steps)
        found = flow.solve(one.mu, one.spk, one.cond, solver=solver, chunked=one.chunked)
        return decibel(found, one.exact, one.known)

    assert by_euler(640) <= 0.05 < 0.06 <= by_euler(80)
