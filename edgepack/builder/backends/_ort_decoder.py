"""A decoder's attention and norms as operators of ONNX Runtime, where its own fusions find none.

Grouped-query attention becomes one operator that rotates queries and keys, puts new keys and values
behind those of the cache, and reads no more of the cache than is filled. A norm takes over the
residual addition in front of it, and a product with integer weights the addition of its bias.
Source: onnxruntime/docs/ContribOperators.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript.rewriter import RewriteRuleClassBase, RewriteRuleSet

from edgepack.bundle.manifest import State

_DOMAIN, _VERSION = "com.microsoft", 1
_ATTENTION = "GroupQueryAttention"
_USED = "used"  # the input that says how many slots of each row are filled
_INT32, _FLOAT = int(ir.DataType.INT32), int(ir.DataType.FLOAT)
_WIDTH = 16  # the operator rotates heads of multiples of that
_BIAS = 5  # the place of a bias among the inputs of MatMulNBits


class _Attention(RewriteRuleClassBase):
    """Causal grouped-query attention behind one projection, whose queries and keys are rotated.

    Keys are those of the cache and new ones, in one array or, with `used` int64 [B], apart. The
    mask is not looked at: it is that of a causal decoder.
    """

    def __init__(self, fed: ir.Value, first: ir.Value, used: ir.Value | None) -> None:
        """`fed` [B, n, D] are the new positions, `first` [B, kv_heads, past, width] a cache."""
        super().__init__(_ATTENTION, remove_nodes=False)
        self._fed, self._first, self._used = fed, first, used

    def pattern(
        self, op: Any, packed: Any, shape: Any, of_v: Any, of_q: Any, index: Any, frequency: Any,
        scale: Any, grouped: Any, seen: Any, new: Any, last: Any, whole: Any, merged: Any,
        past_key: Any, past_value: Any,
    ) -> Any:  # fmt: skip
        qk, v = op.Split(op.Reshape(packed, shape), of_v, axis=2, _outputs=2)
        v = op.Transpose(v, perm=[0, 2, 1, 3])
        first, second = op.Split(qk, axis=-1, num_outputs=2, _outputs=2)
        angle = op.Mul(index, frequency)
        cos, sin = op.Cos(angle), op.Sin(angle)
        turned = op.Concat(
            op.Sub(op.Mul(first, cos), op.Mul(second, sin)),
            op.Add(op.Mul(second, cos), op.Mul(first, sin)),
            axis=-1,
        )
        q, k = op.Split(op.Transpose(turned, perm=[0, 2, 1, 3]), of_q, axis=1, _outputs=2)
        q = op.Reshape(op.Mul(q, scale), grouped)

        def scores(keys: Any, bias: Any) -> Any:
            return op.Add(op.MatMul(q, op.Transpose(keys, perm=[0, 1, 3, 2])), bias)

        if self._used is None:
            keys, values = op.Concat(past_key, k, axis=2), op.Concat(past_value, v, axis=2)
            y = op.MatMul(op.Softmax(scores(keys, new), axis=-1), values)
        else:
            old, own = scores(past_key, seen), scores(k, new)
            most = op.Max(op.ReduceMax(old, last, keepdims=1), op.ReduceMax(own, last, keepdims=1))
            old, own = op.Exp(op.Sub(old, most)), op.Exp(op.Sub(own, most))
            total = op.Add(op.ReduceSum(old, last, keepdims=1), op.ReduceSum(own, last, keepdims=1))
            y = op.Div(op.Add(op.MatMul(old, past_value), op.MatMul(own, v)), total)
        return op.Reshape(op.Transpose(op.Reshape(y, whole), perm=[0, 2, 1, 3]), merged)

    def rewrite(self, op: Any, **found: Any) -> Any:
        lengths, longest = self._lengths(op)
        places = op.Range(op.Constant(value_int=0), op.Squeeze(longest), op.Constant(value_int=1))
        column = op.Unsqueeze(op.Cast(places, to=_FLOAT), op.Constant(value_ints=[1]))
        angle = op.Mul(column, found["frequency"])
        rotated, kv_heads = (int(n) for n in found["of_v"].const_value.numpy())
        attended, _, _ = op.GroupQueryAttention(
            found["packed"], None, None, found["past_key"], found["past_value"],
            op.Cast(op.Sub(lengths, op.Constant(value_ints=[1])), to=_INT32),
            op.Cast(longest, to=_INT32), op.Cos(angle), op.Sin(angle),
            num_heads=rotated - kv_heads, kv_num_heads=kv_heads, do_rotary=1,
            scale=float(found["scale"].const_value.numpy()),
            _domain=_DOMAIN, _version=_VERSION, _outputs=3,
        )  # fmt: skip
        return attended

    def _lengths(self, op: Any) -> tuple[Any, Any]:
        """Positions of each row with the new ones, int64 [B], and the most of them [1]."""
        count = op.Shape(self._fed, start=1, end=2)
        if self._used is None:
            total = op.Add(op.Shape(self._first, start=2, end=3), count)
            return total, total
        lengths = op.Add(self._used, count)
        return lengths, op.ReduceMax(lengths, keepdims=1)


class _Norm(RewriteRuleClassBase):
    """RMS norm of a sum that is needed again."""

    def pattern(
        self, op: Any, x: Any, y: Any, two: Any, axes: Any, epsilon: Any, weight: Any
    ) -> Any:
        total = op.Add(x, y)
        mean = op.ReduceMean(op.Pow(total, two), axes, keepdims=1)
        return op.Mul(op.Div(total, op.Sqrt(op.Add(mean, epsilon))), weight), total

    def rewrite(
        self, op: Any, x: Any, y: Any, two: Any, axes: Any, epsilon: Any, weight: Any
    ) -> Any:
        normed, _, _, total = op.SkipSimplifiedLayerNormalization(
            x, y, weight, epsilon=float(epsilon.const_value.numpy()),
            _domain=_DOMAIN, _version=_VERSION, _outputs=4,
        )  # fmt: skip
        return normed, total


def fuse_decoder(model: Path, target: Path, states: Sequence[State]) -> bool:
    """Write the model's graph to `target`, over the same weights; False if it is no such decoder.

    Outputs of its caches are whole then, in the shape of the inputs: an engine may have both in the
    same memory, where only the new rows are written. `target` may be the model itself. Weights are
    not read: they lie beside `target` by their name.
    """
    loaded = ir.load(model)
    inputs = {str(value.name): value for value in loaded.graph.inputs}
    caches = {state.input for state in states}
    fed = [value for name, value in inputs.items() if name not in caches | {_USED}]
    if not states or len(fed) != 1:
        return False
    first = inputs[states[0].input]
    width = first.shape[-1] if first.shape else None
    if not isinstance(width, int) or width % _WIDTH:
        return False
    rule = _Attention.rule(fed[0], first, inputs.get(_USED))  # type: ignore[no-untyped-call]
    if not RewriteRuleSet([rule]).apply_to_model(loaded):
        return False
    loaded.graph.opset_imports[_DOMAIN] = _VERSION
    _lead_out(loaded.graph, states)
    passes.CommonSubexpressionEliminationPass()(loaded)
    passes.RemoveUnusedNodesPass()(loaded)
    norm = _Norm.rule()  # type: ignore[no-untyped-call]  # onnxscript's own lacks it
    RewriteRuleSet([norm]).apply_to_model(loaded)
    _fuse_biases(loaded.graph)
    passes.RemoveUnusedNodesPass()(loaded)
    passes.TopologicalSortPass()(loaded)
    fused = target.with_name(f"{target.name}.fused")
    ir.save(loaded, fused)
    fused.replace(target)  # the old graph may have a second name
    return True


def _lead_out(graph: ir.Graph, states: Sequence[State]) -> None:
    """Make outputs of caches those of the operator that reads the input of the same cache."""
    inputs = {str(value.name): value for value in graph.inputs}
    places = {str(value.name): place for place, value in enumerate(graph.outputs)}
    read = {
        str(value.name): (node, place)
        for node in graph
        if node.op_type == _ATTENTION
        for place, value in enumerate(node.inputs)
        if value is not None
    }
    for state in states:
        node, place = read[state.input]
        whole = node.outputs[place - 2]  # inputs 3 and 4 are the caches, outputs 1 and 2
        old = graph.outputs[places[state.output]]
        joined = old.shape if _USED not in inputs else inputs[state.input].shape
        old.name = f"{state.output}_before"
        whole.name, whole.type, whole.shape = state.output, old.type, joined
        graph.outputs[places[state.output]] = whole


def _fuse_biases(graph: ir.Graph) -> None:
    """Have products with integer weights add the constant that is added to them."""
    for node in list(graph):
        if node.op_type != "Add":
            continue
        y, bias = node.inputs
        product = y.producer() if y is not None else None
        if (
            y is None or product is None or product.op_type != "MatMulNBits" or len(y.uses()) != 1
            or bias is None or bias.const_value is None
        ):  # fmt: skip
            continue
        given = [*product.inputs, *[None] * _BIAS][:_BIAS]
        attributes = list(product.attributes.values())
        whole = ir.Node(
            _DOMAIN, "MatMulNBits", [*given, bias], attributes, version=_VERSION, num_outputs=1
        )
        result = node.outputs[0]
        whole.outputs[0].type, whole.outputs[0].shape = result.type, result.shape
        graph.insert_before(node, whole)
        ir.convenience.replace_all_uses_with(result, whole.outputs[0], replace_graph_outputs=True)
        whole.outputs[0].name, result.name = result.name, f"{result.name}_apart"
        graph.remove(node, safe=True)
        graph.remove(product, safe=True)
