"""An engine that several packages have: the first of them that is installed."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from edgepack.runtime.engines import installed
from edgepack.runtime.engines.session import engine


def test_litert_comes_before_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow = ModuleType("tensorflow")
    tensorflow.__spec__ = ModuleSpec("tensorflow", None)
    vars(tensorflow)["__version__"] = "2.21.0"
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    assert engine("tflite").distribution == "ai_edge_litert"
    assert "TensorFlow" not in engine("tflite").version()
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert installed.package("tflite") == "tensorflow"
    assert engine("tflite").distribution == "tensorflow"
    assert engine("tflite").version() == "2.21.0 (TensorFlow)"
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert installed.package("tflite") == "ai_edge_litert"  # what to install
