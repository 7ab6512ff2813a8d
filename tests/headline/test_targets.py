"""`edgepack build demo --target T` for every target, `verify` and `run` of what it gives."""

from pathlib import Path

import pytest

from edgepack.profiles import target
from headline import edgepack

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", target.names())
def test_a_target_is_built_verified_and_speaks(
    name: str, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
    profile = target.load(name)
    on_cpu = ["--provider", "cpu"] if profile.gpu else []
    (built,) = edgepack("build", "demo", "--target", name, cwd=tmp_path)["bundles"]
    folder = tmp_path / built["path"]
    assert not built["reused"]
    wanted = [r for r, options in profile.runtimes.items() if not options.on_request]
    offers = [
        offer
        for stage in built["stages"].values()
        for of_runtime in stage["runtimes"].values()
        for offer in of_runtime["offers"]
    ]
    # A recipe that an engine fails at loses, and must not do so without anybody seeing it.
    assert [o for o in offers if "cannot run it" in o["verdict"]] == []
    assert [o for o in offers if "cannot load it" in o["verdict"]] == []
    quality = built["quality"]
    if set(profile.precision.values()) != {"fp32"}:
        assert not quality["failed"]
        assert set(quality["values"]) == set(wanted)
    verified = edgepack("verify", folder, *on_cpu, cwd=tmp_path)
    assert verified["passed"] is True
    assert list(verified["runtimes"]) == wanted
    for runtime in wanted:
        spoken = edgepack(
            "run",
            folder,
            "你好，世界。",
            "--format",
            runtime,
            *on_cpu,
            "-o",
            "out.wav",
            cwd=tmp_path,
        )
        assert 0.5 < spoken["audio_seconds"] < 10
        assert (tmp_path / "out.wav").stat().st_size > 24000
    again = edgepack("build", "demo", "--target", name, cwd=tmp_path)["bundles"]
    assert again[0]["reused"] is True
