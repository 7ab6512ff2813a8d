"""Bundles against recordings of the original implementation: `edgepack verify --against`."""

import io
import itertools
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import COSYVOICE1, COSYVOICE3, GOLDEN, RECORDED, RUNTIMES, Build

from edgepack.cli import main
from edgepack.runtime.loading import load
from edgepack.verification import reference
from edgepack.verification.reference import Row

# Recorded, but nothing depends on them; every other array is used or compared.
WITHOUT_EFFECT = {"rand_ini", "api_xl_keys", "api_in2_keys"}


def recorded(model: str, *files: str) -> dict[tuple[str, str], np.ndarray]:
    """Arrays by file and name, of all files or the given ones."""
    found = {}
    for path in sorted((GOLDEN / model).glob("*.npz")):
        if path.stem in files or not files:
            with np.load(path) as archive:
                found.update({(path.stem, name): archive[name] for name in archive.files})
    return found


def write(folder: Path, arrays: dict[tuple[str, str], np.ndarray]) -> Path:
    """A folder of vectors."""
    folder.mkdir()
    for file in {file for file, _ in arrays}:
        own = {name: array for (of, name), array in arrays.items() if of == file}
        np.savez(folder / f"{file}.npz", allow_pickle=False, **own)
    return folder


def compare(bundle: Path, folder: Path, runtime: str = "ort") -> list[Row]:
    return reference.run(load(bundle, runtime), folder)


def verify(bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, Any]:
    """Exit code, message and document of a comparison."""
    arguments = ["verify", str(bundle), "--against", str(folder), "--format", "ort", "--json"]
    code = main(arguments)
    printed = capsys.readouterr()
    return code, printed.err, json.loads(printed.out)


def failed(rows: list[Row]) -> list[str]:
    return [f"{row.file}/{row.array}" for row in rows if row.failed]


# Values inside the networks that were recorded, and have to be compared.
LEAST_INNER = {"cosyvoice1": 15, "cosyvoice2": 50, "cosyvoice3": 40}
AT_ONCE = {(RECORDED[0], name) for name in RUNTIMES}
AT_ONCE |= {(model, "ort") for model in (COSYVOICE1[0], COSYVOICE3[0])}
CASES = [
    pytest.param(*case, marks=() if case in AT_ONCE else pytest.mark.slow)
    for case in itertools.product([*COSYVOICE1, *RECORDED, *COSYVOICE3], RUNTIMES)
]


@pytest.mark.parametrize(("model", "runtime"), CASES)
def test_every_array_of_the_original_is_reproduced(bundle: Build, model: str, runtime: str) -> None:
    rows = compare(bundle(model), GOLDEN / model, runtime)
    assert failed(rows) == []
    assert {(row.file, row.array) for row in rows} == set(recorded(model))
    assert len(rows) == len(recorded(model))
    for row in rows:
        if row.role == "input":
            assert bool(row.note) == (row.array in WITHOUT_EFFECT), row
        else:
            assert row.error is not None, row
            assert row.limit is not None, row
            assert not row.note, row
    assert sum(row.role == "inner" for row in rows) > LEAST_INNER[model.partition("-")[0]]


@pytest.mark.slow
def test_files_that_hide_inner_values_pass_on_what_they_show(bundle: Build) -> None:
    model = RECORDED[1]
    rows = compare(bundle(model, "linux-arm64"), GOLDEN / model)
    assert failed(rows) == []
    assert {bool(row.note) for row in rows if row.role == "inner"} == {True}
    assert all(row.error is not None for row in rows if row.role == "output")


ALTERED = {
    RECORDED[0]: [
        "lm/greedy_tokens", "lm/prefill_k", "flow/mu_full", "hift/wav", "hift/tap.conv_pre",
    ],
    COSYVOICE1[0]: [
        "lm/prefill_att_cache", "lm/ras_rep_u_n", "flow/cache_2", "flow/est77_tap.mid_blocks.0.0",
        "hift/sine_waves", "tts/stream_hift_frames",
    ],
}  # fmt: skip


