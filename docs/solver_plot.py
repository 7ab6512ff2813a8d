"""Draws docs/solver.svg: the error of solvers of the flow decoder by number of evaluations.

`python docs/solver_plot.py` draws what docs/solver.json has.
`python docs/solver_plot.py BUNDLE FP32` measures first, and writes docs/solver.json: BUNDLE has
calibrated solvers, FP32 is a bundle of the same checkpoint without quantized networks.
"""

import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

FIGURES = Path(__file__).with_name("solver.json")
PICTURE = Path(__file__).with_name("solver.svg")
NAMES = {"ort": "ONNX Runtime", "openvino": "OpenVINO", "tflite": "LiteRT"}
_STEPS = range(2, 11)  # of Euler's method, two evaluations each
_COLOURS = {"ort": "#2f6db3", "openvino": "#d97706", "tflite": "#15803d"}
_EULER, _GRID = "#6b7280", "#d1d5db"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "edgepack",  # element ids, which are random otherwise
    "font.family": "DejaVu Sans",  # which matplotlib brings
    "font.size": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}

Curve = Mapping[int, float]  # error in dB by number of evaluations


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is drawn: errors in dB, mean over `utterances` that no solver was fitted to.

    `euler` is Euler's method with the fp32 networks. `calibrated` has the fitted solvers of each
    runtime with its quantized networks, `chosen` the evaluations of the one in the bundle, and
    `limit` the error that it may have.
    """

    utterances: int
    limit: float
    euler: Curve
    calibrated: Mapping[str, Curve]
    chosen: Mapping[str, int]


def measured(bundle: Path, fp32: Path) -> Figures:
    """Figures of a bundle's solvers from its manifest, and of Euler's method in ONNX Runtime."""
    from edgepack.bundle.bundle import open_bundle
    from edgepack.runtime.loading import load
    from edgepack.runtime.stages.solver import euler
    from edgepack.verification import trajectories

    opened = open_bundle(bundle)
    solvers = opened.manifest.solvers
    judged = trajectories.of(opened)
    flow = load(fp32, "ort").flow
    errors = [trajectories.error(flow, euler(flow.settings, steps), judged) for steps in _STEPS]
    return Figures(
        utterances=len(judged),
        limit=next(iter(solvers.values())).limit,
        euler={2 * n: float(f"{e:.3g}") for n, e in zip(_STEPS, errors, strict=True)},
        calibrated={
            runtime: {point.evaluations: point.decibel for point in solvers[runtime].curve}
            for runtime in NAMES
            if runtime in solvers
        },
        chosen={r: solvers[r].accuracy.evaluations for r in NAMES if r in solvers},
    )


def read() -> Figures:
    """The figures of docs/solver.json."""
    return msgspec.json.decode(FIGURES.read_bytes(), type=Figures)


def digest() -> str:
    """SHA-256 of docs/solver.json, which the picture has in its metadata."""
    return hashlib.sha256(FIGURES.read_bytes()).hexdigest()


def _points(curve: Curve) -> tuple[list[int], list[float]]:
    """Numbers of evaluations, and errors."""
    return list(curve), list(curve.values())


def picture(figures: Figures) -> str:
    """The picture as SVG text; the same figures and version of matplotlib give the same text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(*_points(figures.euler), "o-", color=_EULER, label="Euler, fp32")
        for runtime, curve in figures.calibrated.items():
            colour = _COLOURS[runtime]
            label = f"{NAMES[runtime]}, int8, calibrated"
            axes.plot(*_points(curve), "s-", ms=4, color=colour, label=label)
            chosen = figures.chosen[runtime]
            axes.plot(chosen, curve[chosen], "o", ms=11, mfc="none", mec=colour)
        axes.axhline(figures.limit, color=_EULER, linestyle="--", linewidth=1)
        axes.annotate(
            f"limit {figures.limit:g} dB", (max(figures.euler), figures.limit), (0, -14),
            textcoords="offset points", ha="right", color=_EULER,
        )  # fmt: skip
        axes.set_yscale("log")
        ticks = [
            tick for tick in (0.25, 0.5, 1, 2, 4, 8) if tick <= 1.1 * max(figures.euler.values())
        ]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.set_yticks([], minor=True)
        axes.set_xticks(range(4, 21, 2))
        axes.set_xlabel("evaluations of the estimator for an utterance")
        axes.set_ylabel("error of the log-mel, dB")
        axes.legend()
        out = io.StringIO()
        figure.savefig(
            out,
            format="svg",
            metadata={"Date": None, "Creator": None, "Identifier": f"sha256:{digest()}"},
        )
    return out.getvalue()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        found = msgspec.json.encode(measured(*map(Path, sys.argv[1:])))
        FIGURES.write_bytes(msgspec.json.format(found, indent=1) + b"\n")
    PICTURE.write_text("\n".join(line.rstrip() for line in picture(read()).split("\n")), "utf-8")
