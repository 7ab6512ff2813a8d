"""TensorFlow's analyzer: what it printed when it still looked, and what it prints today."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from linked import linked
from support import Build

from edgepack.builder import gpu_delegate
from edgepack.cli._tables import delegate_table
from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.report import silent

# By TensorFlow 2.17.1, of the demo voice's encoder, shortened, and of a network of one operator.
LOOKED = """
Subgraph#0 main(T#0, T#2, T#3, T#5) -> [T#551, T#42]
  Op#0 CAST(T#0) -> [T#1]
GPU COMPATIBILITY WARNING: Not supported Cast case. Input type: INT64 and output type: INT32
  Op#1 CAST(T#3) -> [T#4]
GPU COMPATIBILITY WARNING: Not supported Cast case. Input type: INT64 and output type: INT32
  Op#2 MUL(T#5, T#5) -> [T#6]
  Op#3 SHAPE(T#1) -> [T#15]
GPU COMPATIBILITY WARNING: Not supported op SHAPE

GPU COMPATIBILITY WARNING: Subgraph#0 has GPU delegate compatibility issues at nodes 0, 1, 3 on \
TFLite runtime version 2.17.1
"""
FOUND_IN_CONTROL = """
  Op#0 TOPK_V2(T#0, T#1[2]) -> [T#2, T#3]
GPU COMPATIBILITY WARNING: Not supported op TOPK_V2
"""
# By TensorFlow 2.21.0.
FOUND_NOTHING = """
  Op#0 TOPK_V2(T#0, T#1[2]) -> [T#2, T#3]

Your model looks compatible with GPU delegate on TFLite runtime version 2.21.0.
"""
CAST = "Not supported Cast case. Input type: INT64 and output type: INT32"


def says(monkeypatch: pytest.MonkeyPatch, answer: Callable[[list[Path]], list[str]]) -> None:
    """Have an analyzer here, which answers so."""

    def isolated(function: object, files: list[Path], **options: Any) -> list[str]:
        return answer(files)

    monkeypatch.setattr(gpu_delegate, "importable", lambda name: True)
    monkeypatch.setattr(gpu_delegate, "isolated", isolated)


def test_warnings_are_counted() -> None:
    network = gpu_delegate.read(LOOKED)
    assert network.operators == 4
    assert network.warnings == {CAST: 2, "Not supported op SHAPE": 1}
    named = gpu_delegate.read("GPU COMPATIBILITY WARNING: Not supported custom op \x1b[2JA\n")
    assert list(named.warnings) == ["Not supported custom op [2JA"]  # a name is a file's own


def test_an_analyzer_that_looks_is_believed(
    bundle: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    demo = linked(bundle("demo"), tmp_path)
    says(monkeypatch, lambda files: ["2.17.1", FOUND_IN_CONTROL, *[LOOKED] * len(files)])
    found = gpu_delegate.analyse(demo, silent)
    assert found
    assert (found.tensorflow, found.checked, found.reason) == ("2.17.1", True, None)
    assert found.networks["tflite/flow_encoder.tflite"].warnings[CAST] == 2
    delegate_table(found)
    shown = capsys.readouterr().out
    assert f"tflite/hift.tflite: 2 × {CAST}" in shown
    assert "not known" not in shown


def test_one_that_finds_nothing_in_anything_is_not(
    bundle: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    demo = linked(bundle("demo"), tmp_path)
    says(monkeypatch, lambda files: ["2.21.0", FOUND_NOTHING, *[FOUND_NOTHING] * len(files)])
    found = gpu_delegate.analyse(demo, silent)
    assert found
    assert not found.checked
    assert "TensorFlow 2.21.0 looks at no operator" in str(found.reason)
    delegate_table(found)
    shown = capsys.readouterr().out
    assert shown.count("not known") == len(found.networks) + 1


def test_files_are_checked_before_it_reads_them(
    bundle: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = linked(bundle("demo"), tmp_path)
    path = demo.folder / "tflite" / "hift.tflite"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + b"x")
    says(monkeypatch, lambda files: pytest.fail("it was read"))
    with pytest.raises(IntegrityError, match=r"hift\.tflite"):
        gpu_delegate.analyse(demo, silent)


def test_a_system_without_such_processes_is_told(
    bundle: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(files: list[Path]) -> list[str]:
        raise UnsupportedError("only on Linux")

    says(monkeypatch, refuse)
    found = gpu_delegate.analyse(linked(bundle("demo"), tmp_path), silent)
    assert found == gpu_delegate.Analysis(reason="only on Linux")
