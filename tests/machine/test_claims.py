"""CPUs that processes share out among themselves."""

import gc
import subprocess
import sys
from pathlib import Path

from edgepack.machine.cpu.claims import claim

SCRIPT = """
import sys, time
from pathlib import Path
from edgepack.machine.cpu.claims import claim
found = claim(int(sys.argv[1]), range(4), Path(sys.argv[2]))
print(found and found.cpus, flush=True)
time.sleep(60)
"""


def claimant(count: int, folder: Path) -> tuple["subprocess.Popen[str]", str]:
    """A process that has claimed, and what it got."""
    command = [sys.executable, "-c", SCRIPT, str(count), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().strip()


def test_processes_get_cpus_of_their_own_in_the_order_of_preference(tmp_path: Path) -> None:
    ours = claim(1, [2, 0, 1, 3], tmp_path)
    assert ours
    assert ours.cpus == (2,)
    gc.collect()  # it is held though nobody here does
    other, got = claimant(2, tmp_path)
    try:
        assert got == "(0, 1)"
        assert claim(2, range(4), tmp_path) is None  # only 3 is free, and stays so
        last = claim(1, range(4), tmp_path)
        assert last
        assert last.cpus == (3,)
        last.release()
    finally:
        other.kill()
        other.communicate()
    ours.release()
    everything = claim(4, range(4), tmp_path)  # a process that is killed keeps none
    assert everything
    assert everything.cpus == (0, 1, 2, 3)
    everything.release()