def alter(array: np.ndarray) -> np.ndarray:
    """One value is another one."""
    changed = array.copy()
    changed.flat[changed.size // 2] += np.asarray(1, array.dtype)
    return changed


@pytest.mark.parametrize(
    ("model", "name"), [(model, name) for model, names in ALTERED.items() for name in names]
)
def test_one_altered_value_fails_its_row_and_no_other(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, name: str
) -> None:
    file, array = name.split("/")
    arrays = recorded(model, file)
    arrays[file, array] = alter(arrays[file, array])
    folder = write(tmp_path / "vectors", arrays)
    code, message, told = verify(bundle(model), folder, capsys)
    assert code == 1
    assert f"1 checks failed, first ort {name}" in message
    assert (told["passed"], told["error"]["kind"]) == (False, "gate")
    rows = told["runtimes"]["ort"]["arrays"]
    assert [f"{r['file']}/{r['array']}" for r in rows if r["passed"] is False] == [name]


def test_an_intact_folder_passes_on_the_command_line(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = recorded(RECORDED[0], "hift")
    folder = write(tmp_path / "vectors", arrays)
    code, message, told = verify(bundle(RECORDED[0]), folder, capsys)
    assert (code, message, told["passed"]) == (0, "", True)
    rows = told["runtimes"]["ort"]["arrays"]
    assert len(rows) == len(arrays)
    assert {row["passed"] for row in rows if row["role"] != "input"} == {True}
    assert {row["passed"] for row in rows if row["role"] == "input"} == {None}


def test_an_array_of_another_shape_or_without_numbers_fails(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = recorded(RECORDED[0], "hift")
    arrays["hift", "wav"] = arrays["hift", "wav"][:, :-1]
    arrays["hift", "f0"] = np.full_like(arrays["hift", "f0"], np.nan)
    code, _, told = verify(bundle(RECORDED[0]), write(tmp_path / "vectors", arrays), capsys)
    assert code == 1
    rows = {row["array"]: row for row in told["runtimes"]["ort"]["arrays"]}
    assert [name for name, row in rows.items() if row["passed"] is False] == ["f0", "wav"]
    assert rows["wav"]["error"] is None


@pytest.mark.parametrize(
    "name",
    [
        "lm/text_ids", "lm/ras_u", "lm/ras_draws_per_step", "flow/flow_embedding", "flow/cfm_mu",
        "hift/mel", "tts/tts_embedding",
    ],
)  # fmt: skip
def test_a_missing_array_that_others_refer_to_is_a_usage_error(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file, array = name.split("/")
    arrays = recorded(RECORDED[0], file)
    del arrays[file, array]
    folder = write(tmp_path / "vectors", arrays)
    code, message, told = verify(bundle(RECORDED[0]), folder, capsys)
    assert code == 2
    assert repr(array) in message
    assert told["error"]["kind"] == "usage"


class Evil:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def damaged(kind: str) -> bytes:
    """A file that is no archive of numbers."""
    good = (GOLDEN / RECORDED[0] / "hift.npz").read_bytes()
    buffer = io.BytesIO()
    if kind == "a pickled object":
        np.savez(buffer, mel=np.array([Evil()], object), allow_pickle=True)
    elif kind == "an array without an archive":
        np.save(buffer, np.zeros(3))
    return {
        "empty": b"",
        "no archive": b"not an archive",
        "truncated": good[: len(good) // 2],
        "a changed byte": good[:5000] + bytes([good[5000] ^ 255]) + good[5001:],
        "a pickle": pickle.dumps(Evil()),
    }.get(kind, buffer.getvalue())


@pytest.mark.parametrize(
    "kind",
    [
        "empty", "no archive", "truncated", "a changed byte", "a pickle", "a pickled object",
        "an array without an archive",
    ],
)  # fmt: skip
def test_damaged_or_unsafe_files_are_refused(
    bundle: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "hift.npz").write_bytes(damaged(kind))
    code, message, _ = verify(bundle(RECORDED[0]), tmp_path / "vectors", capsys)
    assert code == 4
    assert "hift.npz: not a readable npz file" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "executed").exists()


def test_a_folder_without_vectors_is_a_usage_error(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(GOLDEN / RECORDED[0] / "hift.npz", tmp_path / "other.npz")
    code, message, _ = verify(bundle(RECORDED[0]), tmp_path, capsys)
    assert code == 2
    assert "none of flow.npz, hift.npz, lm.npz, tts.npz is there" in message


@pytest.mark.slow
def test_vectors_of_another_network_are_no_success(
    bundle: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = verify(bundle(RECORDED[0]), GOLDEN / RECORDED[1], capsys)
    assert (code, told["error"]["kind"]) == (1, "gate")
    code, message, _ = verify(bundle(RECORDED[1]), GOLDEN / RECORDED[0], capsys)
    assert code == 2  # it has fewer speech tokens than were recorded
    assert "does not fit this bundle" in message


@pytest.mark.parametrize(
    ("model", "vectors"), [(RECORDED[0], COSYVOICE3[0]), (COSYVOICE3[0], RECORDED[0])]
)
def test_vectors_of_another_family_are_a_usage_error(
    bundle: Build, capsys: pytest.CaptureFixture[str], model: str, vectors: str
) -> None:
    code, message, told = verify(bundle(model), GOLDEN / vectors, capsys)
    assert (code, told["error"]["kind"]) == (2, "usage")
    assert str(GOLDEN / vectors) in message


@pytest.mark.parametrize("said", ["cosyvoice2", "cosyvoice3"])
def test_the_family_that_a_list_beside_vectors_says_counts(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    folder = write(tmp_path / "vectors", recorded(RECORDED[0], "hift"))
    listed = {"sets": {"vectors": {"family": said}, "others": {}}}
    (tmp_path / "MANIFEST.json").write_text(json.dumps(listed), "utf-8")
    code, message, _ = verify(bundle(RECORDED[0]), folder, capsys)
    assert code == (0 if said == "cosyvoice2" else 2)
    assert ("vectors of cosyvoice3; " in message) == (said == "cosyvoice3")
