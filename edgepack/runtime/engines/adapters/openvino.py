"""OpenVINO on CPU, for IR (`.xml` with `.bin`) and carried-over `.onnx` files."""

import mmap
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepack.manifest import State
from edgepack.runtime.session import Feeds, Options, Session, translated
from edgepack.system import return_freed

if TYPE_CHECKING:
    import openvino

PACKAGES = ("openvino",)

_RELEASE_SECONDS = 0.2
# Operators prepared for shapes, by network. No utterance is as long as another, and each shape that
# is kept keeps its buffers: what this costs is in docs/device.md.
_KEPT = 16
_CORE_TYPES = {"P": "PCORE_ONLY", "E": "ECORE_ONLY", "LPE": "ECORE_ONLY"}


class _OpenVinoSession(Session):
    """Caches are variables of the infer request (a stateful model)."""

    batches = True
    restorable = True

    def __init__(
        self,
        compiled: "openvino.CompiledModel",
        states: Sequence[State],
        weights: "_Weights",
        *,
        transient: bool,
        operators: Counter[str] | None,
        lock: threading.Lock,
        path: Path,
    ) -> None:
        self._path = path
        self._operators = operators
        self._lock = lock
        self._states = states
        self._weights = weights  # what the compiled model points into
        self._warm = False
        self._compiled = compiled
        self._transient = transient
        self._request = compiled.create_infer_request()
        # A value that is handed on unchanged has several names, of which the graph's is one.
        self._outputs = [(o, name) for o in compiled.outputs for name in sorted(o.get_names())]
        self._variables = {f"{s.input}{s.output}": s.output for s in states}
        if lacking := self._variables.keys() - {v.name for v in self._request.query_state()}:
            raise ValueError(f"there is no cache {min(lacking)}")

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        with translated(self._path, "OpenVINO cannot run"):
            return self._run_released(feeds)

    def _run_released(self, feeds: Feeds) -> dict[str, np.ndarray]:
        if not self._transient:
            return self._run(feeds)
        with self._lock:  # memory is given back only while no request is under way
            outputs = self._run(feeds)
            self._compiled.release_memory()
            return_freed()
            return outputs

    def _run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        results = self._request.infer(dict(feeds), share_inputs=True)
        if not self._warm:  # networks of dynamic shape are repacked at their first call
            self._weights.release()
            self._warm = True
        outputs = {name: results[output] for output, name in self._outputs}
        if self._operators is not None:
            for layer in self._request.get_profiling_info():
                self._operators[layer.node_type] += layer.real_time.total_seconds()
        return outputs

    def fork(self) -> Session:
        """Another request over the same compiled network."""
        return _OpenVinoSession(
            self._compiled,
            self._states,
            self._weights,
            transient=self._transient,
            operators=self._operators,
            lock=self._lock,
            path=self._path,
        )

    def shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {
            value.get_any_name(): tuple(
                n.get_length() if n.is_static else None for n in value.partial_shape
            )
            for value in self._compiled.inputs
        }

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        import openvino

        for state in self._request.query_state():
            if output := self._variables.get(state.name):
                state.state = openvino.Tensor(np.ascontiguousarray(caches[output]))

    def reset(self) -> None:
        self._request.reset_state()

    def operators(self) -> dict[str, float]:
        return {name: s for name, s in (self._operators or {}).items() if s}

    def caches(self) -> dict[str, np.ndarray]:
        found = {state.name: state.state.data for state in self._request.query_state()}
        return {output: np.array(found[name]) for name, output in self._variables.items()}


@dataclass(frozen=True)
class _OpenVino:
    distribution: str = PACKAGES[0]
    batches: bool = True
    reads_onnx: bool = True

    def version(self) -> str:
        import openvino

        return str(openvino.__version__)

    def hush(self, path: Path) -> None:
        """It says nothing."""

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
            return _OpenVinoSession(
                compiled,
                states,
                weights,
                transient=options.transient,
                operators=Counter() if options.profile else None,
                lock=threading.Lock(),
                path=path,
            )


class _Weights:
    """A memory-mapped `.bin` file, or nothing where there is none.

    OpenVINO copies most weights into a layout of its own; the pages they came from are given
    back, so that both are not resident at once. A page that is needed again is read again.
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
        """Give the resident pages back; Windows has no such call and does so when it has to."""
        if sys.platform != "win32" and self.mapping:
            self.mapping.madvise(mmap.MADV_DONTNEED)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Give pages back again and again while the block runs."""
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
