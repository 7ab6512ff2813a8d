"""ONNX Runtime, for `.onnx` and `.ort` files: on the CPU, or with providers of a GPU."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepack.errors import UnsupportedError
from edgepack.manifest import State
from edgepack.runtime.session import Feeds, Options, Placed, Session, translated
from edgepack.runtime.sessions._ort_gpu import OrtGpuSession, lengths, open_session

if TYPE_CHECKING:
    import onnxruntime

PACKAGES = ("onnxruntime",)

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_SAME_AS_REQUESTED = 1  # how an arena grows
_ERROR_SEVERITY = 3
_FATAL_SEVERITY = 4  # what is less is an exception too, and says it in one line


class _OrtSession(Session):
    """Caches are OrtValues that go from the outputs of one call to the inputs of the next."""

    batches = True
    restorable = True
    placed = Placed("cpu", {})

    def __init__(
        self,
        session: "onnxruntime.InferenceSession",
        states: Sequence[State],
        how: "onnxruntime.RunOptions",
        path: Path,
    ) -> None:
        self._session = session
        self._path = path
        self._how = how
        self._states = states
        cached = {state.output for state in states}
        self._outputs = [o.name for o in session.get_outputs() if o.name not in cached]
        self._fetched = [*self._outputs, *(state.output for state in states)]
        self._types = {value.name: _TYPES.get(value.type) for value in session.get_inputs()}
        self._caches: dict[str, Any] = {}
        self.reset()

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        with translated(self._path, "ONNX Runtime cannot run"):
            return self._run(feeds)

    def _run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        if not self._states:
            results = self._session.run(self._outputs, feeds, self._how)
            return dict(zip(self._outputs, results, strict=True))
        values = {name: _value(feed) for name, feed in feeds.items()}
        results = self._session.run_with_ort_values(self._fetched, values | self._caches, self._how)
        outputs = results[: len(self._outputs)]
        fresh = results[len(self._outputs) :]
        self._caches = {s.input: value for s, value in zip(self._states, fresh, strict=True)}
        return {name: v.numpy() for name, v in zip(self._outputs, outputs, strict=True)}

    def reset(self) -> None:
        self._caches = {
            s.input: _value(np.zeros(s.shape, self._types[s.input])) for s in self._states
        }

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        self._caches = {
            s.input: _value(caches[s.output].astype(self._types[s.input])) for s in self._states
        }

    def fork(self) -> Session:
        """ONNX Runtime may run a session several times at once; only the caches are ours."""
        return _OrtSession(self._session, self._states, self._how, self._path)

    def shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return lengths(self._session)

    def operators(self) -> dict[str, float]:
        """Ends the profile, which can be read once."""
        seconds: Counter[str] = Counter()
        path = Path(self._session.end_profiling())
        for event in json.loads(path.read_text("utf-8")):
            name = event.get("args", {}).get("op_name")
            if event.get("cat") == "Node" and name and event["name"].endswith("_kernel_time"):
                seconds[name] += event["dur"] / 1e6
        path.unlink()
        return dict(seconds)

    def caches(self) -> dict[str, np.ndarray]:
        return {s.output: self._caches[s.input].numpy() for s in self._states}


@cache
def _share_arena() -> None:
    """Register an arena for sessions that give memory back, one for all of them.

    It grows by what is asked for, and so gives all of it back: a session's own arena grows by
    powers of two and keeps its first region, 30 MB for the estimator.
    """
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    where = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    settings = onnxruntime.OrtArenaCfg(0, _SAME_AS_REQUESTED, -1, -1)
    onnxruntime.create_and_register_allocator(where, settings)


def _affinities(options: Options) -> str:
    """A group for each worker, which are one fewer than the threads; CPUs count from 1."""
    workers = [options.cpus[n % len(options.cpus)] + 1 for n in range(1, options.threads)]
    return ";".join(map(str, workers))


def _value(array: np.ndarray) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


@dataclass(frozen=True)
class _Ort:
    distribution: str = PACKAGES[0]
    batches: bool = True
    reads_onnx: bool = True

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def hush(self, path: Path) -> None:
        """Errors only: not that each convolution is one of cuDNN's fallbacks, as was asked for."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(_ERROR_SEVERITY)

    def open(self, path: Path, states: Sequence[State], options: Options) -> Session:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        if options.profile:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(tempfile.gettempdir(), f"edgepack-{path.stem}"))
        settings.log_severity_level = _FATAL_SEVERITY
        entries = {"session.intra_op.allow_spinning": str(int(options.spin))}
        if options.cpus and options.threads > 1:
            entries["session.intra_op_thread_affinities"] = _affinities(options)
        if options.transient and not options.accelerator:
            _share_arena()
            entries["session.use_env_allocators"] = "1"
        if options.mapped:
            entries["session.disable_prepacking"] = "1"
        if path.suffix == ".ort":
            entries["session.use_memory_mapped_ort_model"] = "1"
        for key, value in entries.items():
            settings.add_session_config_entry(key, value)
        how = onnxruntime.RunOptions()
        if options.transient and not options.accelerator:
            how.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with translated(path, "ONNX Runtime cannot load"):
            model: str | bytes = str(path)
            if options.taps:
                model = _with_outputs(path, options.taps)
                settings.add_session_config_entry(
                    "session.model_external_initializers_file_folder_path", str(path.parent)
                )
            if on := options.accelerator:
                session = open_session(model, settings, on)
                return OrtGpuSession(session, states, how, name=path.stem, repeated=on.repeated)
            session = onnxruntime.InferenceSession(
                model, settings, providers=["CPUExecutionProvider"]
            )
            return _OrtSession(session, states, how, path)


def _with_outputs(path: Path, names: Sequence[str]) -> bytes:
    """The model with inner values as further outputs; needs the onnx package."""
    if path.suffix != ".onnx":
        raise UnsupportedError(f"{path}: inner values can only be read from .onnx files")
    import onnx

    model = onnx.load(path, load_external_data=False)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return bytes(model.SerializeToString())


ENGINE = _Ort()
