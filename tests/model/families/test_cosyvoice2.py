"""CosyVoice2 checkpoints: every tensor and every setting is used, dropped by name, or refused."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch_zip_writer as writer
from random_cosyvoice2 import TINY
from safetensors.numpy import save_file
from support import DATA, Checkpoints

from edgepack.bundle.voices import Voice, file_name
from edgepack.errors import EdgepackError, IntegrityError, UnsupportedError, UsageError
from edgepack.model.checkpoint.folder import Checkpoint, open_checkpoint
from edgepack.model.families.cosyvoice2 import FAMILY
from edgepack.runtime.engines.session import Options, engine
from edgepack.runtime.strategies.flow import causal_chunks
from edgepack.runtime.strategies.vocoder import hift

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
PARTS = ("llm", "flow", "hift")
YAML, QWEN = "cosyvoice2.yaml", "CosyVoice-BlankEN/config.json"
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Changed(Checkpoint):
    """The checkpoint with other tensors in some parts."""

    changes: Mapping[str, Callable[[Tensors], Tensors]] = field(default_factory=dict)

    def tensors(self, part: str) -> Tensors:
        found = dict(super().tensors(part))
        return self.changes[part](found) if part in self.changes else found


def changed(**changes: Callable[[Tensors], Tensors]) -> Checkpoint:
    return Changed(SOURCE, YAML, changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy whose files are links: replace them."""
    return Path(shutil.copytree(SOURCE, tmp_path / "checkpoint", copy_function=os.link))


def edit(folder: Path, name: str, old: str, new: str) -> Checkpoint:
    """The checkpoint with text replaced, once or wherever it is indented the same."""
    path = folder / name
    text = path.read_text("utf-8")
    assert old in text
    path.unlink()
    path.write_text(text.replace(old, new), "utf-8")
    return open_checkpoint(folder)


def written(checkpoint: Checkpoint, folder: Path) -> dict[str, bytes]:
    """The files of every network."""
    folder.mkdir()
    for graph in FAMILY.graphs(checkpoint):
        graph.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_that_nothing_reads_is_refused_by_name(part: str) -> None:
    more = changed(**{part: lambda t: t | {"zz.surprise": np.zeros(3, np.float32)}})
    with pytest.raises(UnsupportedError, match=rf"{part}\.pt: 1 tensors .* first zz\.surprise"):
        list(FAMILY.graphs(more))


@pytest.mark.parametrize(("part", "every"), [("llm", 1), ("flow", 20), ("hift", 30)])
def test_a_missing_tensor_is_refused_by_name(part: str, every: int) -> None:
    names = list(Checkpoint(SOURCE, YAML).tensors(part))
    for name in names[::every]:
        if name == "llm.model.lm_head.weight":
            continue
        less = changed(**{part: lambda t, name=name: {k: v for k, v in t.items() if k != name}})
        with pytest.raises((UsageError, UnsupportedError), match=rf"^{part}\.pt: ") as caught:
            list(FAMILY.graphs(less))
        # Half of a normalised weight is missed under the plain weight's name.
        assert name.split(".parametrizations")[0] in str(caught.value)


def test_the_tied_head_is_dropped_by_name() -> None:
    def without(tensors: Tensors) -> Tensors:
        return {k: v for k, v in tensors.items() if k != "llm.model.lm_head.weight"}

    def other(tensors: Tensors) -> Tensors:
        return tensors | {"llm.model.lm_head.weight": np.zeros((2, 2), np.float32)}

    for change in (without, other):
        assert len(list(FAMILY.graphs(changed(llm=change)))) == 8


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("llm", "llm.model.model.embed_tokens.weight"),
        ("llm", "llm.model.model.layers.1.self_attn.k_proj.weight"),
        ("llm", "speech_embedding.weight"),
        ("flow", "spk_embed_affine_layer.weight"),
        ("flow", "encoder.up_layer.conv.weight"),
        ("flow", "decoder.estimator.final_proj.weight"),
        ("hift", "m_source.l_linear.weight"),
        ("hift", "conv_post.bias"),
    ],
)
def test_another_shape_is_refused_by_name(part: str, name: str, axis: int) -> None:
    def longer(tensors: Tensors) -> Tensors:
        value = tensors[name]
        return tensors | {name: np.concatenate([value, value], axis)}

    with pytest.raises((UsageError, UnsupportedError), match=rf"^{part}\.pt: .*{name}"):
        list(FAMILY.graphs(changed(**{part: longer})))


@pytest.mark.parametrize("part", PARTS)
def test_values_that_are_not_finite_are_refused_by_name(part: str, tmp_path: Path) -> None:
    name = list(Checkpoint(SOURCE, YAML).tensors(part))[-1]

    def spoiled(tensors: Tensors) -> Tensors:
        return tensors | {name: np.full_like(tensors[name], np.nan)}

    with pytest.raises(IntegrityError, match=rf"{part}\.pt: {name} has NaN"):
        written(changed(**{part: spoiled}), tmp_path / "out")


