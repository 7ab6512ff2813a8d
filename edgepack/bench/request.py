"""What `bench` is asked to measure."""

from dataclasses import dataclass
from pathlib import Path

from edgepack.bench.worker import Spec
from edgepack.machine.cpu.plan import CpuPlan


@dataclass(frozen=True)
class MeasureRequest:
    """What to measure.

    `subjects` are bundles with a runtime. `texts` are spoken instead of the languages' sentences,
    of which there are `sentences`. `energy` is as for `edgepack run`; `baseline_seconds` of idling
    are measured before and after if there is a meter. With `long_texts` a long text is also spoken
    once, and as many are streamed. `profile` also times operators, in a process of its own.
    `provider` and `allow_fallback` are those of `runtime.gpu.placement`, `solver` is one of
    `runtime.stages.solver.NAMES`. With a `concurrency` above 1 as many callers also speak at once.
    `batch` is that of `LoadOptions`.
    """

    subjects: tuple[tuple[Path, str], ...]
    plan: CpuPlan
    texts: tuple[str, ...] = ()
    sentences: int = 8
    rounds: int = 3
    warm_up: int = 1
    voice: str | None = None
    seed: int = 0
    energy: str = "auto"
    baseline_seconds: float = 10.0
    long_texts: int = 1
    profile: bool = False
    provider: str = "auto"
    allow_fallback: bool = False
    solver: str = "auto"
    concurrency: int = 1
    batch: int | None = None

    def spec(self, folder: Path, runtime: str, *, profile: bool = False) -> Spec:
        """What a worker for one of the subjects loads."""
        return Spec(
            folder,
            runtime,
            self.voice,
            self.plan,
            self.seed,
            profile,
            self.provider,
            self.allow_fallback,
            self.solver,
            batch=self.batch,
        )
