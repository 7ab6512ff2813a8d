"""Engines: caches inside the session, results that stay, and errors that say which file."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from contracts import FORMATS, STATES, TAP, WEIGHTS, job, totals
from edgepack.builder.backend import backend
from edgepack.builder.calibration.observe import ObservedSession
from edgepack.builder.calibration.samples import Reservoir
from edgepack.errors import CancelledError, IntegrityError, UnsupportedError
from edgepack.runtime import cancellation
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.engines.installed import engines
from edgepack.runtime.engines.residency import OnDemand, Residency
from edgepack.runtime.engines.session import Feeds, Options, Session, engine
from edgepack.runtime.engines.watch import Watched
from edgepack.runtime.engines.wrapper import Wrapper
from edgepack.runtime.gpu.reruns import Guarded, Reruns

X = np.random.default_rng(2).normal(size=(1, 5, 2)).astype(np.float32)


FP32 = [f for f in FORMATS if f[2] == "fp32"]
RESERVOIR = 4


def observed(session: Session, folder: Path) -> Session:
    (folder / "kept").mkdir(exist_ok=True)
    return ObservedSession(session, Reservoir(folder / "kept", "totals", RESERVOIR))


WRAPPERS: dict[str, Callable[[Session, Path], Session]] = {
    "watched": lambda session, folder: Watched("totals", session, []),
    "guarded": lambda session, folder: Guarded("totals", session, lambda: session, Reruns()),
    "on demand": lambda session, folder: Residency().session("totals", lambda: session),
    "observed": observed,
}
# Every format as it is, one in every wrapper, and every runtime in all of them at once.
SUBJECTS = [
    *((f, ()) for f in FP32),
    *((FP32[0], (name,)) for name in WRAPPERS),
    *((f, tuple(WRAPPERS)) for f in {f[0]: f for f in FP32}.values()),
]


class Plain(Session):
    """A session that can do no more than it must."""

    batches = False

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        return dict(feeds)

    def reset(self) -> None:
        pass

    def caches(self) -> dict[str, np.ndarray]:
        return {}


@dataclass(frozen=True)
class Network:
    """An engine, the files of a stateful network for it, and what is around its sessions."""

    runtime: str
    files: Sequence[Path]
    wrappers: Sequence[str] = ()

    def opened(self, *taps: str) -> Session:
        session = engine(self.runtime).open(self.files[0], STATES, Options(1, taps=taps))
        for name in self.wrappers:
            session = WRAPPERS[name](session, self.files[0].parent)
        return session


def converted(wanted: tuple[str, str, str], folder: Path) -> Sequence[Path]:
    runtime, container, precision = wanted
    return backend(runtime).convert(job(totals(folder), folder / "out", container, precision))


@pytest.fixture(params=FP32, ids=lambda f: f"{f[0]}-{f[1]}")
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Network:
    """Without anything around it."""
    return Network(request.param[0], converted(request.param, tmp_path))


@pytest.fixture(params=SUBJECTS, ids=lambda s: "-".join([*s[0][:2], *s[1]]))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Network:
    """With and without."""
    wanted, wrappers = request.param
    return Network(wanted[0], converted(wanted, tmp_path), wrappers)


@pytest.mark.parametrize("name", engines())
def test_an_engine_knows_its_version(name: str) -> None:
    assert engine(name).version()[0].isdigit()


def test_what_was_cancelled_is_not_computed_and_harms_no_later_call(subject: Network) -> None:
    session, token = subject.opened(), Cancellation()
    wanted = session.run({"x": X})["y"]
    session.reset()
    token.cancel()
    with cancellation.working(token), pytest.raises(CancelledError):
        session.run({"x": X})
    np.testing.assert_array_equal(session.run({"x": X})["y"], wanted)


def test_caches_are_carried_from_call_to_call(subject: Network) -> None:
    session = subject.opened()
    for end in (1, 3, 5):
        start = {1: 0, 3: 1, 5: 3}[end]
        outputs = session.run({"x": X[:, start:end]})
        assert set(outputs) == {"y"}
        np.testing.assert_allclose(outputs["y"], X[:, :end].sum(1) @ WEIGHTS, rtol=1e-4, atol=1e-5)
        caches = session.caches()
        assert set(caches) == {"present"}
        np.testing.assert_array_equal(caches["present"], X[:, :end])


def test_a_reset_forgets(subject: Network) -> None:
    session = subject.opened()
    first = session.run({"x": X})["y"].copy()
    session.reset()
    assert session.caches()["present"].size == 0
    np.testing.assert_array_equal(session.run({"x": X})["y"], first)


def test_sessions_of_one_file_have_their_own_caches(subject: Network) -> None:
    one, other = subject.opened(), subject.opened()
    one.run({"x": X})
    other.run({"x": X[:, :1]})
    assert one.caches()["present"].shape == (1, 5, 2)
    assert other.caches()["present"].shape == (1, 1, 2)


def test_results_stay_what_they_were(subject: Network) -> None:
    session = subject.opened()
    feed = X[:, :2].copy()
    result, caches = session.run({"x": feed})["y"], session.caches()["present"]
    kept = result.copy(), caches.copy()
    feed[:] = 99
    session.run({"x": X})
    session.run({"x": X})
    session.reset()
    np.testing.assert_array_equal(result, kept[0])
    np.testing.assert_array_equal(caches, kept[1])
    np.testing.assert_array_equal(caches, X[:, :2])


def test_a_feed_may_be_a_strided_view(subject: Network) -> None:
    whole = np.repeat(X, 2, axis=1).transpose(1, 0, 2)
    view = whole.transpose(1, 0, 2)[:, ::2]
    assert not view.flags.c_contiguous
    session = subject.opened()
    session.run({"x": view})
    np.testing.assert_array_equal(session.caches()["present"], X)


@pytest.mark.parametrize("name", engines())
def test_an_engine_shows_inner_values_or_says_that_it_cannot(name: str, tmp_path: Path) -> None:
    model, shown = totals(tmp_path), []
    for runtime, container, precision in FORMATS:
        if (runtime, precision) != (name, "fp32"):
            continue
        files = backend(name).convert(job(model, tmp_path / container, container, precision))
        try:
            outputs = Network(name, files).opened(TAP).run({"x": X})
        except UnsupportedError:
            continue
        assert set(outputs) == {"y", TAP}
        np.testing.assert_allclose(outputs[TAP], X @ WEIGHTS, rtol=1e-4, atol=1e-5)
        shown.append(container)
    assert shown


@pytest.mark.parametrize("kept", [0.0, 0.5, None], ids=["empty", "half", "missing"])
def test_files_that_cannot_be_read_are_named(
    network: Network, kept: float | None, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in network.files:
        data = path.read_bytes()
        path.unlink()
        if kept is not None:
            path.write_bytes(data[: int(kept * len(data))])
        with pytest.raises(IntegrityError, match=path.stem):
            network.opened()
        path.write_bytes(data)
    assert capfd.readouterr() == ("", "")


def test_another_kind_of_file_is_refused(network: Network) -> None:
    network.files[0].write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(IntegrityError, match="cannot load it"):
        network.opened()


def test_forks_share_weights_and_have_their_own_caches(subject: Network) -> None:
    one = subject.opened()
    other = one.fork()
    assert other is not one
    assert type(other) is type(one)
    alone = [one.run({"x": X[:, :2]})["y"], one.run({"x": X[:, 2:]})["y"]]
    one.reset()
    turns = [one.run({"x": X[:, :2]})["y"]]
    other.run({"x": X[:, 4:]})
    turns.append(one.run({"x": X[:, 2:]})["y"])
    np.testing.assert_array_equal(turns, alone)
    np.testing.assert_array_equal(one.caches()["present"], X)
    np.testing.assert_array_equal(other.caches()["present"], X[:, 4:])


def test_forks_may_run_at_once(subject: Network) -> None:
    first = subject.opened()
    sessions = [first, *(first.fork() for _ in range(3))]
    inputs = np.random.default_rng(3).normal(size=(len(sessions), 60, 2)).astype(np.float32)

    def decode(session: Session, rows: np.ndarray) -> np.ndarray:
        return np.stack([session.run({"x": row[None, None]})["y"] for row in rows])

    with ThreadPoolExecutor(len(sessions)) as pool:
        found = list(pool.map(decode, sessions, inputs))
    for outputs, rows in zip(found, inputs, strict=True):
        first.reset()
        np.testing.assert_array_equal(outputs, decode(first, rows))


def test_a_decoder_goes_on_from_given_caches(subject: Network) -> None:
    session = subject.opened()
    session.run({"x": X[:, :3]})
    kept = session.caches()
    wanted = session.run({"x": X[:, 3:]})["y"]
    for other in (session, session.fork(), subject.opened()):
        assert other.restorable
        other.reset()
        other.restore(kept)
        np.testing.assert_array_equal(other.caches()["present"], X[:, :3])
        np.testing.assert_array_equal(other.run({"x": X[:, 3:]})["y"], wanted)
        np.testing.assert_array_equal(other.caches()["present"], X)


def test_a_wrapper_can_do_what_is_inside_and_no_more(subject: Network) -> None:
    plain, around = Network(subject.runtime, subject.files).opened(), subject.opened()
    assert around.batches == plain.batches == engine(subject.runtime).batches
    assert around.restorable == plain.restorable
    assert around.placed == plain.placed
    with around.turn():
        around.run({"x": X})


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_of_a_session_that_cannot_go_on_says_so(name: str, tmp_path: Path) -> None:
    around = WRAPPERS[name](Plain(), tmp_path)
    assert not around.restorable
    assert around.operators() is None
    assert around.placed is None
    with pytest.raises(UnsupportedError, match="cannot go on from given caches"):
        around.restore({})
    with pytest.raises(UnsupportedError, match="does not keep earlier caches"):
        around.before()


def test_every_wrapper_is_tried_and_forwards_every_call() -> None:
    own = {c for c in Wrapper.__subclasses__() if c.__module__.startswith("edgepack.")}
    assert own == {Watched, Guarded, OnDemand, ObservedSession}
    offered = {name for name in vars(Session) if not name.startswith("_")}
    assert offered <= vars(Wrapper).keys()


@pytest.mark.parametrize("runtime", engines())
def test_a_result_that_is_handed_on_has_the_name_that_the_graph_says(
    runtime: str, tmp_path: Path
) -> None:
    if not engine(runtime).reads_onnx:
        return
    value = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["inner"]),
        onnx.helper.make_node("Identity", ["inner"], ["y"]),
    ]
    ends = [value(name, onnx.TensorProto.FLOAT, [None]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "handed_on", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "n.onnx"
    )
    session = engine(runtime).open(tmp_path / "n.onnx", (), Options(1))
    found = session.run({"x": np.array([-1.0, 2.0], np.float32)})
    np.testing.assert_array_equal(found["y"], [0.0, 2.0])
