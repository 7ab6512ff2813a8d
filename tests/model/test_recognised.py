"""Which release a checkpoint is: by dimensions, settings, speakers, sizes and hashes."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import random_cosyvoice1
import random_cosyvoice1_shapes
import random_cosyvoice2
import random_cosyvoice3
from random_weights import Shapes
from safetensors.numpy import save_file
from support import DATA

from edgepack.model.checkpoint.folder import Checkpoint, open_checkpoint
from edgepack.model.families import _releases
from edgepack.model.family import recognise
from edgepack.model.inspection import inspect_checkpoint
from edgepack.model.releases import KnownRelease, Recognised, Releases, recognise_release

SMALL = DATA / "checkpoints"
SPEAKERS = frozenset(random_cosyvoice1.SPEAKERS)


def parameters(checkpoint: Checkpoint) -> dict[str, int]:
    """Weights by part; of these small checkpoints no two tensors share theirs but the head's."""
    _, family = recognise(checkpoint)
    return {
        part: sum(
            value.size
            for name, value in checkpoint.tensors(part).items()
            if name not in family.releases.repeated
        )
        for part in family.networks
    }


def size(folder: Path, name: str) -> int:
    return (folder / name).stat().st_size


def of_shapes(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes.values()))


@pytest.fixture
def third(tmp_path: Path) -> Path:
    """A folder with two language models, as the release of CosyVoice3 has them."""
    folder = shutil.copytree(SMALL / "cosyvoice3-s1", tmp_path / "third")
    with (folder / "llm.rl.pt").open("wb") as file:
        file.write((folder / "llm.pt").read_bytes() + b"x")  # a size of its own, not read
    return folder


def published(folder: Path) -> KnownRelease:
    """A release of exactly these files."""
    names = ("llm.pt", "llm.rl.pt", "flow.pt", "hift.pt")
    return KnownRelease(
        "Third",
        revision="29e01c4",
        parameters=parameters(open_checkpoint(folder)),
        sizes={name: size(folder, name) for name in names},
        variants={"llm.pt": "base", "llm.rl.pt": "RL"},
    )


def told(folder: Path, *known: KnownRelease, speakers: tuple[str, ...] = ()) -> Recognised:
    checkpoint = open_checkpoint(folder)
    _, family = recognise(checkpoint)
    return recognise_release(checkpoint, replace(family.releases, known=known), speakers)


def test_published_files_are_known_by_their_sizes(third: Path) -> None:
    found = told(third, published(third))
    assert (found.names, found.revision, found.variant) == (("Third",), "29e01c4", "base")
    assert set(found.published) == {"llm.pt", "llm.rl.pt", "flow.pt", "hift.pt"}
    assert (found.differing, found.unknown) == ((), ())
    assert list(found.lines()) == [
        "release: Third (revision 29e01c4), base language model, by its dimensions",
        "files of the release: llm.pt (by its size), llm.rl.pt (by its size), "
        "flow.pt (by its size), hift.pt (by its size)",
    ]


def test_reinforced_weights_are_known_under_the_name_of_the_others(third: Path) -> None:
    release = published(third)
    (third / "llm.rl.pt").unlink()
    sizes = {**release.sizes, "llm.pt": 1, "llm.rl.pt": size(third, "llm.pt")}
    found = told(third, replace(release, sizes=sizes))
    assert found.variant == "RL"
    assert found.published["llm.pt"] == "llm.rl.pt there, by its size"
    assert "RL language model" in next(found.lines())


def test_the_language_model_is_the_one_that_is_asked_for(third: Path) -> None:
    checkpoint = open_checkpoint(third).with_part("llm", "llm.rl.pt")
    shutil.copy(third / "llm.pt", third / "llm.rl.pt")
    release = replace(published(third), sizes={"llm.rl.pt": size(third, "llm.rl.pt")})
    found = recognise_release(checkpoint, replace(_releases.COSYVOICE3, known=(release,)), ())
    assert found.variant == "RL"
    assert found.unknown == ("flow.pt", "hift.pt")


def test_other_files_are_not_called_the_release_s(third: Path) -> None:
    release = published(third)
    found = told(third, replace(release, sizes={**release.sizes, "flow.pt": 5}))
    assert (found.differing, found.revision) == (("flow.pt",), "")
    assert "other files than the release's: flow.pt" in list(found.lines())
    assert "flow.pt" not in found.published


@pytest.mark.parametrize("part", ["llm", "flow", "hift"])
def test_one_weight_more_is_another_model(third: Path, part: str) -> None:
    release = published(third)
    counts = {**release.parameters, part: release.parameters[part] + 1}
    found = told(third, replace(release, parameters=counts))
    assert found == Recognised("CosyVoice3")
    assert list(found.lines()) == ["release: unknown: CosyVoice3 of other dimensions"]


