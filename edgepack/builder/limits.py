"""The limits that networks of a bundle are held to: of the precision that each of them has.

And what is said of a runtime that does not keep them, while others may have.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgepack.builder.planning import Plan
from edgepack.bundle.manifest import Variant
from edgepack.bundle.metrics import Limit, Limits, Metric, Quality
from edgepack.bundle.ranges import Precision
from edgepack.bundle.stages import ROLES, Use
from edgepack.discovery import unknown
from edgepack.errors import GateError, UnsupportedError, UsageError
from edgepack.profiles.recipe import PRECISIONS, QUANTIZED, named, runtimes
from edgepack.profiles.target import TargetProfile, formats
from edgepack.runtime.engines.session import EngineError
from edgepack.verification import gates
from edgepack.verification.intervals import digits

_SOLVED = ("once", "step")  # how often the networks of a solver are called
_MEL: Metric = "mel_lsd"  # dB, as a solver's error
_SHARE = 0.8  # of a solver's limit


def check(plan: Plan) -> None:
    """Raise UsageError for unknown roles or networks, and for a quantized one without limits."""
    profile, fixed = plan.profile, plan.choices.names
    roles = ["default", *{*ROLES, *(use.role for use in plan.stages.values())}]
    named_roles = [
        *profile.precision,
        *(profile.gpu.providers if profile.gpu else ()),
        *(
            s
            for options in profile.runtimes.values()
            for g in options.delegates.values()
            for s in g
        ),
    ]
    for role in named_roles:
        if role not in roles:
            raise UsageError(f"target {plan.target}: {unknown('role', role, roles)}")
    known = ["default", *plan.stages]
    for stage in (stage for of_runtime in fixed.values() for stage in of_runtime):
        if stage not in known:
            raise UsageError(f"recipes: {unknown('network', stage, known)}")
    for runtime in fixed:
        if runtime not in runtimes():
            raise UsageError(f"recipes: {unknown('runtime', runtime, runtimes())}")
    if fixed and not fixed.keys() & profile.runtimes.keys():
        raise UsageError(
            f"target {plan.target}: the recipes are of {', '.join(fixed)}, and it is built for "
            f"{', '.join(profile.runtimes)}; choose one of both with --format"
        )
    for runtime in plan.profile.runtimes:
        for stage in plan.stages:
            for recipe in plan.recipes(runtime, stage):
                of_stage(plan, stage, named(runtime, recipe).precision)


def of_stage(plan: Plan, stage: str, precision: Precision) -> Limits:
    """Limits of a network whose weights have a precision, for the metrics that it is judged by.

    Raises UsageError for integer weights without any.
    """
    return _of(plan, gates.part_of(plan.stages[stage]), _judged_as(plan, stage, precision))


def of_solved(limits: Limits, use: Use, decibel: float | None) -> Limits:
    """Limits of a network beside a solver whose error may be at most `decibel`, None if no matter.

    The error of a network that the solver calls is part of the solver's, and no table of any
    length is below it. Independent errors add in quadrature, so a share of 0.8 leaves 0.6 of the
    limit to the table, which few evaluations reach. Other networks keep their limits.
    """
    if decibel is None or use.called not in _SOLVED:
        return limits
    high = digits(_SHARE * decibel)
    given = limits[_MEL].high if _MEL in limits else None
    return {**limits, _MEL: Limit(high=high if given is None else min(given, high))}


def of_runtime(plan: Plan, runtime: str, variants: Mapping[str, Mapping[str, Variant]]) -> Limits:
    """Limits of a whole bundle in one runtime.

    Networks that are judged together are held to the limits of the coarsest of them.
    """
    found: Limits = {}
    for part in gates.PARTS:
        judged = [_judged_as(plan, s, variants[s][runtime].precision) for s in _stages(plan, part)]
        if judged:
            found |= _of(plan, part, max(judged, key=PRECISIONS.index))
    return found


def of_stream(plan: Plan, runtime: str) -> Limits:
    """The limit of streams whose last chunk goes on in a runtime."""
    policy = plan.profile.stream
    goes_on = policy.continued and plan.profile.runtimes[runtime].continuing
    return {"stream_lsd": Limit(high=policy.decibel)} if goes_on else {}


def require_passed(folder: Path, quality: Quality) -> None:
    """Raise GateError if a runtime of a bundle failed its evaluation, naming those that passed."""
    if not quality.failed:
        return
    passed = [r for r in quality.limits if not any(w.startswith(f"{r}: ") for w in quality.failed)]
    told = f"{' and '.join(passed)} passed; " if passed else ""
    first = f"{formats(passed)}, " if passed else ""
    raise GateError(
        f"{folder}: {'; '.join(quality.failed)}; {told}no bundle was written. "
        f"Try {first}another --precision, or --allow-failed-gate"
    )


@contextmanager
def blamed(runtime: str, done: Collection[str], profile: TargetProfile) -> Iterator[None]:
    """Let what a runtime cannot do, or does wrongly, say how to build without that runtime.

    `done` are runtimes that the same was done for. What ran out is no fault of one.
    """
    try:
        yield
    except (GateError, UnsupportedError, EngineError) as error:
        waiting = [r for r in profile.runtimes if r != runtime and r not in done]
        others = [r for r in profile.runtimes if r in done] or waiting
        if others:
            far = "got this far without a fault" if done else "not tried yet"
            advice = f"{' and '.join(others)} {far}: try {formats(others)}"
            error.args = (f"{runtime} failed: {error}; {advice}",)
        raise


def _stages(plan: Plan, part: gates.JudgedPart) -> list[str]:
    """Networks that a part judges: every one if it is about speech of the whole bundle."""
    return [s for s, use in plan.stages.items() if part.judged in (None, use.judged)]


def _judged_as(plan: Plan, stage: str, precision: Precision) -> Precision:
    """The precision whose limits apply: a network's own, or what was asked for if that is finer.

    So a network that was to be int8 and stayed in floating point still keeps int8's limits.
    """
    return (
        precision if precision in QUANTIZED else plan.profile.precision_of(plan.stages[stage].role)
    )


def _of(plan: Plan, part: gates.JudgedPart, precision: Precision) -> Limits:
    limits = plan.profile.gates.get(precision, {})
    found = {metric: limits[metric] for metric in part.metrics if metric in limits}
    if precision in QUANTIZED and all(limit.optional for limit in found.values()):
        networks = ", ".join(_stages(plan, part))
        raise UsageError(
            f"the target's gates at {precision} have no limit for {networks}; give "
            f"one of {', '.join(part.metrics)} that is not optional"
        )
    return found
