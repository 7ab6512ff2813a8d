"""What the family of CosyVoice 1 says of a checkpoint."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import random_cosyvoice1
import random_cosyvoice2
from random_cosyvoice1_shapes import flow_shapes, lm_shapes
from support import COSYVOICE1, DATA, GOLDEN

from edgepack.errors import UnsupportedError, UsageError
from edgepack.model.checkpoint.folder import Checkpoint, open_checkpoint
from edgepack.model.families.cosyvoice import FAMILY
from edgepack.model.families.cosyvoice2 import FAMILY as COSYVOICE2
from edgepack.model.family import recognise
from edgepack.runtime.strategies.prompt import log_mel
from edgepack.runtime.strategies.schedule import overlapping_chunks
from edgepack.runtime.strategies.vocoder import phased_hift


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A random checkpoint of 25 tokens a second."""
    folder = tmp_path_factory.mktemp("tiny")
    random_cosyvoice1.write(folder, random_cosyvoice1.TINY)
    return open_checkpoint(folder)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, str], Checkpoint]:
    """A checkpoint with one text of its configuration replaced."""

    def change(old: str, new: str) -> Checkpoint:
        folder = tmp_path / "checkpoint"
        shutil.copytree(DATA / "checkpoints" / COSYVOICE1[0], folder, copy_function=os.link)
        path = folder / "cosyvoice.yaml"
        text = path.read_text("utf-8")
        assert old in text
        path.unlink()
        path.write_text(text.replace(old, new), "utf-8")
        return open_checkpoint(folder)

    return change


def test_a_released_checkpoint_has_this_many_tensors() -> None:
    """Of 300M, as the original builds it."""
    size = random_cosyvoice1.Size()
    tables = 3
    assert len(lm_shapes(size.lm)) + tables == 401
    assert len(flow_shapes(size.flow)) == 1185
    assert len(random_cosyvoice2.hift_shapes(size.vocoder)) == 227


@pytest.mark.parametrize("model", [*COSYVOICE1, "tiny"])
def test_every_tensor_is_read(tiny: Checkpoint, model: str) -> None:
    checkpoint = tiny if model == "tiny" else open_checkpoint(DATA / "checkpoints" / model)
    graphs = {graph.name: graph for graph in FAMILY.graphs(checkpoint)}
    assert set(graphs) == {
        "speech_lm", "text_embedding", "text_encoder", "speaker_embedding", "speech_embedding",
        "flow_encoder", "flow_time", "flow_estimator", "hift_source", "hift",
    }  # fmt: skip
    stored = (checkpoint.tensors(part).values() for part in ("llm", "flow", "hift"))
    size = sum(array.size for part in stored for array in part)
    assert sum(graph.parameters for graph in graphs.values()) >= 0.95 * size


def test_text_rows_are_kept_in_the_order_that_is_asked_for(tiny: Checkpoint) -> None:
    rows = np.array([7, 0, 1399])
    graphs = {graph.name: graph for graph in FAMILY.graphs(tiny, rows)}
    (table,) = graphs["text_embedding"].model.graph.initializers.values()
    assert table.const_value is not None
    whole = tiny.tensors("llm")["text_embedding.weight"]
    assert np.array_equal(table.const_value.numpy(), whole[rows])


