"""Figures of benchmarks: limits beside intervals, and rounds that other processes disturb."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quiet
from full_size import Figure
from support import Build

from edgepack.bench.remote import Remote
from edgepack.bench.worker import Spec
from edgepack.machine.cpu.plan import Wish, current


@pytest.mark.parametrize(
    ("interval", "least", "passed", "decided"),
    [
        (None, False, False, True),
        ((0.8, 0.9), False, True, True),
        ((0.9, 1.1), False, True, False),
        ((1.1, 1.2), False, False, True),
        ((1.1, 1.2), True, True, True),
        ((0.8, 0.9), True, False, True),
    ],
)
def test_a_limit_is_compared_with_the_whole_interval(
    interval: tuple[float, float] | None, least: bool, passed: bool, decided: bool
) -> None:
    value = 1.5 if interval is None else sum(interval) / 2
    figure = Figure("token", value, "s", 1.0, least, interval)
    assert (figure.passed, figure.decided) == (passed, decided)
    assert ("undecided" in str(figure)) is not decided
    assert ("OVER THE LIMIT" in str(figure)) is not passed


def test_disturbed_rounds_are_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([0.0, 0.5, 0.0])

    class Told:
        def __init__(self) -> None:
            self.cores = next(used)

    monkeypatch.setattr(quiet, "Others", Told)
    taken: list[int] = []

    def take() -> Callable[[], None]:
        taken.append(len(taken))
        return lambda: taken.append(-1)

    quiet.undisturbed(2, take)
    assert taken == [0, 1, -1, 3]


def test_nothing_is_judged_if_it_never_gets_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        cores = 1.5

    monkeypatch.setattr(quiet, "Others", Told)
    with pytest.raises(quiet.BusyError, match="4 rounds"):
        quiet.undisturbed(1, lambda: lambda: None)
    with pytest.raises(quiet.BusyError, match=r"1\.50 CPUs"):
        quiet.require_quiet(0.0)


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_children_are_not_others() -> None:
    others = quiet.Others()
    child = multiprocessing.get_context("spawn").Process(target=_burn, args=(1.0,))
    own = quiet._own_seconds()
    child.start()
    child.join()
    assert quiet._own_seconds() - own >= 1.0
    assert others.cores >= 0.0


def test_a_stream_of_given_tokens_is_measured(bundle: Build) -> None:
    plan = current(Wish(threads=2))
    worker = Remote(Spec(bundle("demo"), "ort", None, plan, 0, strict=False))
    try:
        tokens = np.random.default_rng(0).integers(0, 100, 60).tolist()
        found: dict[str, Any] = worker.ask("stream", "你好。", tokens)
    finally:
        worker.close()
    assert found["audio_seconds"] == pytest.approx(len(tokens) / 25)
    assert 0 < found["first_audio_seconds"] < found["seconds"]
    assert found["cpu_seconds"] > 0
    assert found["waits"] in range(3)


def test_benchmarks_of_peers_need_nothing_of_theirs() -> None:
    script = Path(quiet.__file__).parent / "peers" / "genai_decoder.py"
    imported = [
        line for line in script.read_text("utf-8").splitlines() if line.startswith("import")
    ]
    assert not [line for line in imported if "torch" in line or "transformers" in line]
