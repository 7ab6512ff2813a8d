"""Limits of control groups, versions 1 and 2."""

from pathlib import Path

import pytest
from trees import grow

from edgepack.machine.cpu import quota

V2 = "sys/fs/cgroup"


def test_the_tightest_limit_of_all_ancestors(tmp_path: Path) -> None:
    root = grow(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/box.service",
            f"{V2}/system.slice/cpu.max": "150000 100000",
            f"{V2}/system.slice/box.service/cpu.max": "200000 100000",
        },
    )
    assert quota.cpus(root) == 1.5


@pytest.mark.parametrize("text", ["max 100000", "", "5 0", "x y"])
def test_no_limit(tmp_path: Path, text: str) -> None:
    root = grow(tmp_path, {"proc/self/cgroup": "0::/", f"{V2}/cpu.max": text})
    assert quota.cpus(root) is None


@pytest.mark.parametrize(("limit", "cpus"), [(-1, None), (50_000, 0.5), (300_000, 3.0)])
@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_version_1(tmp_path: Path, folder: str, limit: int, cpus: float | None) -> None:
    root = grow(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n0::/",
            f"{V2}/{folder}/docker/abc/cpu.cfs_quota_us": limit,
            f"{V2}/{folder}/docker/abc/cpu.cfs_period_us": 100_000,
        },
    )
    assert quota.cpus(root) == cpus


def test_a_machine_without_groups(tmp_path: Path) -> None:
    assert quota.cpus(tmp_path) is None
    assert quota.cpuset(tmp_path) is None


def test_cpuset(tmp_path: Path) -> None:
    root = grow(tmp_path, {"proc/self/cgroup": "0::/a", f"{V2}/a/cpuset.cpus.effective": "0-1,4"})
    assert quota.cpuset(root) == (0, 1, 4)


def test_the_path_in_a_container_may_be_the_hosts(tmp_path: Path) -> None:
    root = grow(
        tmp_path, {"proc/self/cgroup": "0::/kubepods/pod1", f"{V2}/cpu.max": "50000 100000"}
    )
    assert quota.cpus(root) == 0.5
