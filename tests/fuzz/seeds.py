"""Writes the corpus in `tests/data/fuzz`: small files of each kind that the readers take.

    python -m fuzz.seeds BUNDLE

BUNDLE is what `edgepack build demo -t intel-cpu --format ort --language zh --precision int8` gave.
Arrays are cut to one or two frames.
"""

import dataclasses
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import kaldifst
import msgspec
import numpy as np
import soundfile
import torch_zip_writer as writer
from safetensors.numpy import save_file
from support import DATA

from edgepack.bundle import voices
from edgepack.bundle.bundle import MANIFEST, Bundle, open_bundle
from edgepack.machine.cpu.tuned import TunedPlan
from edgepack.model.checkpoint import tokenizer
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.runtime.gpu.description import encode
from edgepack.runtime.strategies.vocoder import hift
from edgepack.verification import evaluation, selftest, trajectories
from fuzz.readers import CORPUS, MACHINE, QWEN, SOURCE

SOLVER = {"steps": [{"time": 0.0, "guided": False, "conditional": [1.0], "free": []}]}
RECIPE = "ort: {speech_lm: nbits8, default: fp16}\n"
_FLOW_FRAMES = 4


def small_checkpoint(folder: Path) -> None:
    """One small valid file of each kind, under the names of a checkpoint."""
    rng = np.random.default_rng(0)
    weights = {f"w.{i}": rng.random((2, 3)).astype(np.float32) for i in range(3)}
    writer.save(folder / "llm.pt", weights)
    writer.save(folder / "spk2info.pt", {"a": {"embedding": weights["w.0"]}, "n": [1, (2.5, "x")]})
    save_file(weights, folder / "flow.safetensors")
    (folder / "cosyvoice2.yaml").write_bytes((SOURCE / "cosyvoice2.yaml").read_bytes())
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "solver.json").write_text(json.dumps(SOLVER))
    (folder / QWEN).mkdir()
    vocabulary = {chr(97 + i): i for i in range(26)} | {"ab": 26, "abc": 27}
    (folder / QWEN / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / QWEN / "merges.txt").write_text("#version: 0.2\na b\nab c\n")
    added = {"28": {"content": "<x>"}}
    (folder / QWEN / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": added})
    )
    (folder / QWEN / "config.json").write_bytes((SOURCE / QWEN / "config.json").read_bytes())
    whole = tokenizer.build(Checkpoint(folder, "cosyvoice2.yaml"), QWEN, ["<y>"], 64)
    (folder / "whole" / QWEN).mkdir(parents=True)
    (folder / "whole" / QWEN / "tokenizer.json").write_text(whole)


def pickled(path: Path) -> bytes:
    """The pickle in a `.pt` file."""
    data = path.read_bytes()
    start = data.index(b"\x80\x02")
    return data[start : data.index(b"PK", start)]


def _put(reader: str, name: str, data: bytes | str) -> None:
    path = CORPUS / reader / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def _checkpoint_seeds(folder: Path) -> None:
    small_checkpoint(folder)
    for reader, names in {
        "torch_zip": ("llm.pt", "spk2info.pt"),
        "safetensors": ("flow.safetensors",),
        "yaml": ("cosyvoice2.yaml",),
        "config": (f"{QWEN}/config.json",),
        "vocabulary": (f"{QWEN}/vocab.json",),
        "merges": (f"{QWEN}/merges.txt",),
        "added_tokens": (f"{QWEN}/tokenizer_config.json",),
        "tokenizer": (f"whole/{QWEN}/tokenizer.json",),
        "recipe": ("recipe.yaml",),
        "solver": ("solver.json",),
    }.items():
        for name in names:
            _put(reader, Path(name).name, (folder / name).read_bytes())
    demo = Path(str(resources.files("edgepack") / "demo_voice"))
    _put("speakers", "spk2info.pt", (demo / "spk2info.pt").read_bytes())
    for name in ("llm", "spk2info"):
        _put("pickle", f"{name}.pkl", pickled(folder / f"{name}.pt"))


def _short(value: np.ndarray, kept: set[int]) -> np.ndarray:
    """The array with each axis cut to one, unless its length is one of those to keep."""
    return np.ascontiguousarray(value[tuple(slice(n if n in kept else 1) for n in value.shape)])