def test_a_tensor_that_is_not_understood_is_an_error(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Checkpoint.tensors
    extra = {"extra": np.zeros(1, np.float32)}
    monkeypatch.setattr(Checkpoint, "tensors", lambda c, part: {**known(c, part), **extra})
    with pytest.raises(UnsupportedError, match="1 tensors are not understood, first extra"):
        list(FAMILY.graphs(tiny))


def test_rates_follow_the_configuration(tiny: Checkpoint) -> None:
    fast = open_checkpoint(DATA / "checkpoints" / COSYVOICE1[0])
    hosts = [FAMILY.host(checkpoint) for checkpoint in (fast, tiny)]
    assert [host.flow.frames(100) for host in hosts] == [172, 344]
    for host, hop in zip(hosts, (100, 50), strict=True):
        assert isinstance(host.schedule, overlapping_chunks.Record)
        assert host.schedule.hop == hop
    vocoder = hosts[1].vocoder
    assert isinstance(vocoder, phased_hift.Record)
    assert (vocoder.frame, vocoder.partials) == (256, 7)


def test_prompts_are_read_at_a_rate_that_the_mel_does_not_know() -> None:
    checkpoint = open_checkpoint(DATA / "checkpoints" / COSYVOICE1[0])
    with np.load(GOLDEN / "common" / "frontend.npz") as recorded:
        samples, wanted = recorded["wav_24k"][0], recorded["mel22k_fmax8000"]
    settings = FAMILY.host(checkpoint).prompt
    assert isinstance(settings, log_mel.Record)
    assert (settings.rate, settings.read_at) == (22050, 24000)
    mel = log_mel.log_mel(samples, settings)
    np.testing.assert_allclose(mel.T[None], wanted, rtol=0, atol=2e-5)


def test_seven_speakers_and_no_prompt(tiny: Checkpoint) -> None:
    told: list[str] = []
    voices = FAMILY.voices(tiny, told.append)
    assert set(voices) == set(random_cosyvoice1.SPEAKERS)
    assert all(voice.prompt is None and voice.speaker.shape == (192,) for voice in voices.values())
    assert not told


def test_a_saved_prompt_keeps_frames_that_are_no_multiple_of_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = open_checkpoint(DATA / "checkpoints" / COSYVOICE1[0])
    monkeypatch.setattr(type(FAMILY), "text_rows", lambda family, of: 51866)
    prompt = FAMILY.voices(checkpoint)["spk_zero_shot"].prompt
    assert prompt is not None
    assert (len(prompt.tokens), len(prompt.mel)) == (110, 206)


def test_a_prompt_of_text_beyond_the_table_is_left_out() -> None:
    told: list[str] = []
    voices = FAMILY.voices(open_checkpoint(DATA / "checkpoints" / COSYVOICE1[0]), told.append)
    assert set(voices) == {"spk_sft"}
    assert "no ids below 2000" in told[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("static_chunk_size: 1\n  sampling", "normalize_before: False\n  sampling", "normalize"),
        ("use_cnn_module: False", "use_cnn_module: True", "use_cnn_module"),
        ("attention_heads: 4", "attention_heads: 5", "does not divide"),
        ("hop_size: 256", "hop_size: 300", "256 samples a frame, but a mel frame has 300"),
        ("sample_rate: 22050", "sample_rate: 24000", "24000 Hz are of CosyVoice 2 and 3"),
        ("num_blocks: 2", "num_blocks: 3", "its configuration says 3"),
        ("speech_token_size: 4096", "speech_token_size: 4097", "its configuration says"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    changed: Callable[[str, str], Checkpoint], old: str, new: str, message: str
) -> None:
    with pytest.raises((UsageError, UnsupportedError), match=message):
        list(FAMILY.graphs(changed(old, new)))


@pytest.mark.parametrize("model", [*COSYVOICE1, "cosyvoice2-s2"])
def test_it_is_known_by_the_networks_that_are_declared(tmp_path: Path, model: str) -> None:
    """Until April 2025 the configuration of CosyVoice2 was called cosyvoice.yaml, too."""
    source = DATA / "checkpoints" / model
    (configuration,) = source.glob("cosyvoice*.yaml")
    shutil.copyfile(configuration, tmp_path / "cosyvoice.yaml")
    family = FAMILY if model in COSYVOICE1 else COSYVOICE2
    assert recognise(open_checkpoint(tmp_path))[1] is family


def test_sources_are_the_files_that_are_there(tiny: Checkpoint) -> None:
    assert set(FAMILY.sources(tiny)) == {
        "cosyvoice.yaml", "llm.pt", "flow.pt", "hift.pt", "spk2info.pt",
        "speech_tokenizer_v1.onnx", "campplus.onnx",
    }  # fmt: skip
    assert set(FAMILY.enrolment(tiny)) == {"speech_tokenizer", "speaker_encoder"}
