"""How long the commands that people type first may take on two CPUs that do nothing else."""

from pathlib import Path

import pytest
import quiet

from headline import edgepack

pytestmark = pytest.mark.timed


def test_int8_for_one_runtime_takes_two_and_a_half_minutes_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing recorded before."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    quiet.require_quiet()
    (built,) = edgepack(
        "build", "demo", "-t", "intel-cpu", "--precision", "int8", "--format", "ort", cwd=tmp_path
    )["bundles"]
    assert sum(built["seconds"].values()) <= 150
