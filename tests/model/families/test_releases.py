"""Which release a folder is: by the networks it declares, with the weights that were asked for."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch_zip_writer as writer
from support import DATA

from edgepack.builder.hub import author
from edgepack.builder.planning import BuildRequest, open_source, plan
from edgepack.errors import EdgepackError, IntegrityError, UnsupportedError, UsageError
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.model.families.cosyvoice2 import FAMILY
from edgepack.model.family import recognise
from edgepack.report import silent
from edgepack.runtime.strategies.flow import causal_chunks

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
YAML = "cosyvoice2.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy whose files are links: replace them."""
    return Path(shutil.copytree(SOURCE, tmp_path / "checkpoint", copy_function=os.link))


def declare(folder: Path, name: str, llm: str, flow: str, hift: str) -> None:
    """The folder with another configuration, of networks of these classes."""
    for path in folder.glob("cosyvoice*.yaml"):
        path.unlink()
    parts = {"llm.llm": llm, "flow.flow": flow, "hifigan.generator": hift}
    lines = [
        f"{part}: !new:cosyvoice.{module}.{network}\n  x: 1\n"
        for part, (module, network) in zip(("llm", "flow", "hift"), parts.items(), strict=True)
    ]
    (folder / name).write_text("sample_rate: 24000\n" + "".join(lines), "utf-8")


@pytest.mark.parametrize("name", ["cosyvoice.yaml", "cosyvoice2.yaml", "cosyvoice3.yaml"])
def test_cosyvoice2_is_known_under_every_name(folder: Path, name: str) -> None:
    (folder / YAML).rename(folder / name)
    checkpoint = open_checkpoint(folder)
    assert recognise(checkpoint) == ("cosyvoice2", FAMILY)
    assert name in FAMILY.sources(checkpoint)


@pytest.mark.parametrize("name", ["cosyvoice.yaml", "cosyvoice2.yaml", "cosyvoice3.yaml"])
def test_cosyvoice3_is_known_under_every_name(folder: Path, name: str) -> None:
    declare(folder, name, "CosyVoice3LM", "CausalMaskedDiffWithDiT", "CausalHiFTGenerator")
    assert recognise(open_checkpoint(folder))[0] == "cosyvoice3"


@pytest.mark.parametrize("name", ["cosyvoice.yaml", "cosyvoice2.yaml", "cosyvoice3.yaml"])
@pytest.mark.parametrize(
    "networks",
    [
        ("Qwen2LM", "MaskedDiffWithXvec", "HiFTGenerator"),  # of two releases
        ("CosyVoice3LM", "CausalMaskedDiffWithDiT", "HiFTGenerator"),
        ("TransformerLM", "MaskedDiffWithXvec", "CausalHiFTGenerator"),
        ("CosyVoice4LM", "CausalMaskedDiffWithDiT", "CausalHiFTGenerator"),
    ],
)
def test_another_release_is_refused_by_its_networks(
    folder: Path, name: str, networks: tuple[str, str, str]
) -> None:
    declare(folder, name, *networks)
    with pytest.raises(UnsupportedError) as caught:
        recognise(open_checkpoint(folder))
    message = str(caught.value)
    assert name in message
    assert f"declares the networks of another model (llm {networks[0]}, " in message
    assert "it builds cosyvoice, cosyvoice2, cosyvoice3" in message


def test_the_newest_of_several_configurations_counts(folder: Path) -> None:
    (folder / "cosyvoice.yaml").write_text("an older one that was left: [\n")
    assert open_checkpoint(folder).config_name == YAML


def test_a_configuration_of_before_april_2025_says_less(folder: Path) -> None:
    wanted = FAMILY.host(open_checkpoint(folder))
    text = (folder / YAML).read_text("utf-8")
    (folder / YAML).unlink()
    text = text.replace("!ref '<token_frame_rate>'", "25").replace(
        "CausalConditional", "Conditional"
    )
    left = "token_frame_rate|chunk_size|static_chunk_size|num_decoding_left_chunks|mix_ratio"
    text = re.sub(rf"^ *({left}):.*\n", "", text, flags=re.MULTILINE)
    (folder / "cosyvoice.yaml").write_text(text, "utf-8")
    checkpoint = open_checkpoint(folder)
    found = recognise(checkpoint)[1].host(checkpoint)
    assert isinstance(found.flow, causal_chunks.Record)
    assert found.flow.chunk == 50
    assert msgspec.structs.replace(found, flow=wanted.flow) == wanted
    assert len(list(FAMILY.graphs(checkpoint))) == 8


