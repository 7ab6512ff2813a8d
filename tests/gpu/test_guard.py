"""What is not finite in float16 is repeated in float32, once, and counted."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from edgepack.runtime.engines.session import Feeds, RefusedError, Session
from edgepack.runtime.gpu.reruns import Guarded, Reruns


class Half(Session):
    """A running sum that overflows as float16 does; its cache is in float16."""

    batches = True
    restorable = True

    def __init__(self) -> None:
        self.sum: np.ndarray = np.zeros(1, np.float16)
        self.last = self.sum

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        self.last = self.sum
        with np.errstate(over="ignore"):
            self.sum = self.sum + feeds["x"].astype(np.float16)
        return {"y": self.sum.astype(np.float32), "n": np.array([1])}

    def reset(self) -> None:
        self.sum = self.last = np.zeros(1, np.float16)

    def caches(self) -> dict[str, np.ndarray]:
        return {"sum": self.sum}

    def before(self) -> dict[str, np.ndarray]:
        return {"sum": self.last}

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        self.sum = caches["sum"]


class Full(Half):
    """The same without overflow."""

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        self.last = self.sum
        self.sum = self.sum.astype(np.float32) + feeds["x"]
        return {"y": self.sum, "n": np.array([1])}


class Stateless(Session):
    """Twice the input, with a largest value."""

    batches = True

    def __init__(self, largest: float) -> None:
        self.largest = largest

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        doubled = 2 * feeds["x"]
        return {"y": np.where(doubled > self.largest, np.nan, doubled)}

    def reset(self) -> None:
        pass

    def caches(self) -> dict[str, np.ndarray]:
        return {}

    before = caches


def x(value: float) -> Feeds:
    return {"x": np.array([value], np.float32)}


def test_what_is_finite_is_left_alone() -> None:
    reruns = Reruns()
    guarded = Guarded("a", Stateless(10), lambda: Stateless(1e9), reruns)
    assert guarded.run(x(2))["y"] == 4
    assert guarded.twin is None
    assert not reruns.total()


def test_one_call_is_repeated_and_the_next_is_not() -> None:
    opened: list[Stateless] = []

    def open_twin() -> Stateless:
        opened.append(Stateless(1e9))
        return opened[-1]

    reruns = Reruns()
    guarded = Guarded("a", Stateless(10), open_twin, reruns)
    assert [float(guarded.run(x(v))["y"][0]) for v in (2, 20, 3, 30)] == [4, 40, 6, 60]
    assert reruns.not_finite == {"a": 2}
    assert len(opened) == 1


def test_what_fails_in_fp32_too_is_handed_on() -> None:
    reruns = Reruns()
    guarded = Guarded("a", Stateless(10), lambda: Stateless(10), reruns)
    assert np.isnan(guarded.run(x(20))["y"]).all()
    assert reruns.not_finite == {"a": 1}


def test_caches_go_on_in_fp32_until_they_are_emptied() -> None:
    reruns = Reruns()
    guarded = Guarded("lm", Half(), Full, reruns)
    assert [float(guarded.run(x(v))["y"][0]) for v in (60000, 60000, 1)] == [60000, 120000, 120001]
    assert guarded.caches()["sum"] == 120001
    assert reruns.not_finite == {"lm": 1}
    guarded.reset()
    assert guarded.run(x(5))["y"] == 5
    assert guarded.caches()["sum"].dtype == np.float16


def test_outputs_that_stay_are_looked_at_too() -> None:
    guarded = Guarded("a", Stateless(10), lambda: Stateless(1e9), Reruns())
    assert guarded.run_kept(x(20), ("y",))["y"] == 40


class Refusing(Half):
    """Refuses what is over a hundred, as cuDNN refuses some lengths."""

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        if feeds["x"][0] > 100:
            raise RefusedError("lm: no convolution")
        return super().run(feeds)


def test_a_refused_call_is_repeated_from_the_same_caches() -> None:
    reruns = Reruns()
    guarded = Guarded("lm", Refusing(), Full, reruns)
    assert [float(guarded.run(x(v))["y"][0]) for v in (60, 200, 1)] == [60, 260, 261]
    assert reruns == Reruns(refused=Counter(lm=1))
    guarded.reset()
    assert guarded.run(x(5))["y"] == 5
