"""The parts that a build consists of, and a rough estimate of the seconds that each will take.

The rates are of builds on two x86-64 cores of a server, of the demo voice and of a checkpoint of
CosyVoice2-0.5B's dimensions (docs/quantization.md has the times of the latter). Other machines are
faster or slower, which `report.Parts` corrects while a build runs.
"""

import platform
from collections.abc import Iterator, Sequence

from edgepack.builder.planning import Plan, Source
from edgepack.report import Parts, Step, duration

Part = tuple[str, ...]  # what is done, and for which target and runtime, where there are several
TEXT: Part = ("text",)
NETWORKS: Part = ("networks",)
REFERENCE: Part = ("reference",)
VOICES: Part = ("voices",)
CALIBRATION: Part = ("calibration",)
CONVERSION, SOLVER, MEMORY, EVALUATION = "conversion", "solver", "memory", "evaluation"

# Seconds of a checkpoint of next to no bytes, and how many times as long they are for each GB.
_PREPARED, _WRITTEN, _SPOKEN, _FOLLOWED = 0.5, 1.0, 7.0, 5.0
_CONVERTED = 2.0  # all networks of a runtime
_TIMED, _UNTIMED = 1.3, 0.5  # each recipe that is tried, on a machine like the target and another
_SOLVED, _EVALUATED = 5.0, 7.0
_A_GIGABYTE = 4.0


def sizes(source: Source, plans: Sequence[Plan]) -> dict[Part, float]:
    """Seconds by part of a build of all plans, in the order in which they are done.

    Parts that turn out to be needless are there as well.
    """
    scale = 1 + _A_GIGABYTE * source.bytes / 1e9
    return {part: seconds * scale for part, seconds in _parts(plans)}


def parts(step: Step, told: Step, seconds: dict[Part, float]) -> Parts:
    """A step callback for a build, after its length was told."""
    told(f"{len(seconds)} parts, estimated to take about {duration(sum(seconds.values()))}")
    return Parts(step, seconds, seconds=True)


def _parts(plans: Sequence[Plan]) -> Iterator[tuple[Part, float]]:
    for part in (TEXT, NETWORKS, REFERENCE, VOICES):
        yield part, _WRITTEN if part in (NETWORKS, REFERENCE) else _PREPARED
    solving = any(plan.solves(runtime) for plan in plans for runtime in plan.profile.runtimes)
    if any(plan.needs_speech for plan in plans):
        yield CALIBRATION, _SPOKEN + _FOLLOWED * solving
    for plan in plans:
        runtimes, profile = list(plan.profile.runtimes), plan.profile
        for runtime in runtimes:
            tried = [len(plan.recipes(runtime, stage)) for stage in plan.stages]
            offered = sum(count for count in tried if count > 1)
            candidate = _TIMED if profile.architecture == platform.machine() else _UNTIMED
            yield (CONVERSION, plan.target, runtime), _CONVERTED + candidate * offered
        for runtime in runtimes:
            if plan.solves(runtime):
                yield (SOLVER, plan.target, runtime), _SOLVED
        for runtime in runtimes if profile.memory or profile.gpu else ():
            yield (MEMORY, plan.target, runtime), _WRITTEN
        for runtime in runtimes if plan.needs_speech else ():
            yield (EVALUATION, plan.target, runtime), _EVALUATED
