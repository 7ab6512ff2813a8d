"""Second moments of what the weights of a network are multiplied with, on recorded calls."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.bundle.manifest import State
from edgepack.graph.storage import values
from edgepack.runtime.engines.session import Feeds

_MOST_BYTES = 1 << 30  # of moments at a time; more take further passes over the calls


@dataclass(frozen=True)
class Product:
    """A MatMul with a stored weight [rows, n]: the value that the weight is multiplied with."""

    weight: str
    rows: int
    source: str


def products(graph: ir.Graph, leaves: Callable[[str], bool]) -> list[Product]:
    """Every product with a stored matrix whose name `leaves` does not tell to leave, in order."""
    found: dict[str, Product] = {}
    for node in graph:
        source, weight = node.inputs[:2] if node.op_type == "MatMul" else (None, None)
        if source is None or weight is None or weight.const_value is None:
            continue
        shape = tuple(weight.const_value.shape.numpy())
        if len(shape) == 2 and not leaves(str(weight.name)):
            product = Product(str(weight.name), int(shape[0]), str(source.name))
            found.setdefault(product.weight, product)
    return list(found.values())


def moments(
    model: ir.Model,
    folder: Path,
    wanted: Sequence[Product],
    calls: Callable[[], Iterable[Feeds]],
    states: Sequence[State],
) -> Iterator[tuple[Product, np.ndarray]]:
    """Each product with the mean of xᵀx over all rows x of its source, float32 [rows, rows].

    `folder` has the model's external data; `calls` begins a pass over the recorded calls, in which
    caches that are not there are empty. Products come in order; those of one source share the
    array.
    """
    for part in _parts(wanted):
        found = _pass(model, folder, {product.source for product in part}, calls(), states)
        for product in part:
            yield product, found[product.source]


def weight_of(model: ir.Model, product: Product) -> np.ndarray:
    """The matrix of a product, float32 [rows, n]."""
    tensor = model.graph.initializers[product.weight].const_value
    if tensor is None:
        raise ValueError(f"{product.weight}: has no value")
    return np.asarray(values(tensor), np.float32)


def _parts(wanted: Sequence[Product]) -> Iterator[list[Product]]:
    """Products in order, as many sources at a time as memory is given for."""
    part: list[Product] = []
    sources: dict[str, int] = {}
    for product in wanted:
        taken = sum(sources.values()) + 4 * product.rows**2
        if part and product.source not in sources and taken > _MOST_BYTES:
            yield part
            part, sources = [], {}
        part.append(product)
        sources[product.source] = 4 * product.rows**2
    if part:
        yield part


def _pass(
    model: ir.Model,
    folder: Path,
    sources: Collection[str],
    calls: Iterable[Feeds],
    states: Sequence[State],
) -> Mapping[str, np.ndarray]:
    watched = model.clone()
    graph = watched.graph
    seen = {v.name: v for node in graph for v in node.outputs} | {v.name: v for v in graph.inputs}
    own = {str(value.name) for value in graph.outputs}
    graph.outputs.extend(seen[name] for name in sorted(set(sources) - own) if name in seen)
    names = sorted(sources)
    run = opened(watched, folder, names, states)
    sums: dict[str, np.ndarray] = {}
    rows = dict.fromkeys(names, 0)
    for call in calls:
        for name, answer in zip(names, run(call), strict=True):
            flat = answer.reshape(-1, answer.shape[-1])
            rows[name] += len(flat)
            total = sums.setdefault(name, np.zeros((flat.shape[1],) * 2, np.float32))
            total += flat.T @ flat
    return {name: total / rows[name] for name, total in sums.items()}


def opened(
    model: ir.Model, folder: Path, names: Sequence[str], states: Sequence[State]
) -> Callable[[Feeds], Sequence[np.ndarray]]:
    """A function from a recorded call to the values of these names.

    `folder` has the model's external data. Caches that a call lacks are empty; it may have them
    under the names of the outputs that wrote them.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder)
    )
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    inputs = {value.name for value in session.get_inputs()}
    cached = {state.output: state.input for state in states}
    empty = {state.input: np.zeros(state.shape, np.float32) for state in states}

    def run(call: Feeds) -> Sequence[np.ndarray]:
        feeds = empty | {cached.get(name, name): value for name, value in call.items()}
        found: Sequence[np.ndarray] = session.run(
            list(names), {n: v for n, v in feeds.items() if n in inputs}
        )
        return found

    return run
