"""The configuration of an exported model by Triton's own schema. Triton itself is not here."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from support import Build

from edgepack.bundle.bundle import open_bundle
from edgepack.export.triton import TritonOptions, export

pytestmark = pytest.mark.fleet


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`model_config.proto`, out of NVIDIA's client; with all it needs it would not install here."""
    folder = tmp_path_factory.mktemp("client")
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--target", str(folder)]
    pip = [sys.executable, "-m", "pip", "install", *options, "tritonclient>=2.73"]
    subprocess.run(pip, check=True, capture_output=True)
    file = folder / "tritonclient" / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_is_one_of_triton(schema: Any, bundle: Build, tmp_path: Path) -> None:
    demo = open_bundle(bundle("demo"))
    model = export(demo, tmp_path, TritonOptions("ort", threads=4, waiting=5))
    text = (model / "config.pbtxt").read_text("utf-8")
    config = text_format.Parse(text, schema.ModelConfig())  # raises ParseError
    assert (config.name, config.backend) == (model.name, "python")
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size == 1
    policy = config.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.timeout_action) == (5, policy.REJECT)
    kinds = {one.name: schema.DataType.Name(one.data_type) for one in config.input}
    assert kinds == {"text_input": "TYPE_STRING", "voice": "TYPE_STRING", "seed": "TYPE_INT64"}
    assert [one.name for one in config.input if not one.optional] == ["text_input"]
    kinds = {one.name: schema.DataType.Name(one.data_type) for one in config.output}
    assert kinds == {"audio": "TYPE_FP32", "sample_rate": "TYPE_INT32"}
    assert {name: one.string_value for name, one in config.parameters.items()} == {
        "format": "ort",
        "threads": "4",
    }
