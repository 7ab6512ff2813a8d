"""Engines: caches inside the session, results that stay, and errors that say which file."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from contracts import FORMATS, STATES, TAP, WEIGHTS, job, totals
from edgepack.backend import backend
from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.runtime.session import Options, Restorable, Session, engine, engines, fork

X = np.random.default_rng(2).normal(size=(1, 5, 2)).astype(np.float32)


@pytest.fixture(params=[f for f in FORMATS if f[2] == "fp32"], ids=lambda f: f"{f[0]}-{f[1]}")
def network(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, list[Path]]:
    """An engine, and the files of a stateful network for it."""
    runtime, container, precision = request.param
    wanted = job(totals(tmp_path), tmp_path / "out", container, precision)
    return runtime, backend(runtime).convert(wanted)


def opened(network: tuple[str, Sequence[Path]], *taps: str) -> Session:
    runtime, files = network
    return engine(runtime).open(files[0], STATES, Options(1, taps=taps))


@pytest.mark.parametrize("name", engines())
def test_an_engine_knows_its_version(name: str) -> None:
    assert engine(name).version()[0].isdigit()


def test_caches_are_carried_from_call_to_call(network: tuple[str, list[Path]]) -> None:
    session = opened(network)
    for end in (1, 3, 5):
        start = {1: 0, 3: 1, 5: 3}[end]
        outputs = session.run({"x": X[:, start:end]})
        assert set(outputs) == {"y"}
        np.testing.assert_allclose(outputs["y"], X[:, :end].sum(1) @ WEIGHTS, rtol=1e-4, atol=1e-5)
        caches = session.caches()
        assert set(caches) == {"present"}
        np.testing.assert_array_equal(caches["present"], X[:, :end])


def test_a_reset_forgets(network: tuple[str, list[Path]]) -> None:
    session = opened(network)
    first = session.run({"x": X})["y"].copy()
    session.reset()
    assert session.caches()["present"].size == 0
    np.testing.assert_array_equal(session.run({"x": X})["y"], first)


def test_sessions_of_one_file_have_their_own_caches(network: tuple[str, list[Path]]) -> None:
    one, other = opened(network), opened(network)
    one.run({"x": X})
    other.run({"x": X[:, :1]})
    assert one.caches()["present"].shape == (1, 5, 2)
    assert other.caches()["present"].shape == (1, 1, 2)


def test_results_stay_what_they_were(network: tuple[str, list[Path]]) -> None:
    session = opened(network)
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


def test_a_feed_may_be_a_strided_view(network: tuple[str, list[Path]]) -> None:
    whole = np.repeat(X, 2, axis=1).transpose(1, 0, 2)
    view = whole.transpose(1, 0, 2)[:, ::2]
    assert not view.flags.c_contiguous
    session = opened(network)
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
            outputs = opened((name, files), TAP).run({"x": X})
        except UnsupportedError:
            continue
        assert set(outputs) == {"y", TAP}
        np.testing.assert_allclose(outputs[TAP], X @ WEIGHTS, rtol=1e-4, atol=1e-5)
        shown.append(container)
    assert shown


@pytest.mark.parametrize("kept", [0.0, 0.5, None], ids=["empty", "half", "missing"])
def test_files_that_cannot_be_read_are_named(
    network: tuple[str, list[Path]], kept: float | None, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in network[1]:
        data = path.read_bytes()
        path.unlink()
        if kept is not None:
            path.write_bytes(data[: int(kept * len(data))])
        with pytest.raises(IntegrityError, match=path.stem):
            opened(network)
        path.write_bytes(data)
    assert capfd.readouterr() == ("", "")


def test_another_kind_of_file_is_refused(network: tuple[str, list[Path]]) -> None:
    network[1][0].write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(IntegrityError, match="cannot load it"):
        opened(network)


def test_forks_share_weights_and_have_their_own_caches(network: tuple[str, list[Path]]) -> None:
    one = opened(network)
    other = fork(one)
    assert other is not one
    alone = [one.run({"x": X[:, :2]})["y"], one.run({"x": X[:, 2:]})["y"]]
    one.reset()
    turns = [one.run({"x": X[:, :2]})["y"]]
    other.run({"x": X[:, 4:]})
    turns.append(one.run({"x": X[:, 2:]})["y"])
    np.testing.assert_array_equal(turns, alone)
    np.testing.assert_array_equal(one.caches()["present"], X)
    np.testing.assert_array_equal(other.caches()["present"], X[:, 4:])


def test_forks_may_run_at_once(network: tuple[str, list[Path]]) -> None:
    first = opened(network)
    sessions = [first, *(fork(first) for _ in range(3))]
    inputs = np.random.default_rng(3).normal(size=(len(sessions), 60, 2)).astype(np.float32)

    def decode(session: Session, rows: np.ndarray) -> np.ndarray:
        return np.stack([session.run({"x": row[None, None]})["y"] for row in rows])

    with ThreadPoolExecutor(len(sessions)) as pool:
        found = list(pool.map(decode, sessions, inputs))
    for outputs, rows in zip(found, inputs, strict=True):
        first.reset()
        np.testing.assert_array_equal(outputs, decode(first, rows))


def test_a_decoder_goes_on_from_given_caches(network: tuple[str, list[Path]]) -> None:
    session = opened(network)
    session.run({"x": X[:, :3]})
    kept = session.caches()
    wanted = session.run({"x": X[:, 3:]})["y"]
    for other in (session, fork(session), opened(network)):
        assert isinstance(other, Restorable)
        other.reset()
        other.restore(kept)
        np.testing.assert_array_equal(other.caches()["present"], X[:, :3])
        np.testing.assert_array_equal(other.run({"x": X[:, 3:]})["y"], wanted)
        np.testing.assert_array_equal(other.caches()["present"], X)
