"""Manifests with the right hash and the wrong values: refused when they are opened, and quickly."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import HUGE, LONGEST_SECONDS, Tree, copied, mutants
from support import Build

from edgepack.bundle.bundle import MANIFEST, open_bundle
from edgepack.bundle.host import HostLoops
from edgepack.errors import IntegrityError, UnsupportedError

Change = Callable[[Tree], object]


@pytest.fixture(scope="module")
def whole(bundle: Build) -> Tree:
    """A manifest of one runtime, with each kind of field."""
    tree = json.loads((bundle("tiny") / MANIFEST).read_bytes())
    for stage in tree["stages"].values():
        stage["variants"] = {"ort": stage["variants"]["ort"]}
        stage["operators"] = {"Add": 1}
        stage["states"] = stage["states"][:1]
    tree |= {"normalizers": {"zh": tree["normalizers"]["zh"]}, "languages": ["zh"]}
    unused = ("openvino/", "tflite/", "normalizers/en", "normalizers/ja")
    tree["files"] = {k: v for k, v in tree["files"].items() if not k.startswith(unused)}
    tree["tools"], tree["source"] = {"numpy": "2"}, {"llm.pt": "0" * 64}
    step = {"time": 0.0, "guided": True, "conditional": [1.0], "free": [0.5]}
    step |= {"keep": 1.0, "start": 0.0}
    accuracy = {"evaluations": 2, "decibel": 1.0}
    tree["solvers"]["ort"] = {
        "solver": {"steps": [step, {**step, "time": 0.5, "guided": False}]},
        "accuracy": accuracy, "euler": accuracy, "limit": 1.0, "utterances": 1,
        "curve": [accuracy],
    }  # fmt: skip
    tree["device"]["sensors"] = [{"name": "ina", "label": "VDD", "scope": "board"}]
    file = {"bytes": 1, "sha256": "0" * 64}
    tree["files"] |= {"exam.safetensors": file, "vocabulary.safetensors": file, "LICENSE": file}
    tree["documents"] = ["LICENSE"]
    limit = {"low": 0.5, "high": None, "optional": False}
    measure = {"value": 0.4, "low": 0.3, "high": 0.5, "count": 9}
    tree["quality"] = {
        "exam": "exam.safetensors", "limits": {"ort": {"si_sdr": limit}},
        "values": {"ort": {"si_sdr": measure}}, "not_measured": {"ort": ["pesq"]}, "failed": ["m"],
        "speech_ratio": 2.0,
    }  # fmt: skip
    tree["trim"] = {
        "tokens_before": 9, "tokens_after": 5, "rows_before": 9, "rows_after": 5,
        "rows": "vocabulary.safetensors", "parts": {"p": {"before": 2, "after": 1}},
        "sentences": 3, "sha256": "0" * 64, "alphabet": "20-7e a0", "words": ["w"],
    }  # fmt: skip
    return tree


def put(folder: Path, tree: Tree) -> Path:
    """Write a manifest as it has to be, with its hash."""

    rest = {key: value for key, value in tree.items() if key != "sha256"}
    text = (json.dumps(rest, indent=1, ensure_ascii=False) + "\n").encode(errors="surrogatepass")
    head = f'{{\n "sha256": "{hashlib.sha256(text).hexdigest()}",'.encode()
    (folder / MANIFEST).write_bytes(head + text[1:])
    return folder


def test_a_wrong_value_anywhere_is_refused_or_harmless(whole: Tree, tmp_path: Path) -> None:
    """Nothing but a bundle or one of our errors comes of it, and at once."""
    open_bundle(put(tmp_path, whole))
    refused = accepted = 0
    for name, tree in mutants(whole):
        put(tmp_path, tree)
        start = time.perf_counter()
        message = ""
        try:
            open_bundle(tmp_path)
        except (IntegrityError, UnsupportedError) as error:
            message = str(error)
        refused, accepted = refused + bool(message), accepted + (not message)
        assert "\n" not in message
        assert len(message) < 2000, name
        assert time.perf_counter() - start < LONGEST_SECONDS, name
    assert refused > 3000
    assert accepted < refused / 6


def into(*path: Any, value: Any) -> Change:
    def change(tree: Tree) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


VARIANT = ("stages", "hift", "variants", "ort")
STEPS = ("solvers", "ort", "solver", "steps")
REFUSED: dict[str, Change] = {
    "no stages": into("stages", value={}),
    "a missing stage": lambda tree: tree["stages"].pop("hift"),
    "a role that is not known": into("stages", "hift", "use", "role", value="voice"),
    "a role twice": lambda tree: tree["stages"].update(other=tree["stages"]["hift"]),
    "the role of another": into("stages", "hift", "use", "role", value="excitation"),
    "no use": lambda tree: tree["stages"]["hift"].pop("use"),
    "a use that is not known": into("stages", "hift", "use", "colour", value="red"),
    "no tolerance": into("stages", "hift", "use", "tolerance", value=0.0),
    "no runtime of all": lambda tree: tree["stages"]["hift"].update(
        variants={"openvino": tree["stages"]["hift"]["variants"]["ort"]}
    ),
    "no variants": into("stages", "hift", "variants", value={}),
    "no files": into(*VARIANT, "files", value=[]),
    "a file that is not listed": into(*VARIANT, "files", value=["ort/other.onnx"]),
    "NUL in a name": into("tokenizer", value="token\0izer.json"),
    "a long name": into("tokenizer", value="a" * 300),
    "a precision": into(*VARIANT, "precision", value="fp8"),
    "other inputs": into("stages", "hift", "inputs", value=["mel"]),
    "a cache of no length": into("stages", "speech_lm", "states", 0, "shape", value=[1, 0, 0]),
    "a cache of any size": into(
        "stages", "speech_lm", "states", 0, "shape", value=[1, 0, 2**20, 2**20]
    ),
    "much noise": into("host", "flow", "noise_frames", value=HUGE),
    "less than no noise": into("host", "flow", "noise_frames", value=-1),
    "noise that is not whole": lambda tree: [
        tree["host"]["prompt"].update(mels=81),
        tree["host"]["flow"].update(mels=81, noise_frames=15001),
    ],
    "noise for all memory": lambda tree: tree["host"]["flow"].update(noise_frames=2**20, mels=1000),
    "no steps": into("host", "flow", "steps", value=0),
    "a schedule": into("host", "flow", "schedule", value="quadratic"),
    "NaN ratios": into("host", "language_model", "min_ratio", value=float("nan")),
    "ratios upside down": into("host", "language_model", "min_ratio", value=21.0),
    "an infinite ratio": into("host", "language_model", "max_ratio", value=float("inf")),
    "top_k": into("host", "language_model", "sampling", "top_k", value=-1),
    "top_p": into("host", "language_model", "sampling", "top_p", value=1.5),
    "mix": into("host", "language_model", "mix", value=[0, 15]),
    "a stop that is speech": into("host", "language_model", "end", value=3),
    "partials": into("host", "vocoder", "partials", value=HUGE),
    "noise of a frame": lambda tree: tree["host"]["vocoder"].update(partials=1000, frame=2**20),
    "hops": into("host", "schedule", "first_hop", value=0),
    "hops upside down": into("host", "schedule", "max_hop", value=1),
    "overlap": into("host", "schedule", "mel_overlap", value=-1),
    "no kind": lambda tree: tree["host"]["flow"].pop("kind"),
    "no flow": lambda tree: tree["host"].pop("flow"),
    "another part": into("host", "other", value={"kind": "hift"}),
    "a long overlap": into("host", "schedule", "mel_overlap", value=900),
    "mels": into("host", "prompt", "mels", value=81),
    "bands": into("host", "prompt", "low", value=9e5),
    "rate": into("sample_rate", value=0),
    "threads": into("device", "threads", value=10**6),
    "cpus": into("device", "cpus", value="0-99999999999"),
    "languages": into("languages", value=[]),
    "a default voice that is not there": into("default_voice", value="nobody"),
    "a voice that is not listed": into("voices", "other", value="voices/other"),
    "a self-test that is not listed": into("self_test", value="other"),
    "one enrolment network": lambda tree: tree["enrolment"].pop("speaker_encoder"),
    "a hash": into("files", "tokenizer.json", "sha256", value="0" * 63),
    "bytes": into("files", "tokenizer.json", "bytes", value=-1),
    "no solver steps": into(*STEPS, value=[]),
    "times that fall": into(*STEPS, 1, "time", value=0.0),
    "more weights than velocities": into(*STEPS, 0, "conditional", value=[1.0, 1.0]),
    "guided without a weight": into(*STEPS, 0, "free", value=[]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(whole: Tree, tmp_path: Path, name: str) -> None:
    tree = copied(whole)
    REFUSED[name](tree)
    with pytest.raises(IntegrityError, match="not a valid manifest"):
        open_bundle(put(tmp_path, tree))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_what_is_no_number_is_refused(whole: Tree, tmp_path: Path, number: str) -> None:
    put(tmp_path, whole)
    text = (tmp_path / MANIFEST).read_text("utf-8")
    (tmp_path / MANIFEST).write_text(text.replace('"min_ratio": 2.0', f'"min_ratio": {number}'))
    with pytest.raises(IntegrityError, match="not a valid manifest"):
        open_bundle(tmp_path)


def test_a_manifest_of_the_largest_size_is_read_at_once(whole: Tree, tmp_path: Path) -> None:
    tree = copied(whole)
    tree["files"] |= {f"f{n}": {"bytes": 1, "sha256": "0" * 64} for n in range(68_000)}
    put(tmp_path, tree)
    assert 7 << 20 < (tmp_path / MANIFEST).stat().st_size < 8 << 20
    start = time.perf_counter()
    open_bundle(tmp_path)
    assert time.perf_counter() - start < 5 * LONGEST_SECONDS


def test_links_that_go_round_are_refused(whole: Tree, tmp_path: Path) -> None:
    put(tmp_path, whole)
    (tmp_path / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        open_bundle(tmp_path).check(["tokenizer.json"])


@pytest.mark.parametrize("part", HostLoops.__struct_fields__)
def test_a_kind_of_a_later_version_is_unsupported(whole: Tree, tmp_path: Path, part: str) -> None:
    tree = copied(whole)
    tree["host"][part]["kind"] = "later"
    with pytest.raises(UnsupportedError, match=rf"host\.{part}: unknown kind 'later'.*update edge"):
        open_bundle(put(tmp_path, tree))


@pytest.mark.parametrize("kind", ["../../evil", "__init__", "", 1, None])
def test_a_kind_is_a_name_that_is_known(whole: Tree, tmp_path: Path, kind: object) -> None:
    tree = copied(whole)
    tree["host"]["flow"]["kind"] = kind
    with pytest.raises((UnsupportedError, IntegrityError)):
        open_bundle(put(tmp_path, tree))
