"""Which candidate wins, and planted recipes that must not."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Build

from edgepack.builder import backend, recipe_search
from edgepack.builder.backend import Job, require_quantized
from edgepack.builder.recipe_search import Judge, Searched, ranking, search
from edgepack.bundle import metrics
from edgepack.bundle.measurements import Candidate
from edgepack.bundle.metrics import Limit, Limits
from edgepack.errors import UnsupportedError
from edgepack.model.families.cosyvoice2 import FAMILY
from edgepack.profiles import language
from edgepack.profiles.recipe import Recipe, named
from edgepack.profiles.target import RuntimeOptions
from edgepack.report import silent
from edgepack.runtime.engines.session import EngineError, Feeds, Session
from edgepack.runtime.engines.wrapper import Wrapper
from edgepack.runtime.loading import Host, load, session_of
from edgepack.verification import evaluation, gates, selftest

NAMES = ["small", "quick", "fp32", "fp16"]


def candidate(name: str, size: int, speed: float | None, verdict: str = "") -> Candidate:
    return Candidate(recipe=name, bytes=size, speed=speed, values={}, verdict=verdict)


def winner(*candidates: Candidate) -> str | None:
    best = ranking(candidates, NAMES)
    return best[0].recipe if best and best[0].verdict == "chosen" else None


def test_the_least_bytes_times_time_wins() -> None:
    base = candidate("fp32", 100, 1.0)
    assert winner(base, candidate("small", 25, 1.1), candidate("quick", 50, 3.0)) == "quick"
    assert winner(base, candidate("small", 25, 1.1), candidate("quick", 50, 1.5)) == "small"
    assert winner(base) == "fp32"


def test_what_is_slower_loses_to_what_is_not() -> None:
    base = candidate("fp32", 100, 1.0)
    assert winner(base, candidate("small", 25, 0.5)) == "fp32"
    assert winner(base, candidate("small", 25, 0.5), candidate("fp16", 50, 1.0)) == "fp16"
    assert winner(base, candidate("small", 25, 0.9)) == "small"  # within the noise


@pytest.mark.parametrize("speed", [0.3, 0.99, 1.0])
def test_slower_and_not_smaller_is_refused(speed: float) -> None:
    ranked = ranking([candidate("fp32", 100, 1.0), candidate("quick", 100, speed)], NAMES)
    assert [o.recipe for o in ranked] == ["fp32", "quick"]
    assert "not smaller than fp32, nor known to be faster" in ranked[1].verdict


def test_without_timings_preference_decides_among_the_smaller() -> None:
    base = candidate("fp32", 100, None)
    assert winner(base, candidate("fp16", 50, None), candidate("quick", 60, None)) == "quick"
    assert winner(base, candidate("quick", 120, None)) == "fp32"


def test_one_missing_timing_does_not_win() -> None:
    base = candidate("fp32", 100, 1.0)
    assert winner(base, candidate("small", 30, 2.0), candidate("fp16", 50, None)) == "small"


def test_who_failed_the_gate_cannot_win() -> None:
    failed = candidate("small", 1, 9.0, "refused: lm_agreement is 0.1, at least 0.96 is asked for")
    assert winner(candidate("fp32", 100, 1.0), failed) == "fp32"
    assert winner(failed) is None


class Planted:
    """A back end whose recipes are all faulty in their own way, but for fp32."""

    containers = ("onnx",)

    def __init__(self, model: Path) -> None:
        self.model = model

    def convert(self, job: Job) -> list[Path]:
        if job.recipe.method == "nothing":
            require_quantized(job, 0)
        path = job.folder / f"{job.recipe.method}.onnx"
        size = 10 if job.recipe.method != "slow" else self.model.stat().st_size
        path.write_bytes(b"0" * (size if job.recipe.method != "none" else 10**6))
        return [path]


@dataclass
class Faulty(Wrapper):
    """The real network, twice as large outside, or later than needed."""

    session: Session
    scale: float
    delay: float
    fails: str = ""

    @property
    def inner(self) -> Session:
        return self.session

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        time.sleep(self.delay)
        if self.fails:
            raise EngineError(f"network.onnx: ONNX Runtime cannot run it: {self.fails}")
        outputs = self.session.run(feeds)
        return {name: value * np.float32(self.scale) for name, value in outputs.items()}

    def fork(self) -> "Faulty":
        return Faulty(self.session.fork(), self.scale, self.delay, self.fails)


@pytest.fixture(scope="module")
def judge(bundle: Build) -> Judge:
    reference = load(bundle("demo"), "ort", 2)
    questions = evaluation.record(reference, language.sentences("en")[7:80:8])
    return Judge(reference, questions, Host("ort", 2), timed=True)


def limits(stage: str) -> Limits:
    every: Limits = {
        "lm_agreement": Limit(low=0.96),
        "lm_kld": Limit(high=0.01),
        "mel_lsd": Limit(high=1.0),
        "si_sdr": Limit(low=20),
    }
    return {
        metric: every[metric]
        for metric in gates.part_of(FAMILY.stages[stage]).metrics
        if metric in every
    }


@pytest.mark.parametrize(
    ("method", "verdict"),
    [
        ("nothing", "quantized no operator"),
        ("louder", "refused: lm_kld"),
        ("broken", "broken: its self-test is off by"),
        ("failing", "broken: network.onnx: ONNX Runtime cannot run it: XNNPack"),
        ("slow", "not smaller than fp32, nor known to be faster"),
    ],
)
def test_a_planted_recipe_is_refused(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, verdict: str
) -> None:
    real = judge.reference.decoder.language_model
    sessions = {
        "none.onnx": Faulty(real, 1.0, 0.0),
        "louder.onnx": Faulty(real, 1.25, 0.0),
        "broken.onnx": Faulty(real, 2.0, 0.0),
        "failing.onnx": Faulty(real, 1.0, 0.0, "XNNPack failed"),
        "slow.onnx": Faulty(real, 1.0, 0.02),
    }
    told = planted("speech_lm", method, sessions, judge, tmp_path, monkeypatch)
    assert told["fp32"] == "chosen"
    assert verdict in told[method]
    assert not (tmp_path / "scratch" / "speech_lm").exists()


@pytest.mark.parametrize("lenient", [False, True], ids=["strict", "lenient"])
@pytest.mark.parametrize("stage", FAMILY.stages)
def test_a_network_that_answers_nan_loses(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, lenient: bool
) -> None:
    real = session_of(judge.reference, stage)
    sessions = {"none.onnx": Faulty(real, 1.0, 0.0), "nan.onnx": Faulty(real, np.nan, 0.0)}
    judge = replace(judge, timed=False, lenient=lenient)
    told = planted(stage, "nan", sessions, judge, tmp_path, monkeypatch)
    assert told["fp32"] == "chosen"
    assert told["nan"].startswith("broken:")


def test_what_fails_the_whole_exam_is_not_chosen(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few questions may be easy; the one that would be chosen is asked all of them."""
    real = judge.reference.decoder.language_model
    sessions = {"none.onnx": Faulty(real, 1.0, 0.0), "lucky.onnx": Faulty(real, 1.02, 0.0)}
    easy, asked = gates.judge, []

    def judged(*given: Any, whole: bool = False) -> Any:
        asked.append(whole)
        values, _ = easy(*given, whole=whole)
        return values, ["lm_kld is 0.0104, at most 0.01 is asked for"] if whole else []

    monkeypatch.setattr(gates, "judge", judged)
    judge = replace(judge, timed=False)
    told = planted("speech_lm", "lucky", sessions, judge, tmp_path, monkeypatch)
    assert asked == [False, True]
    assert told == {
        "fp32": "chosen",
        "lucky": "refused: lm_kld is 0.0104, at most 0.01 is asked for",
    }


