"""ONNX Runtime's TensorRT and CUDA providers: values stay on the GPU, repeated calls are a graph.

Source: onnxruntime's I/O binding and CUDA graphs.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepack.bundle.manifest import State
from edgepack.errors import EdgepackError, ResourceError, UnsupportedError
from edgepack.runtime import cancellation
from edgepack.runtime.engines.session import Accelerator, Feeds, Placed, RefusedError, Session

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider"}
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
# Operators that take most of the time; others may run on the CPU, as those over shapes do.
_MAIN = frozenset(
    {
        "Attention", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm",
        "LayerNormalization", "MatMul", "MatMulNBits", "SkipLayerNormalization", "Softmax",
    }
)  # fmt: skip
_SINCE = {"use_tf32": (1, 18), "cudnn_conv1d_pad_to_nc1d": (1, 13)}  # first versions to know them
_NOT_CAPTURED = "-1"
# Parts of ONNX Runtime's messages when cuDNN, cuBLAS or a kernel does not support these types and
# lengths (cudnn_frontend's error codes among them), or TensorRT was not built for them.
_REFUSALS = (
    "NOT_SUPPORTED", "NOT_IMPLEMENTED", "HEURISTIC_QUERY_FAILED", "No valid engine configs",
    "GRAPH_EXECUTION_PLAN_CREATION_FAILED", "IExecutionContext::setInputShape",
)  # fmt: skip
_NO_MEMORY = (
    "Failed to allocate memory", "out of memory", "OUT_OF_MEMORY", "ALLOC_FAILED",
    "ALLOCATION_FAILED",
)  # fmt: skip
_LONGEST_REASON = 600


class OnGpu:
    """An array in GPU memory; `np.asarray` copies it to the host."""

    def __init__(self, value: "onnxruntime.OrtValue") -> None:
        self.value = value

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return tuple(self.value.shape())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value.numpy(), dtype)


def open_session(
    model: "str | bytes", settings: "onnxruntime.SessionOptions", on: Accelerator
) -> "onnxruntime.InferenceSession":
    """Load a network with an accelerator's providers, and the CPU for what none of them takes."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA from Python packages, which the loader does not find
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    version = tuple(int(n) for n in onnxruntime.__version__.split(".")[:2])
    providers: list[Any] = []
    for name, options in on.providers:
        known = {k: v for k, v in options.items() if version >= _SINCE.get(k, (0, 0))}
        if name == "cuda" and on.repeated and _captures():
            known["enable_cuda_graph"] = "1"
        providers.append((_PROVIDERS[name], known))
    session = onnxruntime.InferenceSession(
        model, settings, providers=[*providers, "CPUExecutionProvider"]
    )
    session.disable_fallback()  # otherwise a failed call is silently repeated on the CPU
    return session


def lengths(session: "onnxruntime.InferenceSession") -> dict[str, tuple[int | None, ...]]:
    """The lengths of a session's inputs' axes, None for those that change."""
    return {
        value.name: tuple(n if isinstance(n, int) else None for n in value.shape)
        for value in session.get_inputs()
    }


def _fault(network: str, error: Exception) -> EdgepackError:
    """The failure of a call as the matching error of edgepack."""
    told = " ".join(str(error).split())
    reason = told if len(told) <= _LONGEST_REASON else f"{told[:_LONGEST_REASON]} …"
    if any(sign in told for sign in _NO_MEMORY):
        return ResourceError(
            f"{network}: the GPU's memory is full; end other programs that use it, or speak "
            f"shorter sentences: {reason}"
        )
    if any(sign in told for sign in _REFUSALS):
        return RefusedError(f"{network}: the GPU refuses a call: {reason}")
    return UnsupportedError(f"{network}: the GPU fails: {reason}")


@contextmanager
def _memory(network: str) -> Iterator[None]:
    """Turn errors of a full GPU memory into ResourceError, whatever library raised them."""
    try:
        yield
    except EdgepackError:
        raise
    except Exception as error:  # the engine's own exceptions share no base class
        found = _fault(network, error)
        if isinstance(found, ResourceError):
            raise found from None
        raise


def _captures() -> bool:
    """Whether this ONNX Runtime can release a captured graph, which is needed for new shapes."""
    import onnxruntime

    return hasattr(onnxruntime.InferenceSession, "release_captured_graph")


def placed(session: "onnxruntime.InferenceSession") -> Placed:
    """On which provider each operator is; only the providers if ONNX Runtime does not tell."""
    names = {full: name for name, full in _PROVIDERS.items()} | {"CPUExecutionProvider": "cpu"}
    registered = [names[n] for n in session.get_providers() if n in names]
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return Placed(registered[0], {})
    nodes: Counter[str] = Counter()
    main: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        name = names.get(part.ep_name, part.ep_name)
        for node in part.get_nodes():
            nodes[name] += 1
            main[name] += node.op_type in _MAIN
    decisive = main if main.total() else nodes
    if not decisive:
        return Placed(registered[0], {})
    provider = "cpu" if main["cpu"] else decisive.most_common(1)[0][0]
    return Placed(provider, dict(nodes))


