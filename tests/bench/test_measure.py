"""Bundles measured side by side: what is in the result, and that it is of what was spoken."""

import re
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import msgspec
import pytest
from support import Build
from trees import grow

from edgepack.bench import long_texts, measure, result, tuning, worker
from edgepack.bench.measure import percentiles
from edgepack.bench.request import MeasureRequest
from edgepack.bench.result import Percentiles, Result
from edgepack.bench.tuning import TriedPlan
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.errors import GateError, IntegrityError, UnsupportedError, UsageError
from edgepack.machine import memory
from edgepack.machine.cpu.plan import Wish, current
from edgepack.machine.cpu.topology import Cpu, Topology
from edgepack.machine.probe import Machine
from edgepack.report import silent

ZONE = "sys/class/powercap/intel-rapl:0"
TEXTS = ("Good morning.", "今天天气很好。")
TOLD: list[str] = []  # while `found` was measured


@pytest.fixture(scope="module")
def found(bundle: Build, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two runtimes of the demo voice, on a machine that has a package counter of 100 W."""
    root = grow(
        tmp_path_factory.mktemp("root"),
        {f"{ZONE}/name": "package-0", f"{ZONE}/max_energy_range_uj": 10**12},
    )
    start = time.monotonic()

    class Counting(Machine):
        def number(self, path: str | Path) -> int | None:
            if str(path).endswith("energy_uj"):
                return int((time.monotonic() - start) * 100e6)
            return super().number(path)

    demo = bundle("demo")
    request = MeasureRequest(
        ((demo, "ort"), (demo, "tflite")),
        current(),
        TEXTS,
        rounds=2,
        baseline_seconds=0.5,
        profile=True,
        concurrency=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_texts, "SENTENCES", 6)
        return measure.run(request, TOLD.append, Counting(root))


def test_every_step_says_which_part_it_is_of_and_what_is_left(found: Result) -> None:
    """Two subjects: they are loaded, speak in two rounds, and are measured once."""
    heads = [message.partition(": ")[0] for message in TOLD]
    parts = [head.split(",")[0] for head in heads]
    assert list(dict.fromkeys(parts)) == [f"{n} of 8" for n in range(1, 9)]
    assert heads[0] == "1 of 8"  # nothing is known of this machine yet
    assert all(re.fullmatch(r"\d of 8, about \d+ (s|min) left", head) for head in heads[1:])


def test_every_text_is_spoken_in_every_round(found: Result) -> None:
    assert [s.runtime for s in found.subjects] == ["ort", "tflite"]
    for subject in found.subjects:
        texts = [s.text for s in subject.spoken]
        assert set(texts) == set(TEXTS)
        assert texts.count(TEXTS[0]) == texts.count(TEXTS[1]) >= 2  # again if a turn is short
        assert subject.real_time_factor.count == len(texts)
        assert subject.first_audio.count == 4
        assert subject.failures == ()
        assert all(s.seconds > 0.9 * sum(s.stages.values()) for s in subject.spoken)


def test_figures_agree_with_the_utterances(found: Result) -> None:
    for subject in found.subjects:
        rates = sorted(s.seconds / s.audio_seconds for s in subject.spoken)
        assert rates[0] <= subject.real_time_factor.p50 <= subject.real_time_factor.p95 <= rates[-1]
        assert sum(subject.stages.values()) <= rates[-1]
        assert 0 < subject.first_audio.p50 < subject.cold_first_audio_seconds
        assert subject.tokens_per_second
        assert subject.long_text
        assert subject.long_text.audio_seconds > 10
        (stream,) = subject.long_streams
        assert stream.fault == ""
        assert stream.audio_seconds > 10
        assert 0 < stream.first_audio_seconds < subject.cold_first_audio_seconds
        assert (stream.waits == 0) == (stream.waited_seconds == 0)
        work = sum(s.seconds for s in subject.spoken) / sum(s.audio_seconds for s in subject.spoken)
        assert 0.5 * work < subject.core_seconds < 64 * work
    assert found.subjects[0].speed == 1.0
    assert found.subjects[1].speed > 0


def test_several_callers_are_measured_against_one(found: Result) -> None:
    for subject in found.subjects:
        assert subject.at_once
        assert subject.at_once.callers == 2
        assert subject.at_once.latency.count == 2 * len(TEXTS)
        assert 0.3 < subject.at_once.gain < 3
        assert subject.at_once.audio_seconds_a_second > 0
        assert (subject.solver.name, subject.solver.evaluations) == ("reference", 20)
        assert subject.solver.curve == ()


def test_memory_is_of_each_process(found: Result) -> None:
    for subject in found.subjects:
        used = subject.memory
        assert 30e6 < used.loaded_bytes < used.peak_bytes
        peaks = [m.peak_bytes for m in used.stages.values() if m.peak_bytes]
        assert peaks
        assert max(peaks) <= used.peak_bytes


def test_a_stage_that_frees_more_than_it_adds(
    bundle: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are none, and not less: such a result could not be read again."""
    falling = count(200_000_000, -1_000_000)
    monkeypatch.setattr(memory, "rss_bytes", lambda: next(falling))
    spec = worker.Spec(bundle("tiny"), "ort", None, current(), seed=0)
    assert set(worker._Subject(spec).loaded_by.values()) == {0}


def test_a_voice_with_a_prompt_is_measured(voiced: Bundle, tmp_path: Path) -> None:
    request = MeasureRequest(
        ((voiced.folder, "ort"),), current(), TEXTS[1:], rounds=1, voice="cloned", long_texts=0
    )
    (subject,) = measure.run(request, silent, Machine(tmp_path)).subjects
    assert subject.failures == ()
    assert subject.memory.stages["speech_lm"].peak_bytes


def test_operators_or_why_not(found: Result) -> None:
    ort, tflite = found.subjects
    assert ort.operators["speech_lm"]["MatMul"] > 0
    assert ort.operators_missing == ""
    assert tflite.operators == {}
    assert "tflite gives no times of operators (" in tflite.operators_missing
    assert all(stage in tflite.operators_missing for stage in tflite.stages)


def test_energy_is_of_the_turns(found: Result) -> None:
    for subject in found.subjects:
        energy = subject.energy
        assert (energy["method"], energy["scope"], energy["quality"]) == (
            "rapl", "package", "measured",
        )  # fmt: skip
        assert energy["average_w"] == pytest.approx(100, rel=0.01)
        assert energy["baseline_w"] == pytest.approx(100, rel=0.01)
        assert energy["net_j"] == pytest.approx(0, abs=0.02 * energy["gross_j"])
        assert energy["window_s"] >= 2
        windows = energy["gross_j_per_audio_s_of_windows"]
        assert windows["windows"] == 2
        assert windows["lowest"] <= energy["gross_j_per_audio_s"] <= windows["highest"]


def test_goals_of_the_target_are_in_the_result(found: Result) -> None:
    for subject in found.subjects:
        of = {outcome.goal: outcome for outcome in subject.goals}
        assert list(of) == [
            "interactive_first_audio_s", "first_audio_s", "rtf", "long_rtf", "wh_per_minute",
            "interrupted_share",
        ]  # fmt: skip
        assert of["first_audio_s"].value == subject.first_audio.p95
        assert of["rtf"].value == subject.real_time_factor.p95
        assert of["wh_per_minute"].value == subject.energy["gross_wh_per_audio_min"]
        assert of["wh_per_minute"].how == "gross, of package, measured"


def test_a_result_is_read_as_it_was_written(found: Result, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode(found))
    assert result.read(path) == found
    assert found.schema == "edgepack.bench/3"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("{}", IntegrityError, "not a result of 'edgepack bench'"),
        ("no", IntegrityError, "not a result"),
        ("[1]", IntegrityError, "not a result"),
        (
            '{"schema": "edgepack.bench/9"}',
            UnsupportedError,
            "edgepack reads edgepack.bench/3",
        ),
    ],
)
def test_files_that_are_no_results(
    tmp_path: Path, text: str, error: type[Exception], words: str
) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(error, match=words):
        result.read(path)
    with pytest.raises(UsageError, match="No such file"):
        result.read(tmp_path / "none.json")


