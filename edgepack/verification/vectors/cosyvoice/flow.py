"""`flow.npz`: encoder with its length regulator, estimator, pieces of a stream."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import numpy as np

from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.length_regulation import stretched
from edgepack.runtime.stages.solver import euler
from edgepack.runtime.strategies.flow.regulated import Regulated
from edgepack.verification.reference import BundleUnderTest, Vectors

Reveal = Callable[[str, Mapping[str, np.ndarray], Iterable[str]], dict[str, np.ndarray]]

_TIME = "time_mlp"  # the one module of the recorded estimator that is in `flow_time`
_CHANNELS_FIRST = re.compile(r"(down|mid|up)_blocks\.\d+\.[02]|final_block")
_SHORT = 33  # tokens
_FIRST, _SECOND = slice(0, 45), slice(25, None)  # tokens of two pieces that overlap


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file."""
    flow, reveal = cast(Regulated, subject.loaded.flow), subject.reveal
    solver = euler(flow.settings)
    condition = Condition(v["flow_embedding"], v.ids("flow_prompt_token"), v["flow_prompt_feat"])
    tokens = v.ids("flow_token")
    _encoder(v, flow, tokens, condition, reveal)
    for name in v:
        if match := re.fullmatch(r"est(\d+)_x", name):
            _estimator(v, flow, f"est{match[1]}", reveal)
    if "noise_1" not in v:
        return
    first = flow.piece(tokens[_FIRST], condition, v["noise_1"], solver)
    second = flow.piece(tokens[_SECOND], condition, v["noise_2"], solver, first.cache)
    for number, piece in ((1, first), (2, second)):
        v.compare(f"mel_{number}", piece.mel)
        v.compare(f"cache_{number}", np.stack(piece.cache, -1))


def _encoder(
    v: Vectors,
    flow: Regulated,
    tokens: list[int],
    condition: Condition,
    reveal: Reveal,
) -> None:
    feeds = flow.encoder_feeds(tokens, condition)
    v.compare("length_regulated", _time_major(flow.encoder.run(feeds)["mu"]))
    inner = reveal("flow_encoder", feeds, ["enc", "enc_proj"])
    for name in ("enc", "enc_proj"):
        v.inner(name, inner.get(name))
    if "length_regulated_short" in v:
        _short(v, flow, feeds, len(condition.tokens))


def _short(v: Vectors, flow: Regulated, feeds: Mapping[str, np.ndarray], prompt: int) -> None:
    """The first tokens after the prompt without it, so few that they have one length."""
    left, right, share = stretched(_SHORT, v.arrays["length_regulated_short"].shape[1])
    own = {"left": left + prompt, "right": right + prompt, "share": share}
    v.compare("length_regulated_short", _time_major(flow.encoder.run({**feeds, **own})["mu"]))


def _estimator(v: Vectors, flow: Regulated, call: str, reveal: Reveal) -> None:
    """A recorded batch of two; each row runs as the conditional row of a step of its own."""
    parts = {name: v[f"{call}_{name}"] for name in ("x", "mu", "cond", "spks", "t")}
    prefix = f"{call}_tap."
    taps = [name.removeprefix(prefix) for name in v if name.startswith(prefix)]
    rows, inner = [], []
    for row in range(len(parts["x"])):
        time = {"t": parts["t"][row : row + 1]}
        feeds = _step(parts, row, flow.time_embedding.run(time)["shift"])
        rows.append(flow.estimator.run(feeds)["velocity"][0])
        found = reveal("flow_estimator", feeds, [tap for tap in taps if tap != _TIME])
        inner.append(found | reveal("flow_time", time, [tap for tap in taps if tap == _TIME]))
    v.compare(f"{call}_out", np.stack(rows))
    for tap in taps:
        values = [found[tap][0] for found in inner if tap in found]
        view = _time_major if _CHANNELS_FIRST.match(tap) else np.asarray
        v.inner(prefix + tap, view(np.stack(values)) if values else None)


def _step(parts: Mapping[str, np.ndarray], row: int, shift: np.ndarray) -> dict[str, np.ndarray]:
    feeds = {name: parts[name][row : row + 1] for name in ("x", "mu", "cond")}
    whole = np.array([feeds["x"].shape[2]], np.int64)
    step = np.array([0.1], np.float32)
    return feeds | {
        "spk": parts["spks"][row : row + 1], "shift": shift, "step": step, "chunk": whole,
    }  # fmt: skip


def _time_major(value: np.ndarray) -> np.ndarray:
    return np.swapaxes(value, 1, 2)
