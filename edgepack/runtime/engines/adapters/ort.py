"""ONNX Runtime, for `.onnx` and `.ort` files: on the CPU, or with providers of a GPU."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepack.bundle.manifest import State
from edgepack.errors import UnsupportedError
from edgepack.runtime import cancellation
from edgepack.runtime.engines.adapters._ort_gpu import OrtGpuSession, lengths, open_session
from edgepack.runtime.engines.adapters._ort_slots import USED, Slots, as_input, even
from edgepack.runtime.engines.session import Feeds, Options, Placed, Rows, Session, translated

if TYPE_CHECKING:
    import onnxruntime

PACKAGES = ("onnxruntime",)

_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
_SAME_AS_REQUESTED = 1  # the arena grows by exactly what is asked for
_ERROR_SEVERITY = 3
_FATAL_SEVERITY = 4  # lesser errors are raised as exceptions, too


class _OrtSession(Session):
    """A network whose caches are OrtValues: outputs of one call that are inputs of the next."""

    batches = True
    restorable = True
    placed = Placed("cpu", {})

    def __init__(
        self,
        session: "onnxruntime.InferenceSession",
        states: Sequence[State],
        how: "Callable[[], onnxruntime.RunOptions]",
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
        how = self._how()  # of this call alone: what ends it ends no other
        with (
            cancellation.interruptible(partial(setattr, how, "terminate", True)),
            translated(self._path, "ONNX Runtime cannot run"),
        ):
            return self._run(feeds, how)

    def _run(self, feeds: Feeds, how: "onnxruntime.RunOptions") -> dict[str, np.ndarray]:
        if not self._states:
            results = self._session.run(self._outputs, feeds, how)
            return dict(zip(self._outputs, results, strict=True))
        values = {name: as_input(feed) for name, feed in feeds.items()}
        outputs, fresh = self._answer(values | self._caches, how)
        self._caches = {s.input: fresh[s.output] for s in self._states}
        return outputs

    def _answer(
        self, values: Mapping[str, Any], how: "onnxruntime.RunOptions"
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Outputs of a call, and what it makes of the caches, by name."""
        results = self._session.run_with_ort_values(self._fetched, values, how)
        found = dict(zip(self._fetched, results, strict=True))
        return (
            {name: found[name].numpy() for name in self._outputs},
            {state.output: found[state.output] for state in self._states},
        )

    def reset(self) -> None:
        self._caches = {
            s.input: as_input(np.zeros(s.shape, self._types[s.input])) for s in self._states
        }

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        self._caches = {
            s.input: as_input(caches[s.output].astype(self._types[s.input])) for s in self._states
        }

    def fork(self) -> Session:
        """Another set of caches for the same session, which ONNX Runtime may run concurrently."""
        return _OrtSession(self._session, self._states, self._how, self._path)

    def shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return lengths(self._session)

    def types(self) -> Mapping[str, type[np.generic]]:
        return {name: known for name, known in self._types.items() if known}

    def operators(self) -> dict[str, float]:
        """Seconds by type of operator. This ends the profile, so it can be read only once."""
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


class _OrtSlotsSession(_OrtSession):
    """A decoder whose caches are memory that calls read, and that is written between them."""

    def _run(self, feeds: Feeds, how: "onnxruntime.RunOptions") -> dict[str, np.ndarray]:
        self._slots.reserve(1, 1)
        return self.call(self._slots, 1, feeds, how)

    def call(
        self, slots: Slots, rows: int, feeds: Feeds, how: "onnxruntime.RunOptions"
    ) -> dict[str, np.ndarray]:
        """Outputs for the first rows, whose caches get what is new; there may be more in feeds."""
        given = {name: as_input(feed) for name, feed in feeds.items()}
        (count,) = {len(feed) for feed in feeds.values()}
        outputs, fresh = self._answer(given | slots.inputs(count), how)
        slots.append({name: new.numpy() for name, new in fresh.items()}, rows)
        return {name: output[:rows] for name, output in outputs.items()}

    def reset(self) -> None:
        self._slots = Slots(self._states, self._types)

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        self.reset()
        self._slots.fill(0, caches)

    def fork(self) -> Session:
        return type(self)(self._session, self._states, self._how, self._path)

    def caches(self) -> dict[str, np.ndarray]:
        self._slots.reserve(1, 1)
        return self._slots.filled(0)

    def rows(self) -> Rows:
        return _OrtRows(self, Slots(self._states, self._types), self._how, self._path)


