"""What is spoken for calibration, and what is kept of it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgepack.builder.calibration import recordings
from edgepack.builder.calibration.corpus import of_folder, of_languages
from edgepack.builder.calibration.observe import observe
from edgepack.builder.calibration.samples import Reservoir, read_calls
from edgepack.builder.calibration.sentences import record_sentences
from edgepack.errors import IntegrityError, UsageError
from edgepack.profiles import language
from edgepack.report import silent
from edgepack.runtime.loading import load, session_of


def kept(folder: Path, stage: str, limit: int, calls: int) -> list[int]:
    reservoir = Reservoir(folder, stage, limit)
    for number in range(calls):
        reservoir.offer(lambda number=number: {"n": np.array([number])})  # type: ignore[misc]
    return [int(call["n"][0]) for call in read_calls(folder, stage)]


def test_few_calls_are_all_kept_in_order(tmp_path: Path) -> None:
    assert kept(tmp_path, "a", 8, 5) == [0, 1, 2, 3, 4]


def test_many_calls_are_sampled_evenly_and_the_same_again(tmp_path: Path) -> None:
    counts: Counter[int] = Counter()
    for number in range(60):
        found = kept(tmp_path / str(number), f"stage {number}", 10, 50)
        assert len(set(found)) == 10
        assert kept(tmp_path / f"again {number}", f"stage {number}", 10, 50) == found
        counts.update(call // 10 for call in found)
    assert all(80 <= counts[decade] <= 160 for decade in range(5))


def test_what_a_killed_build_recorded_is_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ended = (
        "import os; from edgepack.builder.calibration import recordings; "
        "recordings.recorded('k', 'a', lambda folder: os._exit(9))"
    )
    subprocess.run([sys.executable, "-c", ended], check=False, stderr=subprocess.DEVNULL)
    assert list((tmp_path / "edgepack" / "k").iterdir())
    folder = recordings.recorded("k", "a", lambda folder: (folder / "calls").touch())
    assert list((tmp_path / "edgepack" / "k").iterdir()) == [folder]
    assert {path.name for path in folder.iterdir()} == {"calls", "done"}


def test_a_damaged_recording_is_refused(tmp_path: Path) -> None:
    kept(tmp_path, "a", 2, 2)
    (tmp_path / "a" / "0001.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(IntegrityError, match=r"0001\.safetensors"):
        list(read_calls(tmp_path, "a"))


def test_the_exam_has_no_sentence_of_the_calibration() -> None:
    corpus = of_languages(["zh", "en"])
    assert not set(corpus.calibration) & set(corpus.evaluation)
    assert set(corpus.calibration) | set(corpus.evaluation) == {
        s for code in ("zh", "en") for s in language.sentences(code)
    }
    for part in (corpus.calibration, corpus.evaluation):
        assert {s.isascii() for s in part[:8]} == {True, False}  # languages take turns


def test_a_folder_of_the_user_has_sentences_and_prompts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"Sentence {n}." for n in range(16)), "utf-8")
    (tmp_path / "anna.txt").write_text("What anna says.\n", "utf-8")
    (tmp_path / "anna.wav").write_bytes(b"RIFF")
    corpus = of_folder(tmp_path)
    assert corpus.evaluation == ["Sentence 7.", "Sentence 15."]
    assert len(corpus.calibration) == 14
    assert corpus.prompts == [("anna", tmp_path / "anna.wav", "What anna says.")]
    before = corpus.sha256
    (tmp_path / "anna.wav").write_bytes(b"RIFX")
    assert of_folder(tmp_path).sha256 != before


def test_what_is_no_text_file_of_the_folder_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"Sentence {n}." for n in range(16)), "utf-8")
    before = of_folder(tmp_path)
    (tmp_path / "._a.txt").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X\xff")
    (tmp_path / "b.txt").mkdir()
    (tmp_path / "c.d").mkdir()
    assert of_folder(tmp_path) == before


@pytest.mark.parametrize("content", [b"only one", b"\xff\xfe\x00"])
def test_a_folder_that_cannot_be_used_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError):
        of_folder(tmp_path)


def test_every_network_is_recorded_once(
    bundle: "object", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference = bundle("demo")  # type: ignore[operator]
    sentences = language.sentences("en")[:3]
    folder = observe(reference, sentences, "key", silent)
    shapes = {
        stage.name: {name: call[name].shape for name in call}
        for stage in folder.iterdir()
        if stage.is_dir()
        for call in [next(read_calls(folder, stage.name))]
    }
    assert set(shapes["flow_estimator"]) >= {"x", "mu", "shift", "step"}
    decoding = list(read_calls(folder, "speech_lm"))
    assert any(call["key_0"].shape[2] > 20 for call in decoding if "key_0" in call)
    times = {call["shift"].tobytes() for call in read_calls(folder, "flow_estimator")}
    assert len(times) >= 5
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert observe(reference, [], "key", silent) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written


def test_whole_sentences_are_what_the_language_model_decodes(
    bundle: "object", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given at once, a sentence up to any of its rows has the answer of decoding it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference = bundle("demo")  # type: ignore[operator]
    folder = record_sentences(reference, language.sentences("en")[:8], "key", silent)
    calls = [call["embeddings"] for call in read_calls(folder, "speech_lm")]
    rows = [call.shape[1] for call in calls]
    assert sum(rows[:-1]) < 6000 <= sum(rows)
    assert len({call.tobytes() for call in calls}) > 20  # the same texts, other voices or draws
    session = session_of(load(reference, "ort"), "speech_lm")
    first = calls[0]
    session.reset()
    whole = session.run({"embeddings": first})["logits"]
    session.reset()
    for row in np.split(first, first.shape[1], axis=1):
        last = session.run({"embeddings": row})["logits"]
    assert np.abs(last - whole).max() <= 1e-4 * np.abs(whole).max()
    assert record_sentences(reference, [], "key", silent) == folder
