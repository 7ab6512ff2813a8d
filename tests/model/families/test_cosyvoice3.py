"""CosyVoice3 checkpoints: every tensor and every setting is used, dropped by name, or refused."""

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest
import random_cosyvoice2
import random_cosyvoice3
from support import DATA, GOLDEN
from tokenizers import Tokenizer

from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.model.checkpoint.folder import Checkpoint, open_checkpoint
from edgepack.model.families.cosyvoice3 import FAMILY
from edgepack.model.family import recognise
from edgepack.runtime.strategies.flow import look_ahead
from edgepack.runtime.strategies.language_model import text_then_speech
from edgepack.runtime.strategies.prompt import log_mel
from edgepack.runtime.strategies.vocoder import causal_hift

SOURCE = DATA / "checkpoints" / "cosyvoice3-s2"
QWEN2 = DATA / "qwen2-tokenizer"
YAML = "cosyvoice3.yaml"
HEAD = "llm.model.lm_head.weight"
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
    """The checkpoint with text replaced."""
    path = folder / name
    text = path.read_text("utf-8")
    assert old in text
    path.unlink()
    path.write_text(text.replace(old, new), "utf-8")
    return open_checkpoint(folder)


@pytest.mark.parametrize("part", ["llm", "flow", "hift"])
def test_a_tensor_that_nothing_reads_is_refused_by_name(part: str) -> None:
    more = changed(**{part: lambda t: t | {"zz.surprise": np.zeros(3, np.float32)}})
    with pytest.raises(UnsupportedError, match=rf"{part}\.pt: 1 tensors .* first zz\.surprise"):
        list(FAMILY.graphs(more))


@pytest.mark.slow
@pytest.mark.parametrize(("part", "every"), [("llm", 5), ("flow", 11), ("hift", 41)])
def test_a_missing_tensor_is_refused_by_name(part: str, every: int) -> None:
    names = [name for name in Checkpoint(SOURCE, YAML).tensors(part) if name != HEAD]
    for name in names[::every]:
        less = changed(**{part: lambda t, name=name: {k: v for k, v in t.items() if k != name}})
        with pytest.raises((UsageError, UnsupportedError), match=rf"^{part}\.pt: ") as caught:
            list(FAMILY.graphs(less))
        # Half of a normalised weight is missed under the plain weight's name.
        assert name.split(".parametrizations")[0] in str(caught.value)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("llm", "speech_embedding.weight"),
        ("llm", "llm_decoder.weight"),
        ("flow", "input_embedding.weight"),
        ("flow", "pre_lookahead_layer.conv1.weight"),
        ("flow", "decoder.estimator.rotary_embed.inv_freq"),
        ("flow", "decoder.estimator.transformer_blocks.1.attn.to_q.weight"),
        ("flow", "decoder.estimator.transformer_blocks.2.attn_norm.linear.weight"),
        ("flow", "decoder.estimator.norm_out.linear.bias"),
        ("hift", "conv_pre.parametrizations.weight.original1"),
        ("hift", "f0_predictor.condnet.0.parametrizations.weight.original1"),
        ("hift", "source_downs.1.weight"),
    ],
)
def test_another_shape_is_refused_by_name(part: str, name: str, axis: int) -> None:
    def longer(tensors: Tensors) -> Tensors:
        value = tensors[name]
        return tensors | {name: np.concatenate([value, value], axis)}

    wanted = name.split(".parametrizations")[0]
    with pytest.raises((UsageError, UnsupportedError), match=rf"^{part}\.pt: .*{wanted}"):
        list(FAMILY.graphs(changed(**{part: longer})))


def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    name = "ups.0.parametrizations.weight.original1"
    spoiled = changed(hift=lambda t: t | {name: np.full_like(t[name], np.nan)})
    vocoder = list(FAMILY.graphs(spoiled))[-1]
    with pytest.raises(IntegrityError, match=rf"hift\.pt: {name} has NaN"):
        vocoder.save(tmp_path)


def test_a_generator_of_training_and_old_weight_norms_are_the_same_network() -> None:
    def older(tensors: Tensors) -> Tensors:
        ends = {"original0": "weight_g", "original1": "weight_v"}
        for new, old in ends.items():
            end = f"parametrizations.weight.{new}"
            tensors = {name.replace(end, old): value for name, value in tensors.items()}
        return {f"generator.{name}": value for name, value in tensors.items()}

    count = [graph.parameters for graph in FAMILY.graphs(Checkpoint(SOURCE, YAML))]
    assert [graph.parameters for graph in FAMILY.graphs(changed(hift=older))] == count


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n    pre_lookahead_len: 3", "\n    pre_lookahead_len: 2", "pre_lookahead_len is 2"),
        ("spk_dim: 80", "spk_dim: 40", r"spk_dim is 40; this version only builds 80"),
        ("input_size: 80", "input_size: 64", r"input_size is 64; this version only builds 80"),
        ("depth: 3", "depth: 2", r"transformer_blocks has 3 layers, its configuration says 2"),
        ("conv_pre_look_right: 4", "conv_pre_look_right: 3", r"conv_pre.*has shape"),
        ("heads: 2", "heads: 3", r"to_q.weight has shape"),
        ("in_channels: 80\n    channels", "in_channels: 40\n    channels", "in_channels is 40"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    folder: Path, old: str, new: str, message: str
) -> None:
    checkpoint = edit(folder, YAML, old, new)
    with pytest.raises((UsageError, UnsupportedError), match=message):
        list(FAMILY.graphs(checkpoint))


