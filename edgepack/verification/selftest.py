"""The self-test of a bundle: recorded calls of every network, and what the fp32 hub answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save

from edgepack.bundle.bundle import Bundle
from edgepack.bundle.stages import TOLERANCE, Use
from edgepack.runtime.engines.session import Session
from edgepack.runtime.fit import recorded, require_fit, widths
from edgepack.runtime.loading import Host, open_continuing, open_frontend, open_stage
from edgepack.runtime.stages.continuing import ENDS, KEPT, NEXT_ENDS, PAST, KeptEvaluation, Sizes

Arrays = Mapping[str, np.ndarray]

FILE = "selftest.safetensors"

# Largest allowed relative error of a stage with the usual tolerance. Zeros in place of an output
# have 1. One weight of the demo voice's language model in the place of another, or shuffled, has
# 0.42 at least on recorded inputs, where recipes have 0.1 (int8) and 0.3 (int4); random weights at
# full size have 0.48 with int4. How well integer weights serve is for the evaluation to say.
_LIMITS = {"fp32": TOLERANCE, "fp16": 3e-2, "int8": 0.3, "int4": 0.5}


@dataclass(frozen=True)
class Call:
    """One call of a network: what it was given and what the reference returned."""

    feeds: Arrays
    outputs: Arrays


Calls = Mapping[str, Sequence[Call]]


def limit(use: Use, precision: str) -> float:
    """The largest error a stage that is used so may have at a precision."""
    return min(_LIMITS[precision] * (use.tolerance / TOLERANCE), _LIMITS["int4"])


def execute(session: Session, calls: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
    """Outputs of calls made in order, starting with empty caches."""
    session.reset()
    return [session.run(feeds) for feeds in calls]


def answered(session: Session, feeds: Sequence[Arrays]) -> list[Call]:
    """Calls with what a network answers them, starting with empty caches."""
    return [Call(*pair) for pair in zip(feeds, execute(session, feeds), strict=True)]


def error(session: Session, calls: Sequence[Call]) -> float:
    """Largest `relative_error` of any output of any call."""
    results = execute(session, [call.feeds for call in calls])
    return max(
        relative_error(result[name], wanted)
        for call, result in zip(calls, results, strict=True)
        for name, wanted in call.outputs.items()
    )


def continued_error(session: Session, calls: Sequence[Call]) -> float:
    """As `error`, of a form of the estimator that goes on from finished frames, in two parts each.

    `session` has to answer the calls of the other form.
    """
    return max(
        relative_error(continued(session, call.feeds)[name], wanted)
        for call in calls
        for name, wanted in call.outputs.items()
    )


def continued(session: Session, feeds: Arrays) -> dict[str, np.ndarray]:
    """The answer to a call in two parts: one attention chunk less than all, then the rest.

    A call without a mask, or of a single chunk, is made in one part.
    """
    chunk = int(feeds["chunk"][0])
    frames, rows = feeds["x"].shape[2], len(feeds["mu"])
    sizes = Sizes.of(session)
    known = sizes.empty(rows, 0)
    parts, first = [], 0
    for end in dict.fromkeys([(frames - 1) // chunk * chunk or frames, frames]):
        given = {k: v[:, :, first:end] if v.ndim == 3 else v for k, v in feeds.items()}
        found = session.run({**given, PAST: known.past, ENDS: known.ends})
        known = KeptEvaluation(found[KEPT], found[NEXT_ENDS])
        parts.append(found)
        first = end
    return {name: np.concatenate([p[name] for p in parts], 2) for name in ("velocity", "next")}


def relative_error(actual: np.ndarray, wanted: np.ndarray) -> float:
    """‖actual - wanted‖ / ‖wanted‖ (L2), or a tenth of that in the maximum norm if it is larger.

    So no single value may be off by ten times what all together may. Infinite for another shape
    or a value that is not finite.
    """
    if actual.shape != wanted.shape or not np.isfinite(actual).all():
        return float("inf")
    wanted = wanted.astype(np.float64)
    difference = actual - wanted
    norm = float(np.linalg.norm(wanted)) or 1.0
    largest = float(np.abs(wanted).max(initial=0.0)) or 1.0
    maximum = float(np.abs(difference).max(initial=0.0)) / largest
    return max(float(np.linalg.norm(difference)) / norm, maximum / 10)


def to_bytes(calls: Calls) -> bytes:
    """Recorded calls as a safetensors file with entries `stage/number/in/name`."""
    entries = {
        f"{stage}/{number}/{side}/{name}": np.ascontiguousarray(value)
        for stage, recorded in calls.items()
        for number, call in enumerate(recorded)
        for side, arrays in (("in", call.feeds), ("out", call.outputs))
        for name, value in arrays.items()
    }
    return save(entries)


def read(bundle: Bundle) -> Calls:
    """The recorded calls of a bundle; raises IntegrityError if they are not of its networks."""
    found = recorded(bundle)
    widths(bundle, found)
    return {stage: [Call(*pair) for pair in pairs] for stage, pairs in found.items()}


@dataclass(frozen=True)
class Outcome:
    """The self-test of one network in one runtime."""

    stage: str
    runtime: str
    precision: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit."""
        return self.error <= self.limit


def run(bundle: Bundle, host: Host) -> list[Outcome]:
    """Check every file and what has to fit, then exercise each network in one runtime."""
    manifest = bundle.manifest
    bundle.check(manifest.files)
    require_fit(bundle, open_frontend(bundle).tokenizer)
    calls = read(bundle)
    outcomes = []
    for name, stage in manifest.stages.items():
        precision = stage.variants[host.runtime].precision
        found = error(open_stage(bundle, name, host), calls[name])
        if (form := open_continuing(bundle, name, host)) is not None:
            found = max(found, continued_error(form, calls[name]))
        outcomes.append(Outcome(name, host.runtime, precision, found, limit(stage.use, precision)))
    return outcomes