def test_texts_that_fail_are_told_and_the_rest_goes_on(bundle: Build) -> None:
    subjects = ((bundle("demo"), "ort"),)
    request = MeasureRequest(
        subjects, current(), ("Good morning.", " "), rounds=1, energy="none", long_texts=0
    )
    (subject,) = measure.run(request, silent, Machine()).subjects
    assert [s.text for s in subject.spoken] == ["Good morning."]
    assert {f.text for f in subject.failures} == {" "}
    assert "nothing to speak" in subject.failures[0].message
    assert subject.long_text is None
    assert subject.energy["available"] is False
    unmeasured = {o.goal for o in subject.goals if o.verdict == "not measured"}
    assert unmeasured == {"long_rtf", "wh_per_minute", "interrupted_share"}


def test_sentences_are_of_the_bundles_languages(bundle: Build) -> None:
    texts = measure.sentences(open_bundle(bundle("demo")), 4)
    assert [text.isascii() for text in texts] == [False, True, False, True]
    whole = measure.sentences(open_bundle(bundle("demo")), 1 << 20)  # languages have unlike many
    assert len(whole) == len(set(whole)) > 400
    one, other = (long_texts.text(whole, number) for number in (0, 1))
    assert one.startswith(whole[0])
    assert other.startswith(whole[1])


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([3.0], Percentiles(p50=3.0, p90=3.0, p95=3.0, count=1)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], Percentiles(p50=3.0, p90=4.6, p95=4.8, count=5)),
    ],
)
def test_percentiles(values: Sequence[float], wanted: Percentiles) -> None:
    made = percentiles(values)
    assert made.count == wanted.count
    for name in ("p50", "p90", "p95"):
        assert getattr(made, name) == pytest.approx(getattr(wanted, name))


