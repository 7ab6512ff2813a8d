"""Results of a benchmark as data from somewhere: read and drawn, or refused in one line."""

import json
import time
from pathlib import Path

import msgspec
import pytest
from hostile import LONGEST_SECONDS, mutants

from bench.test_page import result, subject
from edgepack.bench.result import read
from edgepack.cli import main
from edgepack.errors import IntegrityError, UnsupportedError

WHOLE = result(subject("x ort", 1.0, metered=True))


def test_a_wrong_value_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    drawn = 0
    for name, tree in mutants(json.loads(msgspec.json.encode(WHOLE))):
        path.write_bytes(json.dumps(tree, ensure_ascii=False).encode(errors="surrogatepass"))
        start = time.perf_counter()
        try:
            read(path)
            drawn += 1
        except (IntegrityError, UnsupportedError) as error:
            assert "\n" not in str(error), name  # noqa: PT017 (others are no fault)
        assert time.perf_counter() - start < LONGEST_SECONDS, name
    assert drawn


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"schema": ' + b"[" * 100_000,
        b'{"schema": "\xff"}',
        msgspec.json.encode(WHOLE).replace(b'"speed":1.0', b'"speed":NaN'),
        msgspec.json.encode(WHOLE).replace(b'"speed":1.0', b'"speed":1e999'),
        msgspec.json.encode(result()),
    ],
    ids=["deep", "deep inside", "no UTF-8", "NaN", "infinite", "no subjects"],
)
def test_what_is_no_result_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(data)
    assert main(["report", str(path), "-o", str(tmp_path / "page.html")]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"edgepack: {path}: not a result of 'edgepack bench'")
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + msgspec.json.encode(WHOLE))
    assert read(tmp_path / "a.json") == WHOLE
