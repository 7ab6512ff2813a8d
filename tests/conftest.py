"""Fixtures: checkpoints, recorded vectors, and bundles that are built once a session."""

from pathlib import Path

import pytest
import random_checkpoint
from support import DATA, Build, Checkpoints

from edgepack.pipeline import build
from edgepack.plan import BuildRequest
from edgepack.target import load


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """What `edgepack build` is given for a model: demo, a recorded set, or tiny (random)."""
    tiny = tmp_path_factory.mktemp("checkpoints") / "tiny"

    def locate(model: str) -> str:
        if model == "demo":
            return model
        if model == "tiny":
            if not tiny.exists():
                tokenizer = random_checkpoint.DEMO / "CosyVoice-BlankEN"
                random_checkpoint.write(tiny, random_checkpoint.TINY, tokenizer)
            return str(tiny)
        return str(DATA / "checkpoints" / model)

    return locate


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Build:
    """Builds (once) and returns the bundle of a model for a target. Not to be changed."""
    output = tmp_path_factory.mktemp("bundles")
    built: dict[tuple[str, str], Path] = {}

    def get(model: str, target: str = "intel-cpu", precision: str = "auto") -> Path:
        if (model, target) not in built:
            formats = list(load(target).runtimes)
            request = BuildRequest(checkpoints(model), [target], output, formats, precision)
            built[model, target] = build(request)[0].bundle.folder
        return built[model, target]

    return get