def trial(cpus: str, rtf: float, cpu: float, joules: float | None) -> TriedPlan:
    return TriedPlan(Wish(cpus), 1, percentiles([rtf]), cpu, joules)


@pytest.mark.parametrize(
    ("trials", "most", "chosen"),
    [
        ([trial("a", 0.5, 2.0, 9.0), trial("b", 0.8, 1.0, 10.0)], 1.0, "a"),  # least energy
        ([trial("a", 0.5, 2.0, None), trial("b", 0.8, 1.0, None)], 1.0, "b"),  # least CPU time
        ([trial("a", 0.5, 2.0, 9.0), trial("b", 0.8, 1.0, 8.0)], 0.6, "a"),  # b is too slow
        ([trial("a", 0.5, 2.0, 9.0), trial("b", 0.8, 1.0, 8.0)], 0.1, "a"),  # the fastest then
    ],
)
def test_the_best_plan(trials: list[TriedPlan], most: float, chosen: str) -> None:
    assert tuning.best(trials, most).wish.cpus == chosen
    with pytest.raises(GateError, match="nothing was tried"):
        tuning.best([], 1.0)


def test_what_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    hybrid = Topology(tuple(Cpu(n, "P" if n < 4 else "E", None, None, (n,), ()) for n in range(8)))
    monkeypatch.setattr("edgepack.machine.cpu.plan.allowed", lambda: set(range(8)))
    monkeypatch.setattr("edgepack.machine.cpu.quota.cpus", lambda: None)
    tried = tuning.wishes(hybrid, "ort")
    assert {wish.cpus for wish in tried} == {"all", "performance", "efficiency", "prime"}
    assert Wish("performance", 4) in tried
    assert Wish("all", 8, spin=True) in tried
    assert not any(wish.spin for wish in tuning.wishes(hybrid, "tflite"))