def test_a_whole_exam_asks_every_question(judge: Judge) -> None:
    asked = gates.part_of(FAMILY.stages["speech_lm"]).questions(judge.evaluation)
    few, _ = gates.judge(judge.reference, judge.evaluation, "speech_lm", limits("speech_lm"))
    every, _ = gates.judge(
        judge.reference, judge.evaluation, "speech_lm", limits("speech_lm"), whole=True
    )
    assert few["lm_kld"].count < every["lm_kld"].count == len(asked)


def test_networks_judged_together_have_the_looser_limits() -> None:
    close: Limits = {"lm_kld": Limit(high=0.01), "lm_agreement": Limit(low=0.96)}
    coarse: Limits = {"lm_kld": Limit(high=0.08), "pesq": Limit(low=3)}
    wider: Limits = {"lm_kld": Limit(high=0.08), "lm_agreement": Limit(low=0.96)}
    assert metrics.looser(close, coarse) == metrics.looser(wider, close) == wider


def planted(
    stage: str,
    method: str,
    sessions: Mapping[str, Session],
    judge: Judge,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """Verdicts, where a network is chosen between fp32 and a recipe that is a tenth in size."""
    recipes = {
        "fp32": named("ort", "fp32"),
        method: Recipe(summary="planted", precision="int8", method=method),
    }

    class Engine:
        def open(self, path: Path, states: Sequence[object], options: object) -> Session:
            return sessions[path.name]

    model = folder / f"{stage}.onnx"
    model.write_bytes(b"0" * 10**6)
    monkeypatch.setattr(backend, "backend", lambda name: Planted(model))
    monkeypatch.setattr(recipe_search, "named", lambda runtime, name: recipes[name])
    monkeypatch.setattr(recipe_search, "engine", lambda name: Engine())
    states = judge.reference.bundle.manifest.stages[stage].states
    job = Job(stage, model, folder, states, recipes["fp32"], RuntimeOptions("onnx"))
    held_to = dict.fromkeys(recipes, limits(stage))
    calls = selftest.read(judge.reference.bundle)[stage]
    network = Searched(job, FAMILY.stages[stage], [method, "fp32"], held_to, calls)
    told: list[str] = []
    files, candidates = search(network, judge, folder / "scratch", told.append)
    tried = ["fp32, recipe 1 of 2", f"{method}, recipe 2 of 2"]
    assert told[:2] == [f"{stage} with {words}" for words in tried]
    assert files == [folder / "none.onnx"]
    return {o.recipe: o.verdict for o in candidates}


def test_an_auction_nobody_wins_is_an_error(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Recipe(summary="planted", precision="int8", method="nothing")
    monkeypatch.setattr(backend, "backend", lambda name: Planted(tmp_path))
    monkeypatch.setattr(recipe_search, "named", lambda runtime, name: broken)
    job = Job("speech_lm", tmp_path, tmp_path, (), broken, RuntimeOptions("onnx"))
    network = Searched(job, FAMILY.stages["speech_lm"], ["nothing"], {"nothing": {}}, [])
    with pytest.raises(UnsupportedError, match="none of nothing works"):
        search(network, replace(judge, timed=False), tmp_path / "scratch", silent)
