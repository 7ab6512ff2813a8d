"""The solver of one runtime of a bundle, for the estimator that will run it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack.builder.calibration.exact import read_references
from edgepack.builder.calibration.solver_search import Bound, calibrate, measured
from edgepack.bundle.host import HostLoops, strategy
from edgepack.bundle.manifest import Calibrated, Solver, State, Variant
from edgepack.bundle.stages import Role, Use, of_role
from edgepack.report import Step
from edgepack.runtime.engines.session import Session, engine
from edgepack.runtime.loading import Host
from edgepack.runtime.stages.flow import FlowDecoder
from edgepack.verification import trajectories


@dataclass(frozen=True)
class Solving:
    """What a solver is made of.

    `root` is the bundle's folder, `uses` and `variants` are of its converted networks by stage,
    `recording` a folder of `builder.calibration.exact`. A `given` table is measured and not fitted.
    `lenient` is whether the gate may fail.
    """

    host: Host
    root: Path
    uses: Mapping[str, Use]
    variants: Mapping[str, Variant]
    loops: HostLoops
    recording: Path
    bound: Bound
    given: Solver | None = None
    lenient: bool = False


def solve(work: Solving, step: Step) -> Calibrated:
    """Fit a table, or measure the given one; runs in a process of its own."""
    step(f"{work.host.runtime}: solver of the flow decoder")
    settings = work.loops.flow
    sessions = {role: _session(work, role) for role in settings.networks(work.loops)}
    flow: FlowDecoder = strategy("flow", settings)(settings, **sessions)
    judged = trajectories.read(work.recording / trajectories.FILE)
    if work.given:
        return measured(flow, work.given, judged, work.bound)

    def told(text: str) -> None:
        step(f"{work.host.runtime}: {text}")

    references = read_references(work.recording)
    return calibrate(flow, references, judged, work.bound, told, lenient=work.lenient)


def _session(work: Solving, role: Role) -> Session:
    stage = of_role(work.uses, role)
    variant = work.variants[stage]
    size = sum((work.root / file).stat().st_size for file in variant.files)
    states: tuple[State, ...] = ()
    options = work.host.options(stage, work.uses[stage], variant.precision, size)
    return engine(variant.engine or work.host.runtime).open(
        work.root / variant.files[0], states, options
    )
