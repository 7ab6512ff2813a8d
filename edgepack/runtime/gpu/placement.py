"""On which execution provider of ONNX Runtime each network runs: TensorRT, CUDA or the CPU.

A bundle for a GPU promises a provider for each network. If another one is used, that is an error
unless it is allowed; it is reported in any case.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgepack import discovery
from edgepack.bundle.bundle import Bundle
from edgepack.errors import UnsupportedError, UsageError
from edgepack.machine import gpu_stack as stacks
from edgepack.machine.gpu_stack import Stack
from edgepack.machine.probe import Machine
from edgepack.report import Step, silent
from edgepack.runtime.engines.session import Accelerator, Placed, engine
from edgepack.runtime.gpu import description, engine_cache
from edgepack.runtime.gpu.description import CACHE, Description
from edgepack.runtime.gpu.reruns import Reruns

AUTO, CPU = "auto", "cpu"
ORDER = ("tensorrt", "cuda", CPU)
RUNTIME = "ort"
# For a bundle that was not built for a GPU.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}


@dataclass(frozen=True)
class Wanted:
    """What the user asked for: a provider by name, or auto for those that the bundle promises.

    `announce` gets messages about steps that take long.
    """

    provider: str = AUTO
    allow_fallback: bool = False
    announce: Step = silent


AS_PROMISED, ON_CPU = Wanted(), Wanted(CPU)


@dataclass(frozen=True)
class Placement:
    """Where networks should run and, once they are loaded, where they do run."""

    wanted: Wanted
    promises: Description | None
    stack: Stack
    available: Collection[str]
    used: dict[str, Placed] = field(default_factory=dict)
    reruns: Reruns = field(default_factory=Reruns)
    fallbacks: dict[str, list[str]] = field(default_factory=dict)  # stages by reason

    def provider(self, stage: str) -> str:
        """The provider a network should run on."""
        if self.wanted.provider != AUTO:
            return self.wanted.provider
        on_gpu = self.promises.stages.get(stage) if self.promises else None
        return on_gpu.provider if on_gpu else CPU

    @property
    def accelerated(self) -> bool:
        """Whether any network should run on a GPU."""
        if self.wanted.provider != AUTO:
            return self.wanted.provider != CPU
        return self.promises is not None

    def require_fit(self) -> None:
        """Raise UnsupportedError if the device's software does not fit, unless that is allowed."""
        if self.promises:
            wanted = self.promises.releases, self.promises.architecture
            for problem in stacks.problems(self.stack, *wanted):
                self._fell_back(problem)

    def accelerator(self, stage: str) -> Accelerator | None:
        """The wanted provider of a network and those for operators it lacks; None for the CPU.

        Raises UnsupportedError if ONNX Runtime has no such provider and no other is allowed.
        """
        first = self.provider(stage)
        if first == CPU:
            return None
        if first not in self.available:
            self._fell_back(
                f"{first} is not in this ONNX Runtime {self.stack.onnxruntime}, which has "
                f"{', '.join(self.available)}; install onnxruntime-gpu, for a Jetson one built for "
                "its JetPack",
                stage,
            )
        names = [n for n in ORDER[ORDER.index(first) :] if n in self.available and n != CPU]
        if not names:
            return None
        return Accelerator(tuple((name, self._options(stage, name)) for name in names))

    def settle(self, stage: str, placed: Placed) -> None:
        """Record where a loaded network runs; raises UnsupportedError if not where promised."""
        self.used[stage] = placed
        wanted = self.provider(stage)
        known = any(stage in stages for stages in self.fallbacks.values())
        if placed.provider != wanted and not known:
            nodes = ", ".join(f"{count} on {name}" for name, count in placed.nodes.items())
            self._fell_back(
                f"{wanted} was not used but {placed.provider}"
                f"{f' (operators: {nodes})' if nodes else ''}; its libraries are missing or do not "
                "take this network",
                stage,
            )

    def record(self) -> dict[str, Any]:
        """The placement for the JSON documents of commands."""
        return {
            "stages": {
                stage: {
                    "promised": self._promised(stage),
                    "used": placed.provider,
                    "operators": dict(placed.nodes),
                }
                for stage, placed in self.used.items()
            },
            "fp32_reruns": {
                "not_finite": dict(self.reruns.not_finite),
                "refused": dict(self.reruns.refused),
            },
            "warnings": self.warnings(),
        }

    def warnings(self) -> list[str]:
        """What a user should know: fallbacks, repeated calls, and a run on the CPU."""
        found = []
        for reason, stages in self.fallbacks.items():
            networks = f"{', '.join(stages)}: " if stages else ""
            found.append(f"fallback: {networks}{reason}")
        if self.promises and self.wanted.provider == CPU:
            found.append("a bundle for a GPU on the CPU, as asked for: a smoke test, slow")
        for counts, problem in (
            (self.reruns.not_finite, "not finite in fp16"),
            (self.reruns.refused, "refused in fp16 by the GPU's libraries"),
        ):
            found += [
                f"{stage}: {count} calls were {problem} and were repeated in fp32"
                for stage, count in counts.items()
            ]
        return found

    def _promised(self, stage: str) -> str:
        on_gpu = self.promises.stages.get(stage) if self.promises else None
        return on_gpu.provider if on_gpu else CPU

    def _fell_back(self, reason: str, stage: str = "") -> None:
        """Record that a stage, or all, are not as promised; an UnsupportedError unless allowed."""
        if not self.wanted.allow_fallback:
            where = f"{stage}: " if stage else ""
            raise UnsupportedError(f"{where}{reason}; or give --allow-fallback or --provider cpu")
        self.fallbacks.setdefault(reason, []).extend([stage] if stage else [])

    def _options(self, stage: str, provider: str) -> Mapping[str, str]:
        """A provider's options for a network, with this device's folder for its engines."""
        on_gpu = self.promises.stages.get(stage) if self.promises else None
        if on_gpu is None:
            return _CUDA_OPTIONS if provider == "cuda" else {}
        options = on_gpu.options.get(provider, {})
        if not any(CACHE in value for value in options.values()):
            return options
        engines = engine_cache.folder(on_gpu.model, options, self.stack)
        if not engines.is_dir() or not any(engines.iterdir()):
            self.wanted.announce(f"{stage}: building a TensorRT engine, minutes, but only once")
        engines.mkdir(parents=True, exist_ok=True)
        return {name: value.replace(CACHE, str(engines)) for name, value in options.items()}


