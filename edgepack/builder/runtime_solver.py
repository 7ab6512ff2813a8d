"""The solver of one runtime of a bundle, for the estimator that will run it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack.calibration.exact import read_courses
from edgepack.calibration.solver import Bound, calibrate, measured
from edgepack.manifest import Calibrated, Flow, Solver, State, Variant
from edgepack.report import Step
from edgepack.runtime.flow import FlowDecoder
from edgepack.runtime.loading import Host
from edgepack.runtime.session import Session, engine
from edgepack.verification import trajectories


@dataclass(frozen=True)
class Solving:
    """What a solver is made of.

    `root` is the bundle's folder, `variants` its converted networks of the flow decoder by stage,
    `recording` a folder of `calibration.exact`. A `given` table is measured and not fitted.
    `lenient` is whether the gate may fail.
    """

    host: Host
    root: Path
    variants: Mapping[str, Variant]
    flow: Flow
    recording: Path
    bound: Bound
    given: Solver | None = None
    lenient: bool = False


def solve(work: Solving, step: Step) -> Calibrated:
    """Fit a table, or measure the given one; runs in a process of its own."""
    step(f"{work.host.runtime}: solver of the flow decoder")
    flow = FlowDecoder(
        work.flow,
        _session(work, "flow_encoder"),
        _session(work, "flow_time"),
        _session(work, "flow_estimator"),
    )
    judged = trajectories.read(work.recording / trajectories.FILE)
    if work.given:
        return measured(flow, work.given, judged, work.bound)

    def told(text: str) -> None:
        step(f"{work.host.runtime}: {text}")

    courses = read_courses(work.recording)
    return calibrate(flow, courses, judged, work.bound, told, lenient=work.lenient)


def _session(work: Solving, stage: str) -> Session:
    variant = work.variants[stage]
    size = sum((work.root / file).stat().st_size for file in variant.files)
    states: tuple[State, ...] = ()
    options = work.host.options(stage, variant.precision, size)
    return engine(variant.engine or work.host.runtime).open(
        work.root / variant.files[0], states, options
    )
