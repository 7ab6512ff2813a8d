"""Which nodes of a float16 network stay float32, and why.

float16 overflows above 65,504 and has eleven bits of precision. Operators whose results grow fast
(exponentials, squares in norms) stay float32, together with all nodes up to their quotient,
whatever was observed, as calibration never shows the largest possible value. Operators that need an
absolute accuracy (angles, exponents) stay float32 together with the nodes that compute their input.
For all others the observed ranges decide.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgepack.graph.half import LARGEST, exceeds, is_float

_WEIGHTED = {"MatMul", "Gemm", "Conv", "ConvTranspose", "LayerNormalization", "Gather"}
_ENDS = _WEIGHTED - {"ConvTranspose"} | {"Div", "Softmax", "Sigmoid", "Tanh", "Clip"}


@dataclass(frozen=True)
class Policy:
    """When a node stays float32.

    `growing` are operators whose results grow fast, `exact` those that need an absolute accuracy
    for any input, `angles` those that need it for inputs above `largest_angle`. Operators in
    `alone` are fp32 without their neighbours. `margin` is the factor by which every observed value
    has to stay below the largest float16.
    """

    alone: frozenset[str]
    growing: frozenset[str]
    exact: frozenset[str]
    angles: frozenset[str]
    largest_angle: float
    margin: float

    @staticmethod
    def of(options: Mapping[str, object]) -> "Policy":
        """The policy of a recipe's options."""

        def kinds(name: str) -> frozenset[str]:
            listed = options[name]
            return frozenset(map(str, listed if isinstance(listed, list) else [listed]))

        def number(name: str) -> float:
            return float(str(options[name]))

        return Policy(
            kinds("alone"),
            kinds("growing"),
            kinds("exact"),
            kinds("angles"),
            number("angle"),
            number("margin"),
        )


@dataclass
class Islands:
    """Names of nodes that stay float32, each with its reason."""

    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, node: ir.Node, reason: str) -> bool:
        """Add a node with its reason; returns whether it was not there before."""
        new = node.name not in self.reasons
        if new:
            self.reasons[str(node.name)] = reason
        return new

    def counts(self) -> dict[str, int]:
        """Nodes by reason."""
        return dict(Counter(self.reasons.values()).most_common())


def decide(
    model: ir.Model,
    largest: Mapping[str, float],
    policy: Policy,
    states: Collection[str] = (),
) -> Islands:
    """The islands of a network whose values were as large as `largest` says, by value name.

    Nodes that compute its outputs stay float32, back to the nearest operator with weights; those
    that compute only caches (`states`) need not.
    """
    found = Islands()
    limit = LARGEST / policy.margin
    for node in model.graph:
        if any(map(exceeds, node.inputs)):
            found.add(node, "weight")
        if node.op_type in policy.alone:
            found.add(node, "accuracy")
        if node.op_type in policy.growing:
            _grow(node, found, "growth")
        if node.op_type in policy.exact:
            _with_sources(node, found, "accuracy")
        if node.op_type in policy.angles and _peak(node.inputs, largest) > policy.largest_angle:
            _with_sources(node, found, "angle")
        if _peak(node.outputs, largest) > limit:
            found.add(node, "range")
            for user in _users(node):
                found.add(user, "range")
    for value in model.graph.outputs:
        producer = value.producer()
        if producer is None or value.name in states or not is_float(value):
            continue
        if producer.op_type not in _WEIGHTED:
            _with_sources(producer, found, "output", weighted=False)
    return found


def _peak(values: Iterable[ir.Value | None], largest: Mapping[str, float]) -> float:
    return max((largest.get(str(v.name), 0.0) for v in values if v is not None), default=0.0)


def _users(node: ir.Node) -> list[ir.Node]:
    return [user for value in node.outputs for user, _ in value.uses()]


def _grow(node: ir.Node, found: Islands, reason: str) -> None:
    """Add a node, its sources, and its consumers up to the first one that bounds values again."""
    _with_sources(node, found, reason, weighted=False)
    waiting = [node]
    while waiting:
        at = waiting.pop()
        for user in _users(at):
            if user.op_type in _WEIGHTED - {"ConvTranspose"} or not found.add(user, reason):
                continue
            if user.op_type not in _ENDS:
                waiting.append(user)


def _with_sources(node: ir.Node, found: Islands, reason: str, *, weighted: bool = True) -> None:
    """Add a node and its sources back to an operator with weights, and that too if `weighted`."""
    waiting = [node]
    while waiting:
        at = waiting.pop()
        if at.op_type in _WEIGHTED and at is not node:
            if weighted:
                found.add(at, reason)
            continue
        if not found.add(at, reason) and at is not node:
            continue
        sources = (value.producer() for value in at.inputs if value is not None and is_float(value))
        waiting += [source for source in sources if source is not None]
