"""`edgepack serve --ray` before there is a cluster, and what deploy/ray has for one."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import Build

from edgepack.cli import main
from edgepack.errors import UsageError
from edgepack.serve import ray_cluster
from edgepack.serve.options import ServeOptions
from edgepack.serve.ray_cluster import FleetOptions, application

DEPLOY = Path(__file__).parents[2] / "deploy" / "ray"
SERVE = yaml.safe_load((DEPLOY / "serve.yaml").read_text("utf-8"))
KUBERAY = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text("utf-8"))


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is installed; what it would read is put back afterwards."""
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ray-address", "head:6379"], "--ray-address goes with --ray"),
        (["--replicas", "2"], "--replicas goes with --ray"),
        (["--ray", "--cpus", "0"], "--cpus goes without --ray"),
        (["--ray", "--uploads"], "--uploads goes without --ray"),
        (["--ray", "--energy", "model"], "--energy goes without --ray"),
        (["--ray", "--wyoming", "tcp://127.0.0.1:0"], "--wyoming goes without --ray"),
        (["--ray", "--port", "0"], "--port 0: with --ray it is the same on every machine"),
        (["--ray", "--host", "0.0.0.0"], "give --key-file"),
        (["--ray", "--replicas", "3:2"], "--replicas 3:2: give a number"),
        (["--ray", "--replicas", "0"], "--replicas 0: give a number"),
        (["--ray", "--replicas", "some"], "--replicas some: give a number"),
        (["--ray", "--key-file", "nowhere"], "nowhere: No such file"),
    ],
)
def test_wrong_options_are_refused(
    bundle: Build, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["serve", str(bundle("demo")), *words]) == 2
    assert said in capsys.readouterr().err


def test_it_says_what_is_missing(bundle: Build, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(bundle("demo")), "--ray", "--json"]) == 3
    captured = capsys.readouterr()
    assert "ray is not installed; pip install 'edgepack[ray]'" in captured.err
    assert json.loads(captured.out)["error"]["exit_code"] == 3


def converted(arguments: Any, monkeypatch: pytest.MonkeyPatch) -> FleetOptions:
    """What a configuration's arguments are to `application`."""
    found: list[FleetOptions] = []
    monkeypatch.setattr(ray_cluster, "_application", found.append)
    application(arguments)
    return found[0]


def test_the_configuration_is_of_options_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    (app,) = SERVE["applications"]
    module, _, name = app["import_path"].partition(":")
    assert getattr(sys.modules[module], name) is application
    options = converted(app["args"], monkeypatch)
    assert options.serve == ServeOptions(running=2, waiting=8, cache_bytes=64_000_000)
    assert (options.threads, options.min_replicas, options.max_replicas) == (4, 1, 8)
    cache = converted({"bundles": ["a"], "serve": {"cache_folder": "/cache"}}, monkeypatch)
    assert cache.serve.cache_folder == Path("/cache")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "args: Object missing required field `bundles`"),
        ({"bundles": ["a"], "thread": 2}, "unknown field `thread`"),
        ({"bundles": ["a"], "serve": {"running": "two"}}, "`$.serve.running`"),
    ],
)
def test_wrong_arguments_of_a_configuration_are_refused(
    arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        application(arguments)


def test_impossible_arguments_are_refused() -> None:
    """Keys among them: what replicas are told is kept by the cluster."""
    with pytest.raises(UsageError, match="give a key_file"):
        application({"bundles": ["a"], "serve": {"keys": ["c2VjcmV0"]}})
    with pytest.raises(UsageError, match="2 bundles are in folders called a"):
        application({"bundles": ["1/a", "2/a"]})
    with pytest.raises(UsageError, match="3 to 2 replicas"):
        application({"bundles": ["a"], "min_replicas": 3, "max_replicas": 2})


def test_kuberay_deploys_the_same() -> None:
    """By the keys of KubeRay's reference; it was not run."""
    assert (KUBERAY["apiVersion"], KUBERAY["kind"]) == ("ray.io/v1", "RayService")
    assert yaml.safe_load(KUBERAY["spec"]["serveConfigV2"]) == SERVE
    cluster = KUBERAY["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    version = re.findall(r"^ARG RAY=(.+)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)
    assert version == [cluster["rayVersion"]]
    (app,) = SERVE["applications"]
    (workers,) = cluster["workerGroupSpecs"]
    spec = workers["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["cpu"] == str(app["args"]["threads"])
    assert spec["terminationGracePeriodSeconds"] > app["args"]["drain_seconds"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for path in [*app["args"]["bundles"], app["args"]["key_file"]]:
        assert str(Path(path).parent) in mounts
    assert (workers["minReplicas"], workers["maxReplicas"]) == (
        app["args"]["min_replicas"],
        app["args"]["max_replicas"],
    )
