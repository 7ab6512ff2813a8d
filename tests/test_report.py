"""Tables that people read on a terminal of 80 columns, and what they are told while they wait."""

import io
import time

import pytest

from edgepack import report
from edgepack.report import Parts

NAMES = ["flow_estimator", "speech_embedding", "cosyvoice-2-anna-with-a-long-name"]


def test_no_name_is_broken_and_nothing_is_wider(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["", *(f"demo-intel-cpu-{n} openvino" for n in range(6))]
    rows = [[name, *(f"{name}/{n} {n}.000 s" for n in range(6))] for name in NAMES]
    report.table("bench", columns, rows)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for row in rows:
        for cell in row:
            assert all(word in shown for word in cell.split())
    assert shown.count("bench") == 1


def test_text_is_wrapped_at_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    words = "no such sensor on this machine because its kernel shows none of them to anybody at all"
    report.table("meters", ["meter", "", "why"], [["external", "no", words]])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(word in shown for word in words.split())
    assert shown.count("external") == 1


def test_long_texts_beside_each_other_leave_room_for_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = [
        "text_embedding ort",
        "dynamic-u8",
        "3.83 MB",
        "×1.25",
        "lm_top1 0.953 (0.929 to 0.969), lm_agreement 0.988 (0.973 to 0.995), lm_kld 0.00331",
        "refused: si_sdr is 3.7 (3.1 to 4.2), at least 20 is asked for",
    ]
    report.table("recipes", ["tried", "recipe", "size", "speed", "by itself", "verdict"], [row])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for cell in [*row, "verdict", "by itself"]:
        assert all(word in shown for word in cell.split())
    assert "3.83 MB" in shown  # what is short is not wrapped for what is long
    assert all(line[-1] in "┓┃┩│┘" for line in shown.splitlines()[1:])


def test_columns_of_one_runtime_stay_together(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the others as far as there is room, and below them where there is none."""
    runtimes = [[name, "size", "speed", "error"] for name in ("ort", "openvino", "tflite")]
    row = [
        "speech_embedding",
        "123,456,789",
        *["static-u8s8-in-floating-point", "1.23 GB", "×2.34", "1e-03"] * 3,
    ]
    report.table("bundle", ["stage", "parameters", *runtimes], [row])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    heads = [line.split() for line in shown.splitlines() if "┃" in line]
    titles = [[cell for cell in head if cell != "┃"] for head in heads]
    assert titles == [
        ["stage", "parameters"],
        *(["stage", name, "size", "speed", "error"] for name in ("ort", "openvino", "tflite")),
    ]


def test_columns_that_are_too_wide_together_are_parted(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{n}-{'x' * 30}" for n in range(4)]
    report.table("wide", ["stage", names], [["hift", *names]])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(shown.count(name) == 2 for name in names)


class Clock:
    """A time that only passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def test_time_left_is_known_once_a_part_is_done(clock: Clock) -> None:
    told: list[str] = []
    parts = Parts(told.append, {"load": 1.0, "speak": 6.0, "sum up": 1.0})
    parts.begin("load")
    parts("loading")
    clock.now += 20
    parts.begin("speak")
    parts("speaking")
    clock.now += 60
    parts("speaking on")
    clock.now += 1000
    parts("still speaking")
    parts.begin("sum up")
    parts("summing up")
    assert told == [
        "1 of 3: loading",
        "2 of 3, about 2 min left: speaking",
        "2 of 3, about 1 min left: speaking on",
        "2 of 3, about 20 s left: still speaking",  # what comes after it
        "3 of 3, about 3 min left: summing up",
    ]


def test_an_estimate_is_corrected_by_a_slower_machine_and_not_by_what_was_there(
    clock: Clock,
) -> None:
    told: list[str] = []
    parts = Parts(told.append, {"a": 270.0, "b": 300.0, "c": 300.0}, seconds=True)
    parts.begin("a")
    parts("a")
    parts.begin("b")
    parts("b")
    clock.now += 1110  # of 570 s, after the 30 s that an estimate is trusted for
    parts.begin("c")
    parts("c")
    assert told == [
        "1 of 3, about 14 min left: a",
        "2 of 3, about 10 min left: b",
        "3 of 3, about 10 min left: c",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "10 s"), (11, "20 s"), (50, "50 s"), (51, "1 min"), (89, "1 min"), (91, "2 min"),
     (3599, "1 h 0 min"), (5400, "1 h 30 min")],
)  # fmt: skip
def test_rough_times(seconds: float, words: str) -> None:
    assert report.duration(seconds) == words


def test_a_log_has_the_time_of_every_step(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with report.progress("build", shown=True) as step:
        step("reading")
        clock.now += 83
        report.within(step, "ort")("converting [hift]")
    with report.progress("build", shown=False) as step:
        step("nothing")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "build: [0:00:00] reading\nbuild: [0:01:23] ort: converting [hift]\n"


def test_a_terminal_shows_the_latest_step_and_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, where it is longer than a line."""
    from rich.console import Console

    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    file = io.StringIO()
    monkeypatch.setattr(Console, "file", file)
    words = [f"word{n}" for n in range(20)]
    with report.progress("build", shown=True) as step:
        step(" ".join(words))
    shown = file.getvalue()
    assert all(f"{word}" in shown for word in words)
    assert "build" in shown
    assert "0:00:0" in shown
