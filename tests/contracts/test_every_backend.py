"""Back ends write files that the engine of their name runs, and write nothing else."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from contracts import FORMATS, STATES, WEIGHTS, job, totals
from edgepack import discovery
from edgepack.builder.backend import PACKAGE, backend
from edgepack.errors import UnsupportedError
from edgepack.process.isolation import isolated
from edgepack.report import Step, silent
from edgepack.runtime.engines.installed import engines
from edgepack.runtime.engines.session import Options, engine

TOLERANCE = {"fp32": 1e-5, "fp16": 3e-3}
EACH_FORMAT = pytest.mark.parametrize(("runtime", "container", "precision"), FORMATS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One hub file that all formats are made of, one after another, as in a build."""
    return totals(tmp_path_factory.mktemp("hub"))


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_backend_and_an_engine_of_one_name_belong_together() -> None:
    assert discovery.names(PACKAGE) == engines()
    for name in engines():
        assert backend(name).containers
        assert engine(name).distribution


@EACH_FORMAT
def test_what_is_written_computes_the_same(
    model: Path, tmp_path: Path, runtime: str, container: str, precision: str
) -> None:
    first, *_ = backend(runtime).convert(job(model, tmp_path / "out", container, precision))
    session = engine(runtime).open(first, STATES, Options(1))
    x = np.random.default_rng(1).normal(size=(1, 3, 2)).astype(np.float32)
    wanted = (x.astype(np.float64) @ WEIGHTS).sum(1)
    found = session.run({"x": x})["y"]
    assert np.abs(found - wanted).max() <= TOLERANCE[precision] * np.abs(wanted).max()
    if precision == "fp16":
        assert np.abs(found - wanted).max() > 1e-6  # it was really stored in half


@EACH_FORMAT
def test_only_the_files_it_names_are_written_and_only_in_its_folder(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    container: str,
    precision: str,
) -> None:
    before = files(model.parent)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    written = backend(runtime).convert(job(model, tmp_path / "out", container, precision))
    assert files(model.parent) == before
    assert set(files(tmp_path)) == set(written)
    assert all(path.is_relative_to(tmp_path / "out") for path in written)
    assert sorted((tmp_path / "out").rglob("*")) == sorted(written)


def convert_all(runtime: str, model: Path, folder: Path, step: Step) -> None:
    """Every format of a runtime, in a process of its own as in a build."""
    for name, container, precision in FORMATS:
        if name == runtime:
            wanted = job(model, folder / f"{container}-{precision}", container, precision)
            backend(runtime).convert(wanted)


@pytest.mark.parametrize("runtime", discovery.names(PACKAGE))
def test_the_same_bytes_every_time(model: Path, tmp_path: Path, runtime: str) -> None:
    written = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        isolated(convert_all, runtime, model, folder, step=silent)
        written.append({path.relative_to(folder): data for path, data in files(folder).items()})
    assert written[0]
    assert written[0].keys() == written[1].keys()
    assert [path for path in written[0] if written[0][path] != written[1][path]] == []


@EACH_FORMAT
@pytest.mark.parametrize("domain", ["com.example", ""], ids=["foreign domain", "unknown"])
def test_an_operator_it_does_not_know_is_unsupported(
    tmp_path: Path, runtime: str, container: str, precision: str, domain: str
) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain=domain)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n"]) for name in "xy"]
    graph = helper.make_graph([node], "odd", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    with pytest.raises(UnsupportedError, match="Frobnicate") as caught:
        backend(runtime).convert(job(path, tmp_path / "out", container, precision))
    assert str(caught.value).startswith("odd: ")
    assert not any((tmp_path / "out").iterdir())
