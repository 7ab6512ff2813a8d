"""Released checkpoints from the command line: no voices inside, strays beside, all of it links."""

import os
import re
import shlex
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import random_cosyvoice1
import random_cosyvoice2
import random_cosyvoice3
from onnx import helper, numpy_helper
from released import README, STRAYS, released
from support import GOLDEN

from cli import Cli, samples
from edgepack.bundle.bundle import open_bundle

ROOT = Path(__file__).parents[2]
TEXT = "what is said"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The demo voice's weights in a hub cache, without its voices."""
    return released(Path(str(resources.files("edgepack") / "demo_voice")), tmp_path / "hub")


def sounds(path: Path) -> bool:
    rate, heard = samples(path)
    return rate == 24000 and len(heard) > 6000 and np.abs(heard).max() > 1000


def quick_start(release: str) -> list[list[str]]:
    """The commands of the README's section on a checkpoint of one's own, for one release."""
    section = (ROOT / "README.md").read_text("utf-8").split("## Your own checkpoint")[1]
    blocks = re.findall(r"```sh\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    (block,) = (found for found in blocks if f"FunAudioLLM/{release} " in found)
    return [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("edgepack ")]


def last_line(told: str) -> list[str]:
    """The command that a build ends with."""
    line = told.splitlines()[-1]
    assert line.startswith("try: edgepack ")
    return shlex.split(line)[2:]


@pytest.mark.slow
def test_the_quick_start_of_the_readme_speaks(cli: Cli, snapshot: Path) -> None:
    Path("FunAudioLLM").mkdir()
    Path("FunAudioLLM/CosyVoice2-0.5B").symlink_to(snapshot)
    shutil.copy(GOLDEN / "common" / "prompt_24k.wav", "anna.wav")
    build, run = quick_start("CosyVoice2-0.5B")
    built = cli(*build)
    assert built.code == 0, built.err
    assert cli(*run).code == 0
    assert sounds(Path("out.wav"))
    Path("out.wav").unlink()
    assert cli(*last_line(built.out)).code == 0
    assert sounds(Path("out.wav"))


@pytest.mark.slow
@pytest.mark.parametrize("release", ["CosyVoice-300M-SFT", "Fun-CosyVoice3-0.5B-2512"])
def test_the_quick_starts_of_the_other_releases_speak(cli: Cli, release: str) -> None:
    folder = Path("FunAudioLLM") / release
    if "300M" in release:
        random_cosyvoice1.write(folder, random_cosyvoice1.TINY)
    else:
        blank = random_cosyvoice2.DEMO / "CosyVoice-BlankEN"
        random_cosyvoice3.write(folder, random_cosyvoice3.TINY, blank)
    shutil.copy(GOLDEN / "common" / "prompt_24k.wav", "anna.wav")
    build, run = quick_start(release)
    built = cli(*build)
    assert built.code == 0, built.err
    spoken = cli(*run, "--guard", "warn")  # random weights end at once, or do not end
    assert spoken.code == 0, spoken.err
    rate, heard = samples(Path("out.wav"))
    assert rate == (22050 if "300M" in release else 24000)
    assert len(heard) > 6000
    assert np.abs(heard).max() > 1000


def with_pools(path: Path) -> bytes:
    """A network with the context pooling of the released one, and one that cannot be settled."""
    model = onnx.load(path)
    (result,) = model.graph.output
    model.graph.node[-1].output[0] = "embedding"
    average: dict[str, Any] = {
        "kernel_shape": [100],
        "strides": [100],
        "ceil_mode": 1,
        "count_include_pad": 1,
    }
    largest: dict[str, Any] = {"kernel_shape": [2], "strides": [2], "ceil_mode": 1, "pads": [1, 1]}
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    model.graph.node.extend(
        [
            helper.make_node("Transpose", [model.graph.input[0].name], ["bands"], perm=[0, 2, 1]),
            helper.make_node("AveragePool", ["bands"], ["context"], **average),
            helper.make_node("MaxPool", ["context"], ["peaks"], **largest),
            helper.make_node("ReduceMax", ["peaks"], ["peak"], keepdims=0),
            helper.make_node("Mul", ["peak", "nothing"], ["zero"]),
            helper.make_node("Add", ["embedding", "zero"], [result.name]),
        ]
    )
    return model.SerializeToString()


@pytest.mark.slow
def test_a_released_checkpoint_is_built_given_a_voice_and_speaks(cli: Cli, snapshot: Path) -> None:
    speaker = (snapshot / "campplus.onnx").resolve()
    speaker.write_bytes(with_pools(speaker))
    files = [path for path in snapshot.rglob("*") if path.is_file()]
    for path in files:  # in 1970, so that reading it will be noted
        os.utime(path, ns=(0, path.stat().st_mtime_ns))

    built = cli("build", snapshot, "-t", "intel-cpu", "--format", "ort", "-o", "out dir")
    assert built.code == 0, built.err
    warnings = [line for line in built.err.splitlines() if line.startswith("edgepack: warning: ")]
    assert len(warnings) == 1
    assert "campplus.onnx: MaxPool 'peaks'" in warnings[0]

    read = {str(path.relative_to(snapshot)) for path in files if path.stat().st_atime_ns}
    if read:  # this file system notes it
        assert {"llm.pt", "README.md"} <= read
        assert not read & set(STRAYS)
    bundle = open_bundle(Path("out dir") / f"{snapshot.name}-intel-cpu")
    assert bundle.manifest.source.keys() == {
        str(path.relative_to(snapshot)) for path in files
    } - set(STRAYS)
    assert bundle.path("README.md").read_text() == README
    assert not any(path.is_symlink() for path in bundle.folder.rglob("*"))
    nodes = onnx.load(bundle.path("enrolment/speaker_encoder.onnx")).graph.node
    assert [n.output[0] for n in nodes if any(a.name == "ceil_mode" for a in n.attribute)] == [
        "peaks"
    ]

    speak = ("run", bundle.folder, "你好,世界", "-o", "out.wav")
    assert "voice add" in cli(*speak).message
    shutil.copy(GOLDEN / "common" / "prompt_24k.wav", "anna.wav")
    assert cli(*last_line(built.out)).code == 0
    assert cli(*speak).code == 0
    assert sounds(Path("out.wav"))
