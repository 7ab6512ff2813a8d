"""OpenVINO on CPU, for IR (`.xml` with `.bin`) and carried-over `.onnx` files."""

import mmap
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepack.bundle.manifest import State
from edgepack.process.system import return_freed
from edgepack.runtime import cancellation
from edgepack.runtime.engines.session import Feeds, Options, Session, translated

if TYPE_CHECKING:
    import openvino

PACKAGES = ("openvino",)

_RELEASE_SECONDS = 0.2
# Shapes of which a network keeps its prepared operators. Utterances differ in length, and every
# shape that is kept keeps its buffers; docs/device.md has what that costs.
_KEPT = 16
_CORE_TYPES = {"P": "PCORE_ONLY", "E": "ECORE_ONLY", "LPE": "ECORE_ONLY"}


@dataclass
class _Network:
    """A compiled network, which several sessions share.

    `states` are its caches, and `weights` what it points into. If it is `transient` its memory is
    given back after each call. `operators` are seconds by type of operator, None if they are not
    measured. `path` is for messages.

    Calls take turns with `lock`, as they do inside OpenVINO with its one stream. `last` are the
    shapes of the inputs of the last call that came to its end.
    """

    compiled: "openvino.CompiledModel"
    states: Sequence[State]
    weights: "_Weights"
    transient: bool
    operators: Counter[str] | None
    path: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    last: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def endable(self, shapes: dict[str, tuple[int, ...]]) -> bool:
        """Whether a call may be cancelled without harm to later ones, also of other sessions.

        OpenVINO (2026.4) sets the output shapes of all operators before it computes, and notes the
        input shapes of each when it has computed it. After a cancelled call, operators that did not
        get their turn take their output to have the shape of the call before. So that has to be the
        same; caches change it with every call.
        """
        return not self.states and shapes == self.last


class _OpenVinoSession(Session):
    """A network whose caches are variables of its infer request (a stateful model)."""

    batches = True
    restorable = True

    def __init__(self, network: "_Network") -> None:
        self._network = network
        self._warm = False
        self._request = network.compiled.create_infer_request()
        # An output that is another value unchanged has several names; one of them is the graph's.
        self._outputs = [
            (o, name) for o in network.compiled.outputs for name in sorted(o.get_names())
        ]
        self._variables = {f"{s.input}{s.output}": s.output for s in network.states}
        if lacking := self._variables.keys() - {v.name for v in self._request.query_state()}:
            raise ValueError(f"there is no cache {min(lacking)}")

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        net = self._network
        shapes = {name: value.shape for name, value in feeds.items()}
        with cancellation.holding(net.lock):
            call = _Call(self._request, net.endable(shapes))
            with (
                cancellation.interruptible(call.cancel),
                translated(net.path, "OpenVINO cannot run"),
            ):
                outputs = self._run(feeds, call)
                net.last = shapes
                if net.transient:  # it can be released only while no request runs
                    net.compiled.release_memory()
                    return_freed()
                return outputs

    def _run(self, feeds: Feeds, call: "_Call") -> dict[str, np.ndarray]:
        results = call.infer(feeds)
        if not self._warm:  # networks of dynamic shape are repacked at their first call
            self._network.weights.release()
            self._warm = True
        outputs = {name: results[output] for output, name in self._outputs}
        if self._network.operators is not None:
            for layer in self._request.get_profiling_info():
                self._network.operators[layer.node_type] += layer.real_time.total_seconds()
        return outputs

    def fork(self) -> Session:
        """Another request over the same compiled network."""
        return _OpenVinoSession(self._network)

    def shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {
            value.get_any_name(): tuple(
                n.get_length() if n.is_static else None for n in value.partial_shape
            )
            for value in self._network.compiled.inputs
        }

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        import openvino

        for state in self._request.query_state():
            if output := self._variables.get(state.name):
                state.state = openvino.Tensor(np.ascontiguousarray(caches[output]))

    def reset(self) -> None:
        self._request.reset_state()

    def operators(self) -> dict[str, float]:
        return {name: s for name, s in (self._network.operators or {}).items() if s}

    def caches(self) -> dict[str, np.ndarray]:
        found = {state.name: state.state.data for state in self._request.query_state()}
        return {output: np.array(found[name]) for name, output in self._variables.items()}


class _Call:
    """One inference, which another thread may cancel at any time: also before it begins.

    If it is not `endable`, it comes to its end all the same.
    """

    def __init__(self, request: "openvino.InferRequest", endable: bool) -> None:
        self._request = request
        self._endable = endable
        self._cancelled = False

    def infer(self, feeds: Feeds) -> Any:
        """Outputs by port; RuntimeError if it was cancelled.

        It is started and waited for, as OpenVINO does not cancel `InferRequest.infer`.
        """
        self._request.start_async(dict(feeds), share_inputs=True)
        if self._cancelled:  # perhaps before it began, when there was nothing to cancel
            self._request.cancel()
        self._request.wait()
        return self._request.results

    def cancel(self) -> None:
        """End it between two operators, without waiting for that."""
        if self._endable:
            self._cancelled = True
            self._request.cancel()


@dataclass(frozen=True)
class _OpenVino:
    distribution: str = PACKAGES[0]
    batches: bool = True
    reads_onnx: bool = True

    def version(self) -> str:
        import openvino

        return str(openvino.__version__)

    def hush(self, path: Path) -> None:
        """Does nothing: OpenVINO writes nothing to stderr."""

    def open(self, path: Path, states: Sequence[State], options: Options) -> Session:
        import openvino

        core = openvino.Core()
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            "SCHEDULING_CORE_TYPE": _CORE_TYPES.get(options.kind, "ANY_CORE"),
            # The defaults are bf16 arithmetic and an 8-bit cache on CPUs that have them.
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "CPU_RUNTIME_CACHE_CAPACITY": _KEPT,
            "PERF_COUNT": options.profile,
        }
        with translated(path, "OpenVINO cannot load"):
            weights = _Weights(path.with_suffix(".bin"))
            if weights.mapping:
                model = core.read_model(path.read_text("utf-8"), weights.tensor())
            else:
                model = core.read_model(path)
            if options.taps:
                model.add_outputs(list(options.taps))
            with weights.released():
                compiled = core.compile_model(model, "CPU", settings)
            operators: Counter[str] | None = Counter() if options.profile else None
            return _OpenVinoSession(
                _Network(compiled, states, weights, options.transient, operators, path)
            )


class _Weights:
    """A memory-mapped `.bin` file, or nothing where there is none.

    OpenVINO copies most weights into a layout of its own. The pages that they were read from are
    then released, so that not both are resident. A page that is needed again is read again.
    """

    def __init__(self, path: Path) -> None:
        self.mapping: mmap.mmap | None = None
        self._bytes = np.zeros(0, np.uint8)
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                # A private map: OpenVINO asks for writable memory but does not write to it.
                self.mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._bytes = np.frombuffer(self.mapping, np.uint8)

    def tensor(self) -> "openvino.Tensor":
        """The weights without a copy; valid while this object lives."""
        import openvino

        return openvino.Tensor(self._bytes, shared_memory=True)

    def release(self) -> None:
        """Release the resident pages; does nothing on Windows, which releases them when needed."""
        if sys.platform != "win32" and self.mapping:
            self.mapping.madvise(mmap.MADV_DONTNEED)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Release pages every few tenths of a second while the block runs."""
        done = threading.Event()

        def release() -> None:
            while not done.wait(_RELEASE_SECONDS):
                self.release()

        thread = threading.Thread(target=release, name="edgepack-release", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.release()


ENGINE = _OpenVino()