class OrtGpuSession(Session):
    """A network on the GPU. Caches stay there; other outputs are copied when they are accessed."""

    batches = True
    restorable = True

    def __init__(
        self,
        session: "onnxruntime.InferenceSession",
        states: Sequence[State],
        *,
        name: str,
        repeated: bool,
        device: str = "cuda",
    ) -> None:
        import onnxruntime

        self._ort = onnxruntime
        self._name = name
        self._device = device
        self._session = session
        self._states = states
        cached = {state.output for state in states}
        self._outputs = [o.name for o in session.get_outputs() if o.name not in cached]
        self._types = {value.name: _TYPES[value.type] for value in session.get_inputs()}
        self._placed = placed(session)
        captures = repeated and self._placed.provider != "tensorrt" and not states and _captures()
        self._repeated = _Repeated(self) if captures else None
        self._caches: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self.reset()

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in self.run_kept(feeds, ()).items()}

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        # A call is a few milliseconds, and one that was ended could leave half a captured graph.
        with cancellation.uninterrupted(), _memory(self._name):
            return self._repeated.run(feeds) if self._repeated else self._run(feeds, keep)

    def _run(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        binding = self._session.io_binding()
        for name, feed in feeds.items():
            self.bind(binding, name, feed)
        for name, value in self._caches.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self._device if name in keep else "cpu")
        for state in self._states:
            binding.bind_output(state.output, self._device)
        self.compute(binding, self._ort.RunOptions())
        results = binding.get_outputs()
        fresh = results[len(self._outputs) :]
        self._before = self._caches
        self._caches = {s.input: value for s, value in zip(self._states, fresh, strict=True)}
        given = zip(self._outputs, results[: len(self._outputs)], strict=True)
        return {name: OnGpu(v) if name in keep else v.numpy() for name, v in given}

    def compute(self, binding: Any, how: "onnxruntime.RunOptions") -> None:
        """Run one call; raises RefusedError if the GPU's libraries cannot compute it.

        Raises ResourceError if its memory is full, and UnsupportedError for any other failure.
        """
        try:
            self._session.run_with_iobinding(binding, how)
        except Exception as error:  # the engine's own exceptions share no base class
            raise _fault(self._name, error) from None

    def bind(self, binding: Any, name: str, feed: Any) -> None:
        """Feed an array, or a value that is on the GPU already."""
        if isinstance(feed, OnGpu):
            binding.bind_ortvalue_input(name, feed.value)
        else:
            binding.bind_cpu_input(name, np.ascontiguousarray(feed))

    def reset(self) -> None:
        self._caches = {
            s.input: self._stored(np.zeros(s.shape, self._types[s.input])) for s in self._states
        }
        self._before = self._caches

    def shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return lengths(self._session)

    def caches(self) -> dict[str, np.ndarray]:
        return {s.output: self._caches[s.input].numpy() for s in self._states}

    def before(self) -> dict[str, np.ndarray]:
        return {s.output: self._before[s.input].numpy() for s in self._states}

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        self._caches = {
            s.input: self._stored(caches[s.output].astype(self._types[s.input]))
            for s in self._states
        }

    @property
    def placed(self) -> Placed:
        return self._placed

    def _stored(self, array: np.ndarray) -> Any:
        """An array as a value on the GPU; an empty one stays on the host."""
        where = (self._device, 0) if array.size else ()
        with _memory(self._name):
            return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *where)


class _Repeated:
    """Calls with inputs of equal shapes: the second is captured as a CUDA graph, others replay it.

    A captured graph reads and writes fixed buffers. There is one at a time.
    """

    def __init__(self, owner: OrtGpuSession) -> None:
        self._owner = owner
        self._ort = owner._ort
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._binding: Any = None
        self._number = 0

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """Outputs on the GPU, as copies that later calls do not overwrite."""
        shapes = {name: tuple(feed.shape) for name, feed in feeds.items()}
        if shapes != self._shapes:
            return self._first(feeds, shapes)
        for name, feed in feeds.items():
            value = feed.value if isinstance(feed, OnGpu) else np.ascontiguousarray(feed)
            self._inputs[name].update_inplace(value)
        if self._binding is None:
            self._bind()
        self._run(str(self._number))
        return {name: OnGpu(self._copy(value)) for name, value in self._outputs.items()}

    def _first(self, feeds: Feeds, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        """The first call with these shapes, made as usual; it shows the shapes of the outputs."""
        owner = self._owner
        if self._binding is not None:
            owner._session.release_captured_graph(self._number)
            self._number += 1
        binding, self._binding = owner._session.io_binding(), None
        for name, feed in feeds.items():
            owner.bind(binding, name, feed)
        for name in owner._outputs:
            binding.bind_output(name, owner._device)
        self._run(_NOT_CAPTURED, binding)
        results = dict(zip(owner._outputs, binding.get_outputs(), strict=True))
        self._shapes = shapes
        self._inputs = {
            name: self._ort.OrtValue.ortvalue_from_shape_and_type(
                list(shape), owner._types[name], owner._device, 0
            )
            for name, shape in shapes.items()
        }
        self._outputs = {name: self._like(value) for name, value in results.items()}
        return {name: OnGpu(value) for name, value in results.items()}

    def _bind(self) -> None:
        self._binding = self._owner._session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def _run(self, graph: str, binding: Any = None) -> None:
        how = self._ort.RunOptions()
        how.add_run_config_entry("gpu_graph_id", graph)
        self._owner.compute(binding or self._binding, how)

    def _like(self, value: Any) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type(
            value.shape(), np.float32, self._owner._device, 0
        )

    def _copy(self, value: Any) -> Any:
        copied = self._like(value)
        copied.update_inplace(value)
        return copied