def old_norms(tensors: Tensors) -> Tensors:
    numbers = {"original0": "weight_g", "original1": "weight_v"}
    for number, style in numbers.items():
        end = f"parametrizations.weight.{number}"
        tensors = {name.replace(end, style): value for name, value in tensors.items()}
    return tensors


def of_a_gan(tensors: Tensors) -> Tensors:
    return {f"generator.{name}": value for name, value in tensors.items()}


def doubled(tensors: Tensors) -> Tensors:
    return {name: value.astype(np.float64) for name, value in tensors.items()}


def test_every_way_to_store_a_vocoder_gives_the_same_network(tmp_path: Path) -> None:
    wanted = written(changed(), tmp_path / "wanted")
    for number, change in enumerate((old_norms, of_a_gan, doubled)):
        assert written(changed(hift=change), tmp_path / str(number)) == wanted


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_read_as_the_floats_they_are(tmp_path: Path, dtype: np.typing.DTypeLike) -> None:
    def halved(tensors: Tensors) -> Tensors:
        return {name: value.astype(dtype) for name, value in tensors.items()}

    def rounded(tensors: Tensors) -> Tensors:
        return {name: value.astype(np.float32) for name, value in halved(tensors).items()}

    found = written(changed(**dict.fromkeys(PARTS, halved)), tmp_path / "half")
    wanted = written(changed(**dict.fromkeys(PARTS, rounded)), tmp_path / "float")
    assert found == wanted
    assert wanted != written(changed(), tmp_path / "whole")


def test_dimensions_come_from_the_checkpoint(checkpoints: Checkpoints) -> None:
    tiny = open_checkpoint(Path(checkpoints("tiny")))
    host = FAMILY.host(tiny)
    assert host.language_model.speech_tokens == TINY.speech
    assert isinstance(host.flow, causal_chunks.Record)
    assert isinstance(host.vocoder, hift.Record)
    assert host.flow.chunk == TINY.chunk
    assert (host.vocoder.frame, host.vocoder.partials) == (480, TINY.harmonics + 1)
    assert FAMILY.text_rows(tiny) == TINY.text_rows
    graphs = {graph.name: graph for graph in FAMILY.graphs(tiny)}
    states = graphs["speech_lm"].states
    assert len(states) == 2 * TINY.layers
    width = TINY.hidden // TINY.heads
    assert {state.shape for state in states} == {(1, TINY.kv_heads, 0, width)}
    assert graphs["text_embedding"].parameters == TINY.text_rows * TINY.hidden
    # The speech table, and the rows for the start and the task below it.
    assert graphs["speech_embedding"].parameters == (TINY.speech + 3 + 2) * TINY.hidden


def read(checkpoint: Checkpoint) -> None:
    """Everything that depends on the configuration."""
    FAMILY.host(checkpoint)
    list(FAMILY.graphs(checkpoint))


WRONG: list[tuple[str, str, str, type[EdgepackError], str]] = [
    (QWEN, '"hidden_size": 48', '"hidden_size": 64', UsageError, "has shape"),
    (QWEN, '"vocab_size": 1216', '"vocab_size": 1217', UsageError, "embed_tokens"),
    (QWEN, '"num_hidden_layers": 3', '"num_hidden_layers": 2', UsageError, "3 layers"),
    (QWEN, '"num_hidden_layers": 3', '"num_hidden_layers": 4', UsageError, "3 layers"),
    (QWEN, '"num_key_value_heads": 3', '"num_key_value_heads": 4', UsageError, "divide 6"),
    (QWEN, '"hidden_act": "silu"', '"hidden_act": "gelu"', UnsupportedError, "hidden_act"),
    (QWEN, '"rms_norm_eps": 1e-06', '"rms_norm_eps": NaN', UsageError, "not valid JSON"),
    (YAML, "speech_token_size: 729", "speech_token_size: 728", UsageError, "has shape"),
    (YAML, "mix_ratio: [5, 15]", "mix_ratio: []", UsageError, "mix_ratio"),
    (YAML, "mix_ratio: [5, 15]", "mix_ratio: [5]", UsageError, "mix_ratio"),
    (YAML, "top_p: 0.8", "top_p: .nan", UsageError, r"sampling\.top_p"),
    (YAML, "attention_heads: 3", "attention_heads: 5", UsageError, "divide 48"),
    (YAML, "attention_heads: 3", "attention_heads: 6", UsageError, "pos_bias"),
    (YAML, "act_fn: 'gelu'", "act_fn: 'snakebeta'", UnsupportedError, "act_fn"),
    (YAML, "solver: 'euler'", "solver: 'heun'", UnsupportedError, "solver"),
    (YAML, "    num_heads: 2", "    num_heads: 3", UsageError, "has shape"),
    (YAML, "\nsample_rate: 24000", "\nsample_rate: 22050", UnsupportedError, "CosyVoice 1"),
    (YAML, "\nsample_rate: 24000", "\nsample_rate: 16000", UnsupportedError, "16000 Hz"),
    (YAML, "token_frame_rate: 25", "token_frame_rate: 50", UnsupportedError, "samples a frame"),
    (YAML, "rates: [8, 5, 3]", "rates: [8, 5]", UsageError, "differ in length"),
    (YAML, "rates: [8, 5, 3]", "rates: [8, 5, 0]", UsageError, "upsample_rates"),
    (YAML, "base_channels: 48", "base_channels: 32", UsageError, "has shape"),
    (YAML, "n_fft: 16", "n_fft: 32", UsageError, "has shape"),
    (YAML, "cond_channels", "!new:os.system x", EdgepackError, YAML),
]


