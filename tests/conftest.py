"""Fixtures: checkpoints, recorded vectors, and bundles that are built once a session."""

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import random_cosyvoice2
from linked import linked
from support import DATA, GOLDEN, INT8, RUNTIMES, Build, Checkpoints

from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.bundle import voices
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.profiles.target import load
from edgepack.runtime.audio import waveform
from edgepack.runtime.synthesizer import Synthesizer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with few tests first: they take longest, and one process would be left with them.

    What needs the INT8 bundle for every runtime is slow: building that takes more than a minute.
    """
    for item in items:
        if "int8_demo" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    count = Counter(item.path for item in items)
    items.sort(key=lambda item: (count[item.path], item.path))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests have."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process is in such a block meanwhile."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def checkpoints(shared: Path) -> Checkpoints:
    """What `edgepack build` is given for a model: demo, a recorded set, or tiny (random)."""

    def locate(model: str) -> str:
        if model == "demo":
            return model
        if model == "tiny":
            tiny = shared / "tiny"
            if not tiny.exists():
                tokenizer = random_cosyvoice2.DEMO / "CosyVoice-BlankEN"
                own = tiny.with_name(f"tiny-{os.getpid()}")
                random_cosyvoice2.write(own, random_cosyvoice2.TINY, tokenizer)
                with suppress(OSError):  # somebody else was faster
                    own.rename(tiny)
            return str(tiny)
        return str(DATA / "checkpoints" / model)

    return locate


@pytest.fixture(scope="session")
def bundle(shared: Path, checkpoints: Checkpoints) -> Build:
    """Builds (once) and returns the bundle of a model for a target. Not to be changed."""

    def get(model: str, target: str = "intel-cpu", precision: str = "auto") -> Path:
        formats = list(load(target).runtimes)
        output = shared / f"{model}-{target}-{precision}"
        return built(BuildRequest(checkpoints(model), [target], output, formats, precision))

    return get


def built(request: BuildRequest) -> Path:
    """The bundle of a request; whichever process of the tests needs it first builds it."""
    request.output.mkdir(exist_ok=True)
    with alone(request.output):
        found = [path.parent for path in request.output.glob("*/manifest.json")]
        return found[0] if found else build(request)[0].bundle.folder


@pytest.fixture(scope="session")
def int8_demo(shared: Path) -> Bundle:
    """The demo voice at INT8, zh, in every runtime, without a recipe search. Not to be changed."""
    recipe = shared / "int8.yaml"
    recipe.write_text(INT8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        request = BuildRequest("demo", ["intel-cpu"], shared / "int8", RUNTIMES, precision="int8")
        return open_bundle(built(replace(request, recipe=recipe, languages=["zh"])))


@pytest.fixture
def voiced(bundle: Build, tmp_path: Path) -> Bundle:
    """The demo voice with a voice more, `cloned`, made of a recording of it."""
    demo = linked(bundle("demo"), tmp_path)
    synthesizer = Synthesizer.load(demo.folder, "ort", 1)
    with np.load(GOLDEN / "demo-voice" / "sentences.npz") as recorded:
        spoken = waveform.Recording("prompt", recorded["zh02_wav"][0], 24000)
    ids = synthesizer.loaded.frontend.ids("今天天气很好，我们一起去公园散步吧。")
    return voices.add(demo, "cloned", synthesizer.enroller.voice(spoken, ids))
