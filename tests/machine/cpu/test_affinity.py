"""Where threads really run, read from /proc while all engines speak."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import grow

from edgepack.machine.cpu import affinity
from edgepack.machine.cpu.plan import CpuPlan, Wish, current

CPUS = sorted(os.sched_getaffinity(0))
needs_two = pytest.mark.skipif(len(CPUS) < 2, reason="has one CPU")

# The program itself looks at its threads at every call of a network, in the middle of the work.
WATCHING = """
import os, pathlib, sys
{before}
from edgepack.__main__ import entry
from edgepack.runtime.engines import watch
seen = set()
inner = watch.Watched.run
def run(self, feeds):
    outputs = inner(self, feeds)
    for task in pathlib.Path("/proc/self/task").iterdir():
        seen.add(tuple(sorted(os.sched_getaffinity(int(task.name)))))
        seen.add(int((task / "stat").read_text().rsplit(")", 1)[1].split()[36]))
    return outputs
watch.Watched.run = run
try:
    entry()
finally:
    print("SEEN", sorted(map(str, seen)), file=sys.stderr)
"""


def spoken(bundle: Path, folder: Path, *options: str, before: str = "") -> tuple[dict, str]:  # type: ignore[type-arg]
    """The JSON record of a run in a process of its own, and what it saw of its threads."""
    command = [sys.executable, "-c", WATCHING.format(before=before), "run", str(bundle)]
    command += ["Good morning.", "-o", str(folder / "x.wav"), "--json", *options]
    environment = {k: v for k, v in os.environ.items() if k != "EDGEPACK_PLACED"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout), done.stderr.split("SEEN ")[1].strip()


@needs_two
@pytest.mark.parametrize("runtime", ["ort", "openvino", "tflite"])
@pytest.mark.parametrize("cpu", CPUS[:2])
def test_every_thread_is_on_the_cpu_that_was_asked_for(
    bundle: Callable[..., Path], tmp_path: Path, runtime: str, cpu: int
) -> None:
    record, seen = spoken(
        bundle("demo"), tmp_path, "--format", runtime, "--cpus", str(cpu), "--threads", "1"
    )
    assert record["cpus"] == [cpu]
    assert list(record["pinning"]["observed"]) == [str(cpu)]
    assert record["threads"] == 1
    assert seen == str(sorted([f"({cpu},)", str(cpu)]))
    assert not [w for w in record["warnings"] if "outside of the plan" in w]


@needs_two
def test_a_program_that_has_numpy_already_starts_again_in_the_mask(
    bundle: Callable[..., Path], tmp_path: Path
) -> None:
    record, seen = spoken(
        bundle("demo"), tmp_path, "--cpus", str(CPUS[-1]), before="import numpy, onnxruntime"
    )
    assert record["cpus"] == [CPUS[-1]]
    assert seen == str(sorted([f"({CPUS[-1]},)", str(CPUS[-1])]))


def test_without_a_wish_nothing_is_pinned(bundle: Callable[..., Path], tmp_path: Path) -> None:
    record, _ = spoken(bundle("demo"), tmp_path)
    assert record["cpus"] == sorted(os.sched_getaffinity(0))
    assert record["pinning"]["pinned"] is False


def test_libraries_are_told_the_number_of_threads() -> None:
    found = affinity.environment(CpuPlan((0, 1), 2))
    assert found["OMP_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "2"
    assert found["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_WAIT_POLICY" not in affinity.environment(CpuPlan((0,), 1, spin=True))


def test_threads_elsewhere_are_told(tmp_path: Path) -> None:
    status = "task/{}/status"
    root = grow(
        tmp_path,
        {
            status.format(1): "Name:\tx\nCpus_allowed_list:\t2-3",
            status.format(2): "Name:\tx\nCpus_allowed_list:\t2-3",
            status.format(3): "Name:\tx\nCpus_allowed_list:\t0-7",
        },
    )
    found = affinity.observe((2, 3), root)
    assert found.masks == {"2-3": 2, "0-7": 1}
    assert found.strays == ("0-7",)
    assert found.cpus == tuple(range(8))


def test_current_plan_is_of_this_process() -> None:
    assert set(current().cpus) == os.sched_getaffinity(0)
    assert current(Wish(threads=3)).threads == 3
