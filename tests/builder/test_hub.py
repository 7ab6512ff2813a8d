"""The fp32 hub: networks of a checkpoint with the referee's answers to their self-test."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from support import DATA

from edgepack.builder.hub import HubStage, answers, author
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.report import silent

CHECKPOINT = open_checkpoint(DATA / "checkpoints" / "cosyvoice2-s2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def stages(folder: Path) -> list[HubStage]:
    return author(CHECKPOINT, None, folder, silent)


def test_stages_say_what_is_in_their_files(stages: list[HubStage]) -> None:
    for stage in stages:
        graph = onnx.load(stage.model, load_external_data=False).graph
        cached = {name for state in stage.states for name in (state.input, state.output)}
        assert [v.name for v in graph.input if v.name not in cached] == list(stage.inputs)
        assert [v.name for v in graph.output if v.name not in cached] == list(stage.outputs)
        assert cached <= {v.name for v in (*graph.input, *graph.output)}
        assert sum(stage.operators.values()) == len(graph.node)
        floats = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        assert stage.parameters == sum(int(np.prod(t.dims)) for t in floats)


def test_every_stage_answers_every_call(stages: list[HubStage]) -> None:
    calls = answers(stages, silent)
    assert list(calls) == [stage.name for stage in stages]
    assert len(calls["speech_lm"]) > 1  # a prompt, and what follows it
    for stage in stages:
        assert [dict(call.feeds) for call in calls[stage.name]] == [dict(f) for f in stage.feeds]
        for call in calls[stage.name]:
            assert set(call.outputs) == set(stage.outputs)
            assert all(np.isfinite(value).all() for value in call.outputs.values())
            assert any(np.abs(value).max() > 0 for value in call.outputs.values())


def test_the_same_checkpoint_gives_the_same_files_and_answers(
    stages: list[HubStage], folder: Path, tmp_path: Path
) -> None:
    again = author(CHECKPOINT, None, tmp_path, silent)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert [n for n in names if (folder / n).read_bytes() != (tmp_path / n).read_bytes()] == []
    first, second = answers(stages, silent), answers(again, silent)
    for name, calls in first.items():
        for one, other in zip(calls, second[name], strict=True):
            for output, value in one.outputs.items():
                np.testing.assert_array_equal(value, other.outputs[output])


def test_rows_of_the_text_table_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    rows = np.array([3, 5, *range(1000, 1100)])
    cut = {stage.name: stage for stage in author(CHECKPOINT, rows, tmp_path, silent)}
    tables = [np.fromfile(f / "text_embedding.onnx.data", np.float32) for f in (folder, tmp_path)]
    width = cut["text_embedding"].parameters // len(rows)
    whole, chosen = (table.reshape(-1, width) for table in tables)
    np.testing.assert_array_equal(chosen, whole[rows])
    assert (tmp_path / "hift.onnx.data").read_bytes() == (folder / "hift.onnx.data").read_bytes()


def test_progress_is_told_stage_by_stage(stages: list[HubStage], tmp_path: Path) -> None:
    told: list[str] = []
    author(CHECKPOINT, None, tmp_path, told.append)
    assert told == [f"writing {stage.name}" for stage in stages]