def test_a_chunk_of_part_of_a_token_is_refused(folder: Path) -> None:
    checkpoint = edit(folder, YAML, "'<chunk_size> * <token_mel_ratio>'", "51")
    with pytest.raises(UnsupportedError, match="static_chunk_size is 51 frames"):
        FAMILY.host(checkpoint)


def test_settings_of_the_host(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    host = FAMILY.host(checkpoint)
    lm, flow, vocoder, prompt = host.language_model, host.flow, host.vocoder, host.prompt
    assert isinstance(lm, text_then_speech.Record)
    ids = (lm.speech_tokens, lm.start, lm.end, lm.task, lm.fill, lm.masked_before_min)
    assert ids == (2460, 2460, 2461, 2462, 2463, 2460)
    assert isinstance(flow, look_ahead.Record)
    assert (flow.chunk, flow.ratio, flow.look_ahead, flow.schedule) == (25, 2, 3, "cosine")
    assert isinstance(vocoder, causal_hift.Record)
    assert (vocoder.frame, vocoder.ahead, vocoder.pitch_ahead) == (480, 4, 3)
    assert isinstance(prompt, log_mel.Record)
    assert prompt.high == 12000
    lower = edit(folder, YAML, "fmax: null", "fmax: 8000")
    assert FAMILY.host(lower).prompt == msgspec.structs.replace(prompt, high=8000)


def test_voices_and_enrolment_of_the_released_layout(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert FAMILY.voices(checkpoint)
    assert FAMILY.enrolment(checkpoint)["speech_tokenizer"] == "speech_tokenizer_v3.onnx"
    assert {"llm.pt", "spk2info.pt", YAML} <= set(FAMILY.sources(checkpoint))
    (folder / "spk2info.pt").unlink()  # the release has none
    (folder / "campplus.onnx").unlink()
    assert FAMILY.voices(checkpoint) == {}
    assert FAMILY.enrolment(checkpoint) == {}


@pytest.mark.slow
def test_ids_of_the_full_tokenizer_are_those_of_the_original(folder: Path) -> None:
    qwen = folder / "CosyVoice-BlankEN"
    for path in qwen.iterdir():
        path.unlink()
    for path in QWEN2.iterdir():
        shutil.copy(path, qwen)
    (qwen / "config.json").write_text(json.dumps({"vocab_size": 151936}))
    tokenizer = Tokenizer.from_str(FAMILY.tokenizer(open_checkpoint(folder)))
    recorded = json.loads((GOLDEN / "common" / "tokenizer.json").read_text("utf-8"))
    assert tokenizer.get_vocab_size() == recorded["len_cosyvoice3"]
    for token, number in recorded["cosyvoice3_added"].items():
        assert tokenizer.token_to_id(token) == number
    for item in recorded["items"]:
        assert tokenizer.encode(item["text"]).ids == item["cosyvoice3"]


def test_it_is_recognised_by_the_networks_it_declares() -> None:
    assert recognise(Checkpoint(SOURCE, YAML)) == ("cosyvoice3", FAMILY)


def test_random_checkpoints_have_the_tensors_of_the_release() -> None:
    size = random_cosyvoice3.Size3()
    shapes = (getattr(random_cosyvoice3, f"{part}_shapes")(size) for part in FAMILY.networks)
    counts = [(len(s), sum(math.prod(shape) for shape in s.values())) for s in shapes]
    assert counts == [(292, 506_148_480), (330, 332_257_120), (328, 20_779_887)]


def test_a_random_checkpoint_of_another_size_is_understood(tmp_path: Path) -> None:
    blank = random_cosyvoice2.DEMO / "CosyVoice-BlankEN"
    random_cosyvoice3.write(tmp_path, random_cosyvoice3.TINY, blank)
    checkpoint = open_checkpoint(tmp_path)
    stages = {graph.name for graph in FAMILY.graphs(checkpoint)}
    assert stages == {graph.name for graph in FAMILY.graphs(Checkpoint(SOURCE, YAML))}
    tokenizer = Tokenizer.from_str(FAMILY.tokenizer(checkpoint))
    assert tokenizer.get_vocab_size() <= FAMILY.text_rows(checkpoint)
