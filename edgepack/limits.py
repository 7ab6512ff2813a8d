"""The limits that networks of a bundle are held to: of the precision that each of them has."""

from collections.abc import Mapping

from edgepack.discovery import unknown
from edgepack.errors import UsageError
from edgepack.manifest import Variant
from edgepack.metrics import Limits
from edgepack.plan import Plan
from edgepack.ranges import Precision
from edgepack.recipe import PRECISIONS, QUANTIZED, named
from edgepack.target import TargetProfile
from edgepack.verification import gates


def check(plan: Plan) -> None:
    """Raise UsageError for a plan that names unknown networks, or quantizes one without limits."""
    known = ["default", *gates.STAGES]
    named_stages = [*plan.profile.precision, *(s for n in plan.choices.names.values() for s in n)]
    for stage in named_stages:
        if stage not in known:
            raise UsageError(f"target {plan.target}: {unknown('network', stage, known)}")
    for runtime in plan.profile.runtimes:
        for stage in gates.STAGES:
            for recipe in plan.recipes(runtime, stage):
                of_stage(plan.profile, stage, named(runtime, recipe).precision)


def of_stage(profile: TargetProfile, stage: str, precision: Precision) -> Limits:
    """Limits of a network whose weights have a precision, for the metrics that it is judged by.

    Raises UsageError for integer weights without any.
    """
    return _of(profile, gates.part_of(stage), _judged_as(profile, stage, precision))


def of_runtime(
    profile: TargetProfile, runtime: str, variants: Mapping[str, Mapping[str, Variant]]
) -> Limits:
    """Limits of a whole bundle in one runtime.

    Networks that are judged together are held to the limits of the coarsest of them.
    """
    found: Limits = {}
    for part in gates.PARTS:
        judged = [_judged_as(profile, s, variants[s][runtime].precision) for s in part.stages]
        found |= _of(profile, part, max(judged, key=PRECISIONS.index))
    return found


def _judged_as(profile: TargetProfile, stage: str, precision: Precision) -> Precision:
    """The precision whose limits apply: a network's own, or what was asked for if that is finer.

    So a network that was to be int8 and stayed in floating point still keeps int8's limits.
    """
    return precision if precision in QUANTIZED else profile.stage_precision(stage)


def _of(profile: TargetProfile, part: gates.Part, precision: Precision) -> Limits:
    limits = profile.gates.get(precision, {})
    found = {metric: limits[metric] for metric in part.metrics if metric in limits}
    if not found and precision in QUANTIZED:
        raise UsageError(
            f"the target's gates at {precision} have no limit for {', '.join(part.stages)}; give "
            f"one of {', '.join(part.metrics)}"
        )
    return found