def _short_calls(bundle: Bundle) -> selftest.Calls:
    manifest = bundle.manifest
    found: dict[str, list[selftest.Call]] = {}
    calls = selftest.read(bundle)
    lm, encoder = calls["speech_lm"][0], calls["flow_encoder"][0]
    vocoder = manifest.host.vocoder
    assert isinstance(vocoder, hift.Record)
    kept = {manifest.host.flow.mels, vocoder.partials, lm.outputs["logits"].shape[1]}
    kept |= {lm.feeds["embeddings"].shape[2], encoder.feeds["speaker"].shape[1]}
    for stage, recorded in calls.items():
        parts: list[Mapping[str, np.ndarray]] = [recorded[0].feeds, recorded[0].outputs]
        feeds, outputs = ({n: _short(v, kept) for n, v in part.items()} for part in parts)
        if stage == "hift":
            feeds["source"] = recorded[0].feeds["source"][:, :, : vocoder.frame].copy()
        found[stage] = [selftest.Call(feeds, outputs)]
    return found


def _short_exam(bundle: Bundle) -> bytes:
    question = next(q for q in evaluation.of(bundle) if q.sounded)
    spoken = question.spoken
    short = dataclasses.replace(
        spoken,
        voice=voices.Voice(spoken.voice.speaker),
        text=spoken.text[:1],
        tokens=spoken.tokens[:1],
        mel=spoken.mel[:, :, :1],
        audio=spoken.audio[:1],
    )
    cut = dataclasses.replace(
        question, spoken=short, ids=question.ids[:2], best=question.best[:2],
        at=question.at[:1], every=question.every[:1],
    )  # fmt: skip
    return evaluation.to_bytes([cut, cut])


def _short_trajectories(bundle: Bundle) -> bytes:
    one = trajectories.of(bundle)[0]
    arrays = {name: getattr(one, name)[:, :, :_FLOW_FRAMES] for name in ("mu", "cond", "exact")}
    return trajectories.to_bytes([dataclasses.replace(one, **arrays, known=1)])


def _bundle_seeds(bundle: Bundle, folder: Path) -> None:
    manifest = bundle.manifest
    _put("manifest", MANIFEST, (bundle.folder / MANIFEST).read_bytes())
    for name, file in manifest.voices.items():
        _put("voice", f"{name}.safetensors", bundle.read(file))
    speaker = np.zeros(voices.read(bundle, None)[1].speaker.shape, np.float32)
    mel = np.zeros((manifest.host.flow.frames(2), manifest.host.flow.mels), np.float32)
    prompt = voices.Prompt(np.array([1]), np.array([1, 2]), mel)
    _put("voice", "prompted.safetensors", voices.Voice(speaker, prompt).to_bytes())
    _put("selftest", selftest.FILE, selftest.to_bytes(_short_calls(bundle)))
    _put("exam", evaluation.FILE, _short_exam(bundle))
    _put("trajectories", trajectories.FILE, _short_trajectories(bundle))
    if manifest.trim:
        _put("rows", manifest.trim.rows, bundle.read(manifest.trim.rows))
    (folder / QWEN).mkdir()
    alphabet = {token: number for number, token in enumerate(sorted(tokenizer._BYTES))}
    (folder / QWEN / "vocab.json").write_text(json.dumps(alphabet | {"ab": 256}))
    (folder / QWEN / "merges.txt").write_text("#version: 0.2\na b\n")
    (folder / QWEN / "tokenizer_config.json").write_text('{"added_tokens_decoder": {}}')
    whole = tokenizer.build(Checkpoint(folder, ""), QWEN, [manifest.host.text.end_of_prompt], 300)
    _put("frontend", "tokenizer.json", whole)


def _other_seeds() -> None:
    from bench.test_page import result, subject
    from gpu.test_placement import PROMISES

    _put("bench", "result.json", msgspec.json.encode(result(subject("x", 1.0, metered=True))))
    _put("gpu", "trt.json", encode(PROMISES))
    plan = TunedPlan(MACHINE, "ort", "0", 1, False, None)
    _put("tuned", "x.tuned.json", msgspec.json.encode([plan]))
    samples = (np.sin(np.arange(400) / 9) * 0.3).astype(np.float32)
    for kind, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", None)):
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 16000, format=kind, subtype=subtype)
        _put("recording", f"{subtype or 'VORBIS'}.{kind.lower()}".lower(), buffer.getvalue())
    # A grammar that lets two letters through.
    grammar = kaldifst.compile("0 0 97 97\n0 0 98 98\n0\n")
    with tempfile.NamedTemporaryFile(suffix=".fst") as file:
        grammar.write(file.name)
        _put("grammar", "ab.fst", Path(file.name).read_bytes())
    items = json.loads((DATA / "golden" / "common" / "text_normalize.json").read_text("utf-8"))
    for number, item in enumerate(items["items"][::10]):
        _put("text", f"{number}.txt", item["text"])


def main(bundle: str) -> None:
    """Replace the corpus."""
    shutil.rmtree(CORPUS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        _checkpoint_seeds(Path(one))
        _bundle_seeds(open_bundle(Path(bundle)), Path(other))
    _other_seeds()


if __name__ == "__main__":
    main(*sys.argv[1:])
