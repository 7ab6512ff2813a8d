"""Tables that people read on a terminal of 80 columns."""

import pytest

from edgepack import report

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