def place(
    bundle: Bundle, runtime: str, wanted: Wanted, machine: Machine | None = None
) -> Placement:
    """Where the networks of a bundle are to run on this machine.

    Raises UsageError for a provider that is none, UnsupportedError for a device whose software
    does not fit the bundle, unless a fallback is allowed.
    """
    if wanted.provider not in (AUTO, *ORDER):
        raise UsageError(discovery.unknown("provider", wanted.provider, [AUTO, *ORDER]))
    promises = description.read(bundle) if runtime == RUNTIME else None
    if runtime != RUNTIME or (wanted.provider == CPU or (wanted.provider == AUTO and not promises)):
        if wanted.provider not in (AUTO, CPU):
            raise UsageError(f"{runtime} computes on the CPU; --provider is for {RUNTIME}")
        return Placement(wanted, promises, Stack(), [CPU])
    engine(RUNTIME)
    import onnxruntime

    here = stacks.read(machine or Machine(), str(onnxruntime.__version__))
    made = Placement(wanted, promises, here, available())
    made.require_fit()
    return made


def available() -> list[str]:
    """The providers that this ONNX Runtime was built with, by edgepack's names, in order."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    known = {name.removesuffix("ExecutionProvider").lower() for name in providers}
    return [name for name in ORDER if name in known]
