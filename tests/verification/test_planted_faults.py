"""The self-test tells working networks from zeros, shuffled weights and those of another layer.

For every runtime and every precision, with the limits and calls of a build.
"""

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support import COSYVOICE1, COSYVOICE3, RECORDED, RUNTIMES, Build, Checkpoints

from edgepack import discovery
from edgepack.builder.backend import Job, converted
from edgepack.builder.hub import HubStage, author
from edgepack.builder.planning import open_source
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.model.families.cosyvoice2 import FAMILY
from edgepack.model.family import PACKAGE, Family
from edgepack.profiles import target
from edgepack.profiles.recipe import load, named
from edgepack.report import silent
from edgepack.runtime.engines.session import Feeds, Options, Session, engine
from edgepack.runtime.engines.wrapper import Wrapper
from edgepack.runtime.loading import Host, open_stage
from edgepack.verification import selftest
from edgepack.verification.selftest import Calls

LEAST = 256  # elements of a weight that is changed

Arrays = dict[str, np.ndarray]


def shuffled(weights: Arrays) -> Arrays:
    rng = np.random.default_rng(0)
    return {n: rng.permutation(w.reshape(-1)).reshape(w.shape) for n, w in weights.items()}


def of_another_layer(weights: Arrays) -> Arrays:
    """Every weight in the place of the next one of its shape."""
    changed = {}
    for _, same in itertools.groupby(sorted(weights, key=lambda n: weights[n].shape),
                                     key=lambda n: weights[n].shape):  # fmt: skip
        names = list(same)
        for name, other in zip(names, names[1:] + names[:1], strict=True):
            changed[name] = weights[other]
    return changed


STAGES = FAMILY.stages
FAULTS: Mapping[str, Callable[[Arrays], Arrays]] = {
    "none": lambda weights: {},
    "shuffled": shuffled,
    "of another layer": of_another_layer,
}


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory, int8_demo: Bundle
) -> tuple[list[HubStage], Calls]:
    """Networks of the demo voice in fp32 with the self-test of a quantized bundle of it."""
    folder = tmp_path_factory.mktemp("hub")
    stages = author(open_source("demo").checkpoint, None, folder, silent)
    calls = selftest.read(int8_demo)
    # Ids of `int8_demo` are of fewer rows of text.
    return [stage for stage in stages if stage.name != "text_embedding"], calls


def recipes() -> list[object]:
    """A network of each kind for each runtime and precision: the first recipe that serves it."""
    found: list[object] = []
    for runtime in RUNTIMES:
        for stage in ("speech_lm", "speech_embedding", "flow_estimator", "hift"):
            precisions: dict[str, str] = {}
            for name, recipe in load(runtime).items():
                if recipe.serves(stage, ()) and not recipe.calibrated:
                    precisions.setdefault(recipe.precision, name)
            marks = [] if runtime == "ort" else [pytest.mark.slow]
            found += [pytest.param(runtime, stage, n, marks=marks) for n in precisions.values()]
    return found


def plant(network: Path, fault: Callable[[Arrays], Arrays], changed: Path) -> None:
    """The network with a fault in its weights."""
    model = onnx.load(network)
    weights = {
        t.name: numpy_helper.to_array(t)
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1 and np.prod(t.dims) >= LEAST
    }
    faulty = fault(weights)
    for tensor in model.graph.initializer:
        if tensor.name in faulty:
            tensor.CopyFrom(numpy_helper.from_array(faulty[tensor.name].copy(), tensor.name))
    onnx.save(model, changed)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("runtime", "stage", "name"), recipes())
def test_changed_weights_are_found(
    hub: tuple[list[HubStage], Calls],
    tmp_path: Path,
    runtime: str,
    stage: str,
    name: str,
    fault: str,
) -> None:
    stages, calls = hub
    (whole,) = (one for one in stages if one.name == stage)
    if fault == "of another layer" and "embedding" in stage:
        pytest.skip("a table is all there is: no other layer")
    made, planted = tmp_path / "made", tmp_path / "planted"
    made.mkdir()
    planted.mkdir()
    for form in whole.model.parent.glob(f"{stage}*.onnx"):  # LiteRT takes another one
        plant(form, FAULTS[fault], planted / form.name)
    recipe = named(runtime, name)
    options = target.load("intel-cpu").runtimes[runtime]
    job = Job(stage, planted / whole.model.name, made, whole.states, recipe, options)
    files = converted(job, recipe)
    host = Host(runtime, 2).options(stage, whole.use, recipe.precision)
    session = engine(runtime).open(files[0], whole.states, host)
    error = selftest.error(session, calls[stage])
    assert (error <= selftest.limit(whole.use, recipe.precision)) == (fault == "none"), error


@dataclass
class Zeros(Wrapper):
    """A network that answers zeros."""

    session: Session

    @property
    def inner(self) -> Session:
        return self.session

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, np.ndarray]:
        return {name: 0 * value for name, value in self.session.run(feeds).items()}

    def fork(self) -> "Zeros":
        return Zeros(self.session.fork())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_zeros_are_found(int8_demo: Bundle, bundle: Build, runtime: str, precision: str) -> None:
    opened = int8_demo if precision == "int8" else open_bundle(bundle("demo"))
    calls = selftest.read(opened)
    for stage in STAGES:
        made = opened.manifest.stages[stage].variants[runtime].precision
        zeros = Zeros(open_stage(opened, stage, Host(runtime, 2)))
        assert selftest.error(zeros, calls[stage]) > selftest.limit(STAGES[stage], made), stage


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_no_limit_lets_zeros_pass(precision: str) -> None:
    wanted = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    nothing = selftest.relative_error(np.zeros_like(wanted), wanted)
    families = (discovery.load(PACKAGE, name, "FAMILY") for name in discovery.names(PACKAGE))
    uses = [use for family in families for use in cast(Family, family).stages.values()]
    assert len(uses) > 2 * len(STAGES)
    assert all(nothing > 1.9 * selftest.limit(use, precision) for use in uses)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("model", [COSYVOICE1[0], *RECORDED, *COSYVOICE3])
def test_changed_weights_of_the_excitation_are_found(
    checkpoints: Checkpoints, tmp_path: Path, model: str, fault: str
) -> None:
    """Its limits are the widest, as rounding errors of the pitch add up."""
    stages = author(open_source(checkpoints(model)).checkpoint, None, tmp_path, silent)
    (whole,) = (one for one in stages if one.use.role == "excitation")
    calls = selftest.answered(engine("ort").open(whole.model, (), Options(1)), whole.feeds)
    plant(whole.model, FAULTS[fault], tmp_path / "planted.onnx")
    error = selftest.error(engine("ort").open(tmp_path / "planted.onnx", (), Options(1)), calls)
    assert (error <= selftest.limit(whole.use, "fp32")) == (fault == "none"), error
    assert (error <= selftest.limit(whole.use, "fp16")) == (fault == "none"), error
