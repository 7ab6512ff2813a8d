"""Networks that are functions, for tests of the host logic around them."""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.runtime.engines.session import Feeds, Session
from edgepack.runtime.engines.wrapper import Wrapper
from edgepack.runtime.strategies.flow import causal_chunks
from edgepack.runtime.strategies.flow.causal_chunks import CausalChunks
from edgepack.runtime.strategies.vocoder import hift
from edgepack.runtime.strategies.vocoder.hift import HiFT

Arrays = dict[str, np.ndarray]
Answer = Callable[[Feeds], Arrays]

FRAME = 480
FLOW = causal_chunks.Record(
    steps=4, schedule="cosine", guidance=0.7, look_ahead=3, chunk=25, ratio=2, mels=4, noise_seed=0,
    noise_frames=3200, heads=8,
)  # fmt: skip


@dataclass
class Fake(Session):
    """A session that answers with a function and keeps what it was fed."""

    answer: Answer
    calls: list[Arrays] = field(default_factory=list)
    resets: int = 0
    batches: bool = True

    def run(self, feeds: Feeds) -> Arrays:
        self.calls.append({name: np.array(value) for name, value in feeds.items()})
        return self.answer(feeds)

    def reset(self) -> None:
        self.resets += 1

    def caches(self) -> Arrays:
        return {"calls": np.array(len(self.calls))}


def failing() -> Fake:
    """A session of which every call fails."""

    def fail(feeds: Feeds) -> Arrays:
        raise RuntimeError("planted")

    return Fake(fail)


@dataclass
class Changed(Wrapper):
    """A session whose outputs are handed through a function, which is also told of the feeds."""

    session: Session
    change: Callable[[Feeds, dict[str, Any]], dict[str, Any]]

    @property
    def inner(self) -> Session:
        return self.session

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        return self.change(feeds, self.session.run_kept(feeds, keep))

    def fork(self) -> "Changed":
        return Changed(self.session.fork(), self.change)


def noting(stage: str, session: Session, threads: dict[str, set[int]]) -> Session:
    """A session that notes by stage which threads call it."""
    called = threads.setdefault(stage, set())

    def note(feeds: Feeds, outputs: dict[str, Any]) -> dict[str, Any]:
        called.add(threading.get_ident())
        return outputs

    return Changed(session, note)


def fed(session: Session, name: str) -> list[np.ndarray]:
    """What a fake was given as one of its inputs, call by call."""
    assert isinstance(session, Fake)
    return [call[name] for call in session.calls]


def table() -> Fake:
    """An embedding table whose rows are the ids themselves."""
    return Fake(lambda feeds: {"embeddings": feeds["ids"][:, :, None].astype(np.float32)})


def prefer(size: int, *ids: int) -> np.ndarray:
    """Logits [size] whose largest values are those of `ids`, in falling order."""
    logits = np.zeros(size, np.float32)
    logits[list(ids)] = np.arange(len(ids), 0, -1) * 100
    return logits


def language_model(logits: Sequence[np.ndarray]) -> Fake:
    """A decoder that gives these logits one call after the other, the last one for ever."""
    model = Fake(lambda feeds: {"logits": logits[min(len(model.calls), len(logits)) - 1][None]})
    return model


def at_once(feeds: Feeds) -> Arrays:
    """An estimator whose next state is `mu`, whatever the step."""
    return {"next": feeds["mu"][:1], "velocity": feeds["mu"]}


def flow_decoder(estimate: Answer = at_once) -> CausalChunks:
    """A flow decoder whose `mu` is the tokens themselves, and so is its mel by default.

    A time is embedded as itself.
    """

    def encode(feeds: Feeds) -> Arrays:
        known = feeds["tokens"][0, : -FLOW.look_ahead]
        mu = np.tile(np.repeat(known, FLOW.ratio), (1, FLOW.mels, 1)).astype(np.float32)
        return {"mu": mu, "spk": feeds["speaker"]}

    time = Fake(lambda feeds: {"shift": feeds["t"][:, None]})
    return CausalChunks(FLOW, Fake(encode), time, Fake(estimate))


def vocoder() -> HiFT:
    """A vocoder of 480 samples a frame, each of the value of the mel's first band.

    The excitation is the number of the call.
    """

    def excite(feeds: Feeds) -> Arrays:
        mel, calls = feeds["mel"], len(excitation.calls)
        source = np.full((1, 1, FRAME * mel.shape[2]), calls, np.float32)
        return {"source": source, "f0": mel[:, 1]}

    def generate(feeds: Feeds) -> Arrays:
        return {"audio": np.repeat(feeds["mel"][:, 0], FRAME, 1)}

    excitation = Fake(excite)
    return HiFT(
        hift.Record(frame=FRAME, partials=9, context=16), Fake(generate), excitation=excitation
    )
