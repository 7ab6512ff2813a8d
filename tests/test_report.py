"""What a person or a program sees."""

import json

import pytest

from edgepack import report


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345, "12.3 kB"),
        (99_800_000, "99.8 MB"),
        (2_600_000_000, "2.60 GB"),
        (1_234_000_000_000, "1234.00 GB"),
    ],
)
def test_sizes_are_decimal(count: int, text: str) -> None:
    assert report.size(count) == text


def test_a_document_is_readable_json_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    tree = {"text": ["你好"], "seconds": 1.5}
    report.document(tree)
    shown = capsys.readouterr().out
    assert json.loads(shown) == tree
    assert "你好" in shown
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            report.document({"value": value})
    assert capsys.readouterr().out == ""


def test_a_table_shows_every_value_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["[red]plain[/red]", "[/b]", ":smile:", "x" * 200]
    report.table("title [i]", ["name [0]", "size"], [[name, "1"] for name in names])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    joined = "".join(c for c in shown if c not in " │\n")
    for text in ("title[i]", "name[0]", *names[:3], names[3]):
        assert text in joined or text.count("x") == joined.count("x")
    assert max(map(len, shown.splitlines())) <= 120


def test_progress_is_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with report.progress("work", shown=True) as step:
        step("first [/b]")
        step("y" * 300)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"work: first [/b]\nwork: {'y' * 300}\n"


def test_progress_is_silent_unless_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with report.progress("work", shown=False) as step:
        step("first")
    report.silent("nothing")
    assert capsys.readouterr() == ("", "")


def test_lines_go_to_stdout_and_warnings_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    report.line("result")
    report.warn("odd")
    assert capsys.readouterr() == ("result\n", "edgepack: warning: odd\n")
