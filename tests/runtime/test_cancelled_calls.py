"""Calls of engines that are ended from another thread; and the token that ends them."""

import threading
import time
from functools import partial
from pathlib import Path

import heavy
import numpy as np
import pytest
from asking import LIMIT, Asking
from support import RUNTIMES

from edgepack.errors import CancelledError, EdgepackError, ResourceError
from edgepack.runtime import cancellation
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.engines.session import Feeds, Options, Session, engine

ROWS = 2000


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return heavy.write(tmp_path_factory.mktemp("heavy") / "heavy.onnx")


def test_a_token_is_cancelled_once_and_for_all() -> None:
    token = Cancellation()
    token.raise_if()
    assert not token.cancelled
    token.cancel()
    token.cancel()
    assert token.cancelled
    with pytest.raises(CancelledError, match="cancelled"):
        token.raise_if()


def test_it_ends_a_program_as_an_interrupt_does() -> None:
    assert issubclass(CancelledError, EdgepackError)
    assert CancelledError.exit_code == ResourceError.exit_code


def test_a_child_ends_with_its_parent_but_not_the_other_way_round() -> None:
    parent = Cancellation()
    one, other = Cancellation(parent), Cancellation(parent)
    one.cancel()
    assert (one.cancelled, other.cancelled, parent.cancelled) == (True, False, False)
    parent.cancel()
    assert other.cancelled
    assert Cancellation(parent).cancelled


def test_children_that_ended_are_forgotten() -> None:
    parent = Cancellation()
    for _ in range(3):
        Cancellation(parent)
    assert len(parent._children) == 0


def test_an_interrupt_comes_in_its_block_only() -> None:
    token, told = Cancellation(), []
    with token.interrupting(lambda: told.append("before")):
        pass
    with token.interrupting(lambda: told.append("in")):
        token.cancel()
    assert told == ["in"]
    with token.interrupting(lambda: told.append("late")):
        assert told == ["in", "late"]


def test_without_a_token_nothing_is_interrupted() -> None:
    cancellation.check()
    with cancellation.interruptible(lambda: pytest.fail("interrupted")):
        assert cancellation.current() is None


def test_the_token_is_that_of_the_innermost_block_of_the_thread() -> None:
    outer, inner = Cancellation(), Cancellation()
    with cancellation.working(outer):
        with cancellation.working(inner):
            assert cancellation.current() is inner
            with cancellation.working(None):
                assert cancellation.current() is inner
        assert cancellation.current() is outer
        elsewhere = Asking(cancellation.current)
        assert elsewhere.ended()
        assert elsewhere.result is None
    assert cancellation.current() is None


@pytest.mark.parametrize("error", [None, RuntimeError("the engine's own error")])
def test_a_call_that_was_cancelled_says_so_however_it_ended(error: Exception | None) -> None:
    token = Cancellation()

    def call() -> None:
        with cancellation.interruptible(lambda: None):
            token.cancel()
            if error:
                raise error

    with cancellation.working(token), pytest.raises(CancelledError):
        call()


def test_another_error_stays_what_it_is() -> None:
    def call() -> None:
        with cancellation.interruptible(lambda: None):
            raise RuntimeError("planted")

    with cancellation.working(Cancellation()), pytest.raises(RuntimeError, match="planted"):
        call()


def test_waiting_for_a_lock_can_be_cancelled() -> None:
    token, lock = Cancellation(), threading.Lock()

    def wait() -> None:
        with cancellation.working(token), cancellation.holding(lock):
            pass

    with lock:
        Asking(wait).cancelled(token.cancel)
    assert not lock.locked()


def rows(count: int) -> dict[str, np.ndarray]:
    return {
        "x": np.random.default_rng(count).standard_normal((count, heavy.WIDTH)).astype(np.float32)
    }


def called(session: Session, feeds: Feeds, token: Cancellation) -> dict[str, np.ndarray]:
    with cancellation.working(token):
        return session.run(feeds)


@pytest.mark.parametrize("transient", [False, True])
@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_a_call_in_progress_ends_and_later_ones_are_right(
    network: Path, runtime: str, transient: bool
) -> None:
    """With OpenVINO only a call with the shapes of the one before can be ended."""
    session = engine(runtime).open(network, (), Options(1, transient=transient))
    other, long = session.fork(), rows(ROWS)
    wanted = {count: session.run(rows(count))["y"] for count in (7, 2, ROWS)}
    for _ in range(2):
        token = Cancellation()
        asking = Asking(partial(called, session, long, token))
        time.sleep(0.2)
        asking.cancelled(token.cancel)
    for count in (ROWS, 2, 7):
        np.testing.assert_array_equal(other.run(rows(count))["y"], wanted[count])
    np.testing.assert_array_equal(session.run(rows(2))["y"], wanted[2])


@pytest.mark.parametrize("runtime", RUNTIMES[:2])
def test_a_call_of_another_shape_leaves_none_behind(network: Path, runtime: str) -> None:
    """Those that use the same network after it have outputs of their own shapes."""
    session = engine(runtime).open(network, (), Options(1))
    other, token = session.fork(), Cancellation()
    wanted = session.run(rows(2))["y"]
    asking = Asking(partial(called, session, rows(ROWS // 4), token))
    time.sleep(0.1)
    token.cancel()
    assert asking.ended()
    assert isinstance(asking.error, CancelledError), asking.error
    for subject in (other, session):
        np.testing.assert_array_equal(subject.run(rows(2))["y"], wanted)


@pytest.mark.parametrize("runtime", RUNTIMES[:2])
def test_a_call_that_was_cancelled_beforehand_is_not_made(network: Path, runtime: str) -> None:
    session, token = engine(runtime).open(network, (), Options(1)), Cancellation()
    token.cancel()
    start = time.monotonic()
    with pytest.raises(CancelledError):
        called(session, rows(ROWS), token)
    assert time.monotonic() - start < LIMIT


@pytest.mark.parametrize("runtime", RUNTIMES[:2])
def test_ending_a_call_does_not_end_that_of_a_fork(network: Path, runtime: str) -> None:
    session, feeds = engine(runtime).open(network, (), Options(1)), rows(400)
    wanted = session.run(feeds)["y"]
    token, other = Cancellation(), Cancellation()
    one = Asking(partial(called, session, feeds, token))
    two = Asking(partial(called, session.fork(), feeds, other))
    token.cancel()
    assert one.ended()
    assert two.ended()
    assert isinstance(two.result, dict), two.error
    np.testing.assert_array_equal(two.result["y"], wanted)
