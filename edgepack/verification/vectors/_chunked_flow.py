"""`flow.npz`: flow encoder, estimator, ODE solver, whole mels."""

import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from edgepack.runtime.stages.flow import Condition, FlowDecoder
from edgepack.runtime.stages.solver import euler
from edgepack.runtime.strategies.flow._chunked import ChunkedFlow
from edgepack.verification.reference import BundleUnderTest, Vectors

_MODES = {"full": False, "stream": True}
# Modules of the estimator whose outputs were recorded channels-first: convolutions.
_TIME = ("time_mlp", "time_embed")  # the modules of it that are in `flow_time`
_CHANNELS_FIRST = re.compile(r"(down|mid|up)_blocks\.\d+\.[02]|final_block")


def check(v: Vectors, subject: BundleUnderTest) -> None:
    """Compare every array of the file."""
    flow = subject.loaded.flow
    for name in v:
        if match := re.fullmatch(r"pos_emb_(\d+)|chunk_mask_(\d+)_(\d+)", name):
            _tables(v, subject, name, [int(n) for n in match.groups() if n])
        elif match := re.fullmatch(r"est(\d+)_x", name):
            _estimator(v, subject, f"est{match[1]}")
        elif match := re.fullmatch(r"cfm_out_n(\d+)_(full|stream)", name):
            _solver(v, flow, int(match[1]), match[2])
    if "flow_token" in v:
        _encoder(v, subject)
        _mels(v, flow)


def _flow(subject: BundleUnderTest) -> ChunkedFlow:
    return cast(ChunkedFlow, subject.loaded.flow)


def _time_major(value: np.ndarray) -> np.ndarray:
    return np.swapaxes(value, 1, 2)


def _encoder(v: Vectors, subject: BundleUnderTest) -> None:
    flow, speaker = _flow(subject), v["flow_embedding"]
    tokens = v.ids("flow_prompt_token") + v.ids("flow_token")
    for call, final, mode in (
        ("full", True, "full"),
        ("stream", True, "stream"),
        ("ctx_full", False, "full"),
        ("ctx_stream", False, "stream"),
    ):
        feeds = flow.encoder_feeds(tokens, speaker, final=final, chunked=_MODES[mode])
        outputs = flow.encoder.run(feeds)
        v.compare(f"mu_{call}", _time_major(outputs["mu"]))
        v.compare("flow_spk", outputs["spk"])
        prefix = f"enc_{call}_tap."
        names = {name: name.removeprefix(prefix) for name in v if name.startswith(prefix)}
        names |= {name: "enc" for name in (f"enc_{call}",) if name in v}
        inner = subject.reveal("flow_encoder", feeds, names.values())
        for name, tap in names.items():
            v.inner(name, inner.get(tap))


def _tables(v: Vectors, subject: BundleUnderTest, name: str, numbers: list[int]) -> None:
    """The position table and the attention mask for a number of positions."""
    flow = _flow(subject)
    feeds = flow.encoder_feeds([0] * numbers[0], v["flow_embedding"], final=True, chunked=True)
    if len(numbers) == 1:
        tap = "encoders.positions"
        v.inner(name, subject.reveal("flow_encoder", feeds, [tap]).get(tap))
    else:
        tap = "encoders.bias"
        feeds["chunk"] = np.array([numbers[1]], np.int64)
        bias = subject.reveal("flow_encoder", feeds, [tap]).get(tap)
        v.inner(name, None if bias is None else (bias == 0)[None])


def _estimator(v: Vectors, subject: BundleUnderTest, call: str) -> None:
    """A recorded batch of two; each row runs as the conditional row of a step of its own."""
    parts = {name: v[f"{call}_{name}"] for name in ("x", "mu", "cond", "spks", "t")}
    flow, frames = _flow(subject), parts["x"].shape[2]
    for mode, chunked in _MODES.items():
        prefix = f"{call}_{mode[0]}_tap."
        taps = [name.removeprefix(prefix) for name in v if name.startswith(prefix)]
        of_time = [tap for tap in taps if tap in _TIME]
        of_estimator = [tap for tap in taps if tap not in _TIME]
        rows, inner = [], []
        for row in range(len(parts["x"])):
            time = {"t": parts["t"][row : row + 1]}
            feeds = _step(parts, row, flow.time_embedding.run(time)["shift"])
            feeds |= flow.constants(frames, chunked=chunked)
            rows.append(flow.estimator.run(feeds)["velocity"][0])
            found = subject.reveal("flow_estimator", feeds, of_estimator)
            inner.append(found | subject.reveal("flow_time", time, of_time))
        v.compare(f"{call}_out_{mode}", np.stack(rows))
        for tap in taps:
            values = [found[tap][0] for found in inner if tap in found]
            view = _time_major if _CHANNELS_FIRST.match(tap) else np.asarray
            v.inner(prefix + tap, view(np.stack(values)) if values else None)


def _step(parts: Mapping[str, np.ndarray], row: int, shift: np.ndarray) -> dict[str, Any]:
    feeds = {name: parts[name][row : row + 1] for name in ("x", "mu", "cond")}
    spk = parts["spks"][row : row + 1]
    return feeds | {"spk": spk, "shift": shift, "step": np.array([0.1], np.float32)}


def _solver(v: Vectors, flow: FlowDecoder, steps: int, mode: str) -> None:
    times: list[float] = []
    states: list[np.ndarray] = []

    def observe(x: np.ndarray, t: float) -> None:
        times.append(t)
        states.append(x[0])

    out = flow.solve(
        v["cfm_mu"],
        v["cfm_spks"],
        v["cfm_cond"],
        solver=euler(flow.settings, steps),
        chunked=_MODES[mode],
        observe=observe,
    )
    v.compare(f"cfm_out_n{steps}_{mode}", out)
    v.compare(f"cfm_t_n{steps}", np.array(times), 1e-6)
    v.compare(f"cfm_traj_n{steps}_{mode}", np.stack(states))


def _mels(v: Vectors, flow: FlowDecoder) -> None:
    tokens, speaker = v.ids("flow_token"), v["flow_embedding"]
    prompted = Condition(speaker, v.ids("flow_prompt_token"), v["flow_prompt_feat"])
    for mode, chunked in _MODES.items():
        for ending, final in (("final", True), ("partial", False)):
            mel = flow.mel(tokens, prompted, final=final, chunked=chunked)
            v.compare(f"mel_{mode}_{ending}", mel)
    v.compare("mel_noprompt", flow.mel(tokens, Condition(speaker)))
