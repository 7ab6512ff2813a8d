"""How a bundle is loaded, besides its runtime and the number of threads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgepack.machine.cpu.plan import CpuPlan
from edgepack.runtime.engines.watch import Watcher
from edgepack.runtime.gpu.placement import AS_PROMISED, Wanted


def _untold(stage: str) -> None:
    """Nobody is told that a network is in memory."""


@dataclass(frozen=True)
class LoadOptions:
    """Options of `Synthesizer.load` and `loading.load`.

    `watchers` see every call of a network. `plan` says on which CPUs it runs, in place of a number
    of threads. With `memory` "low" networks are loaded when they are needed and released after.
    With `profile` engines time their operators. `wanted` is the GPU provider to use, and whether a
    network may run elsewhere. `on_stage` is told the name of each network that is in memory.
    `batch` is an even number of utterances that are decoded in one call at most, 0 for one by one;
    with None only the sentences of a text are decoded together, where the bundle can. With
    `repacked` all weights are brought into the order in which kernels read them, which takes a
    second a gigabyte and makes decoding several utterances together more than twice as fast at
    fp32. A `batch` that is asked for has them so in any case.
    """

    watchers: Sequence[Watcher] = ()
    plan: CpuPlan | None = None
    memory: str = "all"
    profile: bool = False
    wanted: Wanted = AS_PROMISED
    on_stage: Callable[[str], None] = _untold
    batch: int | None = None
    repacked: bool = False
