"""Commands with a bundle for a GPU, on a machine that has none."""

import pytest
from support import Build, Checkpoints

from cli import Cli


@pytest.mark.slow
def test_a_fallback_is_in_the_report_of_a_run(cli: Cli, bundle: Build) -> None:
    arguments = ["run", bundle("demo", "jetson-orin"), "你好。", "-o", "a.wav", "--json"]
    refused = cli(*arguments)
    assert refused.code == 3
    assert "this is no Jetson" in refused.err
    ran = cli(*arguments, "--allow-fallback")
    assert ran.code == 0
    estimator = ran.document["providers"]["stages"]["flow_estimator"]
    assert (estimator["promised"], estimator["used"]) == ("tensorrt", "cpu")
    assert any("this is no Jetson" in warning for warning in ran.document["warnings"])
    assert any("tensorrt is not in this ONNX Runtime" in w for w in ran.document["warnings"])


@pytest.mark.slow
def test_verify_on_the_cpu(cli: Cli, bundle: Build) -> None:
    ran = cli("verify", bundle("demo", "jetson-nano"), "--provider", "cpu", "--json")
    assert ran.code == 0
    providers = ran.document["runtimes"]["ort"]["providers"]
    assert {of["used"] for of in providers["stages"].values()} == {"cpu"}
    assert ran.document["runtimes"]["ort"]["exam"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "verify", "bench"])
def test_a_provider_that_is_none(cli: Cli, bundle: Build, command: str) -> None:
    text = ["你好。"] if command == "run" else []
    ran = cli(command, bundle("demo", "jetson-orin"), *text, "--provider", "gpu")
    assert ran.code == 2
    assert "gpu" in ran.err


@pytest.mark.slow
def test_a_build_says_what_its_smoke_test_was(cli: Cli, checkpoints: Checkpoints) -> None:
    ran = cli("build", checkpoints("tiny"), "--target", "jetson-nano", "-o", "b", "--json")
    assert ran.code == 0
    (built,) = ran.document["bundles"]
    assert built["smoke_test"]["provider"] == "cpu"
    assert "its GPU was not used or tested" in built["smoke_test"]["said"]


def test_a_target_with_a_gpu_is_explained(cli: Cli) -> None:
    ran = cli("targets", "jetson-orin")
    assert "tensorrt for estimator" in ran.out
    assert "JetPack 6.1: L4T 36.4, CUDA 12.6, TensorRT 10.3" in ran.out
