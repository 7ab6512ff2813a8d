"""Checkpoints by name, from a stand-in of both hubs on this machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hubs import COMMIT, REPOSITORY, STRAYS, StandIn, stand_in
from support import Checkpoints

from cli import Cli
from edgepack.builder.download import download
from edgepack.builder.model_hub import parse
from edgepack.builder.planning import open_source
from edgepack.bundle.bundle import open_bundle
from edgepack.report import silent

SLOW = pytest.param("modelscope", marks=pytest.mark.slow)
BY_NAME = {"huggingface": REPOSITORY, "modelscope": f"modelscope:{REPOSITORY}"}
FOR = ("-t", "intel-cpu", "--format", "ort")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def hub(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandIn]:
    """Both hubs, and empty caches of theirs."""
    for name in [*PROXIES, *map(str.upper, PROXIES), "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"]:
        monkeypatch.delenv(name, raising=False)
    found = stand_in(Path(checkpoints("tiny")))
    for name, value in {
        "HF_HOME": tmp_path / "hf",
        "HF_ENDPOINT": found.address,
        "MODELSCOPE_ENDPOINT": found.address,
        "MODELSCOPE_CACHE": tmp_path / "modelscope",
        "MODELSCOPE_HOME": tmp_path / "config",
        "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",
        "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
        "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1",
    }.items():
        monkeypatch.setenv(name, str(value))
    yield found
    found.close()


@pytest.fixture
def needed(checkpoints: Checkpoints) -> set[str]:
    return set(open_source(checkpoints("tiny")).hashes)


def snapshot(tmp_path: Path, commit: str = COMMIT) -> Path:
    models = tmp_path / "hf" / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    return models / "snapshots" / commit


@pytest.mark.slow
@pytest.mark.parametrize("name", ["huggingface", SLOW])
def test_a_bundle_is_built_by_name_of_what_is_needed(
    cli: Cli, hub: StandIn, needed: set[str], name: str
) -> None:
    built = cli("build", BY_NAME[name], *FOR)
    assert built.code == 0, built.err
    assert any("downloading" in line and "% of" in line for line in built.err.splitlines())
    assert sorted(hub.downloaded) == sorted(needed)  # each once, and none of the strays
    assert set(STRAYS) & set(hub.files) == set(STRAYS)
    bundle = open_bundle(Path("bundles/CosyVoice2-0.5B-intel-cpu"))
    revision = COMMIT if name == "huggingface" else "master"
    origin = json.loads((bundle.folder / "manifest.json").read_bytes())["origin"]
    assert origin == {"hub": name, "repository": REPOSITORY, "revision": revision}
    assert not any(path.is_symlink() for path in bundle.folder.rglob("*"))
    shown = cli("inspect", bundle.folder)
    assert f"downloaded: {name}:{REPOSITORY} at {revision}" in shown.out
    assert cli("inspect", bundle.folder, "--json").document["origin"] == origin

    # Offline what is in the cache is the same request: nothing is built or downloaded again.
    hub.close()
    again = cli("build", BY_NAME[name], *FOR, "--json")
    assert again.code == 0, again.err
    (told,) = again.document["bundles"]
    assert told["reused"]
    (warning,) = told["warnings"]
    assert warning.startswith(f"{name}:{REPOSITORY}: ")
    assert warning.endswith(f"; taken from the cache, at {revision}")


@pytest.mark.parametrize("name", ["modelscope"])
def test_a_checkpoint_is_inspected_by_name_at_a_revision(
    cli: Cli, hub: StandIn, needed: set[str], name: str
) -> None:
    told = cli("inspect", f"{BY_NAME[name]}@v2.0", "--json")
    assert told.code == 0, told.err
    assert told.document["origin"]["revision"] == "v2.0"
    assert sorted(hub.downloaded) == sorted(needed)
    del hub.asked[:]
    assert cli("inspect", f"{BY_NAME[name]}@v2.0", "--quiet") == (0, "", "")
    assert hub.downloaded == []


def test_a_proxy_is_asked(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", hub.address)
    for name, variable in (("huggingface", "HF_ENDPOINT"), ("modelscope", "MODELSCOPE_ENDPOINT")):
        monkeypatch.setenv(variable, "http://hub.invalid")  # only the proxy could know it
        reference = parse(BY_NAME[name])
        assert reference
        assert download(reference, None, silent).notes == ()
        assert hub.asked
        assert all(asked.via_proxy for asked in hub.asked)
        del hub.asked[:]


def test_without_the_library_the_extra_is_named(
    cli: Cli, hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "sitecustomize.py"
    planted.write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('huggingface_hub', 'modelscope_hub'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    for name, package in (("huggingface", "huggingface_hub"), ("modelscope", "modelscope_hub")):
        ran = cli("build", BY_NAME[name], *FOR)
        assert ran.code == 3
        assert ran.message == f"{package} is not installed; pip install 'edgepack[hub]'"


def test_an_interrupt_leaves_no_half_of_a_file(hub: StandIn, tmp_path: Path) -> None:
    """A process of its own, which is ended while a large file comes."""
    hub.slow = "llm.pt"
    command = [sys.executable, "-m", "edgepack", "inspect", REPOSITORY]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    blobs = snapshot(tmp_path).parents[1] / "blobs"
    while not list(blobs.glob("*.incomplete")) or "llm.pt" not in hub.downloaded:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.splitlines()[-1]) == (
        5,
        "edgepack: interrupted; nothing was left half-written",
    )
    assert list(blobs.glob("*.incomplete")) == []
