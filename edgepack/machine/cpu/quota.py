"""How much CPU time the control groups (version 1 and 2) allow this process."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgepack.machine.cpu import lists

_V2, _V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"
_V1_ALSO = "sys/fs/cgroup/cpu,cpuacct"


def cpus(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time this process may use, 1.5 for instance; None if there is no limit.

    It is the lowest limit of the process' group and of all groups above it.
    """
    found = [*_version_2(root), *_version_1(root)]
    return min(found, default=None)


def cpuset(root: Path = Path("/")) -> tuple[int, ...] | None:
    """The CPUs of our group; None if it has no such limit."""
    for base, name, file in (
        (_V2, "", "cpuset.cpus.effective"),
        ("sys/fs/cgroup/cpuset", "cpuset", "cpuset.effective_cpus"),
    ):
        for folder in _ancestors(root, base, name):
            try:
                found = lists.parse((folder / file).read_text("ascii"))
            except (OSError, ValueError):
                continue
            if found:
                return found
    return None


def _version_2(root: Path) -> Iterator[float]:
    for folder in _ancestors(root, _V2, ""):
        try:
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            if quota != "max":
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue


def _version_1(root: Path) -> Iterator[float]:
    for base in (_V1, _V1_ALSO):
        for folder in _ancestors(root, base, "cpu"):
            try:
                quota = int((folder / "cpu.cfs_quota_us").read_text("ascii"))
                period = int((folder / "cpu.cfs_period_us").read_text("ascii"))
                if quota > 0:
                    yield quota / period
            except (OSError, ValueError, ZeroDivisionError):
                continue


def _ancestors(root: Path, base: str, controller: str) -> Iterator[Path]:
    """The folder of our group in a hierarchy, then those above it.

    In a container the path may be that of the host, and only the mount itself is there.
    """
    try:
        text = (root / "proc/self/cgroup").read_text("utf-8")
    except (OSError, UnicodeError):
        text = ""
    path = "/"
    for line in text.splitlines():
        _, names, where = line.split(":", 2)
        if controller in names.split(","):
            path = where
    pure = PurePosixPath(path)
    for part in (pure, *pure.parents):
        inside = [p for p in part.parts if p not in ("/", "..")]
        yield root.joinpath(base, *inside)
