"""Pinning this process to the CPUs of a plan, and reading back where its threads may run.

The mask has to be set before numpy or an engine is first imported: OpenVINO reads it once and
ignores later ones, and a thread keeps the mask that it was created with.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgepack.errors import UnsupportedError
from edgepack.machine.cpu import lists
from edgepack.machine.cpu.plan import CpuPlan
from edgepack.process import system

_MASKS_AT_IMPORT = ("numpy", "onnxruntime", "openvino", "ai_edge_litert", "tensorflow")
_PLACED = "EDGEPACK_PLACED"


@dataclass(frozen=True)
class ThreadMasks:
    """Where the threads of this process may run, as the kernel says: mask → number of threads.

    `strays` are the masks that are not within the plan.
    """

    masks: Mapping[str, int]
    strays: tuple[str, ...]

    @property
    def cpus(self) -> tuple[int, ...]:
        """Every CPU that some thread may run on."""
        return lists.parse(",".join(self.masks))


def environment(plan: CpuPlan) -> dict[str, str]:
    """Variables for libraries that count cores themselves."""
    threads = str(plan.threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    waiting = {} if plan.spin else {"OMP_WAIT_POLICY": "passive"}
    return {**dict.fromkeys(names, threads), **waiting}


def too_late() -> list[str]:
    """Packages that are already imported and would ignore a mask that is set now."""
    return [name for name in _MASKS_AT_IMPORT if name in sys.modules]


def enter(plan: CpuPlan, *, program: bool = False) -> None:
    """Set environment and mask of this process for a plan.

    If an engine is already imported, a `program` starts itself again with the new mask, once. In a
    library existing threads are moved instead; `observe` tells where they are then.
    """
    os.environ.update(environment(plan))
    if not plan.pinned:
        return
    late = too_late()
    try:
        (system.set_affinity_of_threads if late else system.set_affinity)(plan.cpus)
    except (OSError, ValueError, psutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnsupportedError(
            f"--cpus: the system refuses CPU {lists.show(plan.cpus)} ({reason}); "
            "it may have taken them from this process"
        ) from None
    if sys.platform == "linux" and late and program and not os.environ.get(_PLACED):
        os.environ[_PLACED] = "1"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 (this very program)


def observe(cpus: Iterable[int], process: Path = Path("/proc/self")) -> ThreadMasks:
    """The masks of all threads now, read from `/proc`.

    Windows has one for all threads of a process; empty where there are none (macOS).
    """
    wanted = set(cpus)
    masks: Counter[str] = Counter()
    if sys.platform != "linux" and (own := system.affinity()):
        masks[lists.show(own)] = psutil.Process().num_threads()
    for task in sorted(process.glob("task/*/status")):
        try:
            text = task.read_text("utf-8")
        except OSError:
            continue  # a thread that has just ended
        masks.update(
            line.split(":", 1)[1].strip()
            for line in text.splitlines()
            if line.startswith("Cpus_allowed_list:")
        )
    strays = tuple(mask for mask in masks if not set(lists.parse(mask)) <= wanted)
    return ThreadMasks(dict(masks), strays)