@pytest.mark.parametrize(("name", "old", "new", "kind", "reason"), WRONG)
def test_settings_that_do_not_fit_are_refused(
    folder: Path, name: str, old: str, new: str, kind: type[EdgepackError], reason: str
) -> None:
    checkpoint = edit(folder, name, old, new)
    with pytest.raises(kind, match=reason) as caught:
        read(checkpoint)
    assert "\n" not in str(caught.value)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


PROMPT: dict[str, np.ndarray] = {
    "prompt_text": np.zeros((1, 3), np.int64),
    "flow_prompt_speech_token": np.zeros((1, 4), np.int32),
    "prompt_speech_feat": zeros(1, 8, 80),
    "flow_embedding": zeros(1, 192),
}


def test_voices_have_the_shapes_of_the_host(folder: Path) -> None:
    (folder / "spk2info.pt").unlink()
    assert FAMILY.voices(open_checkpoint(folder)) == {}
    writer.save(folder / "spk2info.pt", {"a": {"embedding": zeros(1, 192)}, 7: PROMPT})
    voices = FAMILY.voices(open_checkpoint(folder))
    assert voices["a"].speaker.shape == (192,)
    assert voices["a"].prompt is None
    prompt = voices["7"].prompt
    assert prompt
    assert [a.shape for a in (prompt.text, prompt.tokens, prompt.mel)] == [(3,), (4,), (8, 80)]


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [1],
        {"a": 3},
        {"a": {}},
        {"a": {"embedding": 1.0}},
        {"a": {"embedding": zeros(1, 7)}},
        {"a": {"embedding": np.full((1, 192), np.inf, np.float32)}},
        {"a": {k: v for k, v in PROMPT.items() if k != "flow_embedding"}},
        {"a": PROMPT | {"prompt_text": np.full((1, 3), 1216)}},
        {"a": PROMPT | {"flow_prompt_speech_token": np.full((1, 4), 729)}},
        {"a": PROMPT | {"flow_prompt_speech_token": np.full((1, 4), -1)}},
        {"a": PROMPT | {"flow_prompt_speech_token": zeros(1, 4) + 0.5}},
        {"a": PROMPT | {"prompt_speech_feat": zeros(1, 8, 40)}},
        {"a": PROMPT | {"prompt_speech_feat": zeros(1, 5, 80)}},
        {"a": PROMPT | {"prompt_speech_feat": zeros(2, 3, 8, 80)}},
        {"a": PROMPT | {"prompt_speech_feat": zeros(1, 8, 0)}},
        {"a": PROMPT | {"prompt_speech_feat": zeros()}},
        {"a": {"embedding": np.full((1, 192), 1e300)}},
        {"a": PROMPT | {"prompt_speech_feat": np.full((1, 8, 80), np.nan, np.float32)}},
    ],
    ids=[
        "nothing", "list", "number", "empty", "no array", "width", "infinite", "part missing",
        "text id", "token id", "negative", "fraction", "bands", "frames", "axes",
        "no bands", "no axes", "beyond float32", "NaN",
    ],
)  # fmt: skip
def test_a_voice_that_does_not_fit_is_left_out_by_name(folder: Path, tree: Any) -> None:
    sound = {"b": {"embedding": zeros(1, 192)}}
    told: list[str] = []
    found = speakers(folder, tree | sound if isinstance(tree, dict) else tree, told)
    assert set(found) == (set(sound) if isinstance(tree, dict) else set())
    assert len(told) == 1
    assert told[0].startswith("spk2info.pt: " + ("speaker 'a' has " if found else "holds no table"))