def with_rl(folder: Path) -> dict[str, np.ndarray]:
    """Puts weights that differ from `llm.pt` into `llm.rl.pt`; returns them."""
    tensors = {name: value * 1.5 for name, value in open_checkpoint(folder).tensors("llm").items()}
    writer.save(folder / "llm.rl.pt", tensors)
    return tensors


def test_other_weights_of_the_language_model_are_taken_when_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    with_rl(folder)
    table = "text_embedding.onnx.data"
    plain, asked = open_source(str(folder)), open_source(str(folder), "llm.rl.pt")
    assert "llm.rl.pt" not in plain.hashes
    assert "llm.pt" not in asked.hashes
    assert asked.hashes["llm.rl.pt"] == asked.checkpoint.sha256("llm.rl.pt")
    for name, source in (("plain", plain), ("asked", asked)):
        (tmp_path / name).mkdir()
        author(source.checkpoint, None, tmp_path / name, silent)
    one, other = (np.fromfile(tmp_path / n / table, np.float32) for n in ("plain", "asked"))
    np.testing.assert_allclose(other, one * 1.5, rtol=1e-6)
    files = [(tmp_path / n / "hift.onnx.data").read_bytes() for n in ("plain", "asked")]
    assert files[0] == files[1]


def test_other_weights_make_another_bundle(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "llm.pt", folder / "llm.rl.pt")
    plain = BuildRequest(str(folder), ["intel-cpu"], tmp_path)
    keys = {
        plan(request, open_source(request.model, request.llm))[0].key
        for request in (plain, replace(plain, llm="llm.rl.pt"))
    }
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("llm.gone.pt", "llm.gone.pt is missing"),
        ("../llm.pt", "inside"),
        ("/dev/null.pt", "inside"),
        ("cosyvoice2.yaml", "inside"),
        ("", "inside"),
        (".", "inside"),
        ("CosyVoice-BlankEN", "inside"),
    ],
)
def test_weights_that_are_no_file_of_the_checkpoint_are_refused(
    folder: Path, name: str, reason: str
) -> None:
    shutil.copy(folder / "llm.pt", folder.parent / "llm.pt")
    with pytest.raises(UsageError, match=reason):
        open_source(str(folder), name)


def test_weights_behind_a_link_out_are_refused(folder: Path) -> None:
    shutil.copy(folder / "llm.pt", folder.parent / "llm.pt")
    (folder / "llm.rl.pt").symlink_to(folder.parent / "llm.pt")
    with pytest.raises(IntegrityError, match="a link out of the checkpoint"):
        open_source(str(folder), "llm.rl.pt")


def another_layer(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    extra = "llm.model.model.layers.3.self_attn.q_proj.weight"
    return tensors | {extra: tensors[extra.replace("layers.3", "layers.2")]}


def wider(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: np.concatenate([v, v], -1) if v.ndim == 2 else v for n, v in tensors.items()}


@pytest.mark.parametrize("change", [another_layer, wider, lambda tensors: {}])
def test_weights_of_another_structure_are_refused_by_their_name(
    folder: Path, change: object
) -> None:
    assert callable(change)
    writer.save(folder / "llm.rl.pt", change(with_rl(folder)))
    checkpoint = open_source(str(folder), "llm.rl.pt").checkpoint
    with pytest.raises(EdgepackError, match=r"^llm\.rl\.pt: ") as caught:
        list(FAMILY.graphs(checkpoint))
    assert caught.value.exit_code in (2, 3)


def test_weights_of_another_part_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"^flow\.pt: tensor .* is missing"):
        list(FAMILY.graphs(open_source(str(folder), "flow.pt").checkpoint))


def test_a_checkpoint_that_could_never_speak_is_refused(folder: Path, tmp_path: Path) -> None:
    request = BuildRequest(str(folder), ["intel-cpu"], tmp_path)
    (folder / "campplus.onnx").unlink()
    assert plan(request, open_source(request.model))
    (folder / "spk2info.pt").unlink()
    with pytest.raises(UsageError, match="no voices and no networks that could make one"):
        plan(request, open_source(request.model))