def test_a_head_that_is_no_second_name_counts_as_little(tmp_path: Path) -> None:
    """Files may have the head of the language model as a tensor of its own, or not at all."""
    folder = shutil.copytree(SMALL / "cosyvoice3-s1", tmp_path / "c")
    release = KnownRelease("Third", parameters=parameters(open_checkpoint(folder)))
    tensors: Mapping[str, np.ndarray] = open_checkpoint(folder).tensors("llm")
    copied = {name: np.array(value) for name, value in tensors.items()}
    (folder / "llm.pt").unlink()
    for there in (copied, {n: v for n, v in copied.items() if "lm_head" not in n}):
        save_file(there, folder / "llm.safetensors")
        found = told(folder, release)
        assert found.names == ("Third",)
        assert found.unknown == ("llm.safetensors", "flow.pt", "hift.pt")


def test_hashes_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    folder, name = SMALL / "cosyvoice1-s1", "speech_tokenizer_v1.onnx"
    checkpoint = open_checkpoint(folder)
    begins = checkpoint.sha256(name)[:8]
    release = KnownRelease("First", parameters=parameters(checkpoint), hashes={name: begins})
    assert told(folder, release).published == {name: "by its hash"}
    other = replace(release, hashes={name: "0" * 8 if begins != "0" * 8 else "1" * 8})
    assert told(folder, other).differing == (name,)


def test_settings_and_the_name_of_the_configuration_count() -> None:
    folder = SMALL / "cosyvoice1-s1"
    release = KnownRelease(
        "First",
        parameters=parameters(open_checkpoint(folder)),
        settings={"flow.input_frame_rate": 50},
        configuration="cosyvoice.yaml",
    )
    assert told(folder, release).names == ("First",)
    for other in (
        replace(release, settings={"flow.input_frame_rate": 25}),
        replace(release, settings={"flow.nothing.at.all": 50}),
        replace(release, configuration="cosyvoice2.yaml"),
    ):
        assert told(folder, other).names == ()


def test_speakers_choose_among_releases_of_the_same_networks() -> None:
    folder = SMALL / "cosyvoice1-s1"
    counts = parameters(open_checkpoint(folder))
    known = [
        KnownRelease("300M", parameters=counts, speakers=frozenset()),
        KnownRelease("SFT", parameters=counts, speakers=SPEAKERS),
        KnownRelease("Instruct", parameters=counts, speakers=SPEAKERS),
    ]
    assert told(folder, *known).names == ("300M",)
    found = told(folder, *known, speakers=tuple(SPEAKERS))
    assert found.names == ("SFT", "Instruct")
    assert next(found.lines()) == "release: SFT or Instruct, by its dimensions"
    assert told(folder, *known, speakers=("mine",)).names == ("300M", "SFT", "Instruct")
    # The repository that it was downloaded from decides, if it is one of them.
    assert found.of_repository("Instruct").names == ("Instruct",)
    assert found.of_repository("300M") == found


@pytest.mark.parametrize(
    ("releases", "shapes"),
    [
        (
            _releases.COSYVOICE1,
            {
                "llm": {
                    "text_embedding.weight": (51866, 512),
                    "llm_embedding.weight": (2, 1024),
                    "speech_embedding.weight": (4096, 1024),
                }
                | random_cosyvoice1_shapes.lm_shapes(random_cosyvoice1.FULL.lm),
                "flow": random_cosyvoice1_shapes.flow_shapes(random_cosyvoice1.FULL.flow),
                "hift": random_cosyvoice2.hift_shapes(random_cosyvoice1.FULL.vocoder),
            },
        ),
        (
            _releases.COSYVOICE2,
            {
                "llm": random_cosyvoice2.llm_shapes(random_cosyvoice2.FULL),
                "flow": random_cosyvoice2.flow_shapes(random_cosyvoice2.FULL),
                "hift": random_cosyvoice2.hift_shapes(random_cosyvoice2.FULL),
            },
        ),
        (
            _releases.COSYVOICE3,
            {
                "llm": random_cosyvoice3.llm_shapes(random_cosyvoice3.FULL),
                "flow": random_cosyvoice3.flow_shapes(random_cosyvoice3.FULL),
                "hift": random_cosyvoice3.hift_shapes(random_cosyvoice3.FULL),
            },
        ),
    ],
    ids=["cosyvoice", "cosyvoice2", "cosyvoice3"],
)
def test_releases_have_the_weights_of_full_size(
    releases: Releases, shapes: dict[str, Shapes]
) -> None:
    counts = {part: of_shapes(of_part) for part, of_part in shapes.items()}
    for known in releases.known:
        assert known.parameters.items() <= counts.items(), known.name
        for part in known.parameters.keys() & {name.removesuffix(".pt") for name in known.sizes}:
            # float32, and names, shapes and alignment besides
            assert 0 < known.sizes[f"{part}.pt"] - 4 * known.parameters[part] < 200_000


def test_releases_are_the_families_own() -> None:
    for name in ("cosyvoice1-s1", "cosyvoice2-s1", "cosyvoice3-s2"):
        found = inspect_checkpoint(SMALL / name).release
        assert found == Recognised(found.model)
        assert f"unknown: {found.model} of other dimensions" in next(found.lines())
    assert {known.name for known in _releases.COSYVOICE1.known} == {
        "CosyVoice-300M", "CosyVoice-300M-SFT", "CosyVoice-300M-Instruct", "CosyVoice-300M-25Hz"
    }  # fmt: skip