def speakers(folder: Path, tree: object, told: list[str]) -> Mapping[str, Voice]:
    (folder / "spk2info.pt").unlink()
    writer.save(folder / "spk2info.pt", tree)
    return FAMILY.voices(open_checkpoint(folder), told.append)


ROW = np.linspace(-1, 1, 192)
FORMS: dict[str, Any] = {
    "embedding alone": ROW[None].astype(np.float32),
    "no axis": ROW.astype(np.float32),
    "list": ROW.tolist(),
    "float64": {"embedding": ROW[None]},
    "bfloat16": {"embedding": ROW[None].astype(ml_dtypes.bfloat16)},
    "both embeddings": {"llm_embedding": zeros(1, 192), "flow_embedding": ROW[None]},
    "one of two": {"llm_embedding": ROW[None]},
    "prompt in part": {"embedding": ROW[None], "prompt_text": PROMPT["prompt_text"]},
}


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_are_read_however_a_tool_wrote_them(folder: Path, form: str) -> None:
    told: list[str] = []
    voice = speakers(folder, {"a": FORMS[form]}, told)["a"]
    assert voice.prompt is None
    assert voice.speaker.dtype == np.float32
    np.testing.assert_allclose(voice.speaker, ROW, atol=4e-3 if form == "bfloat16" else 1e-6)
    lost = "speaker 'a' has a prompt without 'flow_prompt_speech_token'; taken without its prompt"
    assert told == ([f"spk2info.pt: {lost}"] if form == "prompt in part" else [])


@pytest.mark.parametrize(
    ("change", "tokens"),
    [
        ({"embedding": zeros(1, 192)}, 4),
        ({"prompt_speech_feat": zeros(1, 9, 80)}, 4),
        ({"prompt_speech_feat": zeros(1, 7, 80)}, 3),
        ({"prompt_speech_feat": np.zeros((1, 8, 80))}, 4),
        ({"flow_prompt_speech_token": np.arange(4.0)[None]}, 4),
    ],
    ids=["an embedding too", "a frame more", "a frame less", "float64", "ids as floats"],
)
def test_a_prompt_is_kept_whole_tokens_long(
    folder: Path, change: dict[str, np.ndarray], tokens: int
) -> None:
    told: list[str] = []
    prompt = speakers(folder, {"a": PROMPT | change}, told)["a"].prompt
    assert prompt
    assert told == []
    assert (prompt.tokens.size, prompt.mel.shape) == (tokens, (2 * tokens, 80))
    assert (prompt.tokens.dtype.name, prompt.mel.dtype.name) == ("int64", "float32")


def test_names_that_a_bundle_cannot_have_are_changed_and_told(folder: Path) -> None:
    told: list[str] = []
    names = ["女声(温柔)", "女声/温柔", "a#1", "me@home", "C++", "", "../../evil", "x" * 99]
    tree = {name: {"embedding": zeros(1, 192)} for name in [*names, "plain", 7]}
    found = speakers(folder, tree, told)
    assert len(found) == len(tree)
    assert {"plain", "7"} <= found.keys()
    assert len(told) == len(names)
    for name in found:
        file_name(name, b"")
    assert told[0].startswith("spk2info.pt: speaker '女声(温柔)' is called '女声_温柔-")
    told.clear()
    assert set(speakers(folder, {7: tree[""], "7": tree[""]}, told)) == {"7"}
    assert told == ["spk2info.pt: speaker '7' is there twice; the first is taken"]


def test_a_bundle_is_made_of_every_file_that_is_read(folder: Path) -> None:
    everything = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    unread = {"PROVENANCE.json", "CosyVoice-BlankEN/generation_config.json"}
    unread |= {"CosyVoice-BlankEN/model.safetensors"}
    assert set(FAMILY.sources(open_checkpoint(folder))) == everything - unread
    save_file(dict(open_checkpoint(folder).tensors("flow")), folder / "flow.safetensors")
    assert "flow.safetensors" not in FAMILY.sources(open_checkpoint(folder))
    (folder / "flow.pt").unlink()
    assert "flow.safetensors" in FAMILY.sources(open_checkpoint(folder))
    (folder / "campplus.onnx").unlink()
    assert FAMILY.enrolment(open_checkpoint(folder)) == {}


def test_self_tests_of_the_estimator_are_at_embedded_times(tmp_path: Path) -> None:
    graphs = {graph.name: graph for graph in FAMILY.graphs(open_checkpoint(SOURCE))}
    shifts = [call["shift"] for call in graphs["flow_estimator"].calls]
    session = engine("ort").open(graphs["flow_time"].save(tmp_path), (), Options(1))
    found = session.run({"t": np.array([0.0, 0.7], np.float32)})["shift"]
    np.testing.assert_allclose(np.concatenate(shifts), found, rtol=1e-3, atol=1e-4)