class _OrtInPlaceSession(_OrtSlotsSession):
    """A decoder whose calls write what is new into the slots themselves."""

    def call(
        self, slots: Slots, rows: int, feeds: Feeds, how: "onnxruntime.RunOptions"
    ) -> dict[str, np.ndarray]:
        """As with other slots; a call that fails leaves those that are filled as they are."""
        ((count, new),) = {feed.shape[:2] for feed in feeds.values()}
        slots.make_room(rows, new)
        binding = slots.bound(count, self._session.io_binding)
        for name, feed in {**feeds, USED: slots.used[:count]}.items():
            binding.bind_ortvalue_input(name, as_input(feed))
        for name in self._outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding, how)
        slots.advance(rows, new)
        values = binding.get_outputs_as_ortvaluevector()
        first = len(self._states)  # the caches were bound before
        return {name: values[first + n].numpy()[:rows] for n, name in enumerate(self._outputs)}


class _OrtRows(Rows):
    """Always an even number of rows for the kernels, so that each has the same bits in all."""

    def __init__(
        self,
        session: _OrtSlotsSession,
        slots: Slots,
        how: "Callable[[], onnxruntime.RunOptions]",
        path: Path,
    ) -> None:
        self._session, self._slots = session, slots
        self._how, self._path = how, path
        self._count = 0

    def join(self, caches: Mapping[str, np.ndarray]) -> None:
        self._slots.reserve(even(self._count + 1), 1)
        self._slots.fill(self._count, caches)
        self._count += 1

    def leave(self, row: int) -> None:
        self._count -= 1
        self._slots.move(self._count, row)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        lacking = even(self._count) - self._count
        padded = {
            name: np.concatenate([feed, np.zeros((lacking, *feed.shape[1:]), feed.dtype)])
            for name, feed in feeds.items()
        }
        with translated(self._path, "ONNX Runtime cannot run"):
            return self._session.call(self._slots, self._count, padded, self._how())


@cache
def _share_arena() -> None:
    """Register an arena for sessions that give memory back, one for all of them.

    It grows by exactly what is asked for, so it can give all of it back. A session's own arena
    grows by powers of two and keeps its first region, 30 MB for the estimator.
    """
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    where = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    settings = onnxruntime.OrtArenaCfg(0, _SAME_AS_REQUESTED, -1, -1)
    onnxruntime.create_and_register_allocator(where, settings)


def _affinities(options: Options) -> str:
    """One CPU for each worker thread, one fewer than the threads; CPU numbers begin at 1 here."""
    workers = [options.cpus[n % len(options.cpus)] + 1 for n in range(1, options.threads)]
    return ";".join(map(str, workers))


@dataclass(frozen=True)
class _Ort:
    distribution: str = PACKAGES[0]
    batches: bool = True
    reads_onnx: bool = True

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def hush(self, path: Path) -> None:
        """Log errors only, not warnings that cuDNN took a fallback, which the options ask for."""
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
        with translated(path, "ONNX Runtime cannot load"):
            model: str | bytes = str(path)
            if options.taps:
                model = _with_outputs(path, options.taps)
                settings.add_session_config_entry(
                    "session.model_external_initializers_file_folder_path", str(path.parent)
                )
            if on := options.accelerator:
                session = open_session(model, settings, on)
                if states and _has_slots(session):
                    raise UnsupportedError(
                        f"{path}: keeps its caches where a CPU reads them; build it for a target "
                        "with a GPU, or leave out --provider"
                    )
                return OrtGpuSession(session, states, name=path.stem, repeated=on.repeated)
            session = onnxruntime.InferenceSession(
                model, settings, providers=["CPUExecutionProvider"]
            )
            how = _shrinking if options.transient else onnxruntime.RunOptions
            return _kind(session, states)(session, states, how, path)


def _has_slots(session: "onnxruntime.InferenceSession") -> bool:
    return USED in {value.name for value in session.get_inputs()}


def _kind(session: "onnxruntime.InferenceSession", states: Sequence[State]) -> type[_OrtSession]:
    """What a network's caches ask for: outputs as long as their slots are written in place."""
    if not states or not _has_slots(session):
        return _OrtSession
    shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    in_place = all(shapes[state.input] == shapes[state.output] for state in states)
    return _OrtInPlaceSession if in_place else _OrtSlotsSession


def _shrinking() -> "onnxruntime.RunOptions":
    """How to make a call that gives its memory back."""
    import onnxruntime

    how = onnxruntime.RunOptions()
    how.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return how


def _with_outputs(path: Path, names: Sequence[str]) -> bytes:
    """The model with inner values as further outputs; needs the onnx package."""
    if path.suffix != ".onnx":
        raise UnsupportedError(f"{path}: inner values can only be read from .onnx files")
    import onnx

    model = onnx.load(path, load_external_data=False)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return bytes(model.SerializeToString())


ENGINE = _Ort()
