"""The GPU session, on the CPU as its device: binding, caches, repeated calls."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from contracts import STATES, job, totals

from edgepack.builder.backend import backend
from edgepack.bundle.manifest import State
from edgepack.bundle.stages import Use
from edgepack.errors import EdgepackError, ResourceError
from edgepack.runtime.engines.adapters._ort_gpu import OnGpu, OrtGpuSession
from edgepack.runtime.gpu.reruns import Guarded, Reruns

X = np.random.default_rng(2).normal(size=(1, 5, 2)).astype(np.float32)


def opened(path: Path, states: Sequence[State], *, repeated: bool = False) -> OrtGpuSession:
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(path), settings)
    return OrtGpuSession(session, states, name="totals", repeated=repeated, device="cpu")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return backend("ort").convert(job(totals(tmp_path), tmp_path / "out", "onnx", "fp32"))[0]


def test_it_offers_what_the_runtime_asks_for(network: Path) -> None:
    session = opened(network, STATES)
    assert session.restorable
    assert session.placed.provider == "cpu"
    assert sum(session.placed.nodes.values()) > 1


def test_caches_grow_and_are_forgotten(network: Path) -> None:
    session = opened(network, STATES)
    first = session.run({"x": X[:, :2]})["y"]
    session.run({"x": X[:, 2:]})
    np.testing.assert_array_equal(session.caches()["present"], X)
    np.testing.assert_array_equal(session.before()["present"], X[:, :2])
    session.reset()
    np.testing.assert_array_equal(session.run({"x": X[:, :2]})["y"], first)


def test_a_call_can_be_made_again_by_another(network: Path) -> None:
    one, other = opened(network, STATES), opened(network, STATES)
    one.run({"x": X[:, :2]})
    wanted = one.run({"x": X[:, 2:]})["y"]
    other.restore(one.before())
    np.testing.assert_array_equal(other.run({"x": X[:, 2:]})["y"], wanted)


def test_a_kept_output_feeds_another_call(network: Path) -> None:
    session = opened(network, STATES)
    kept = session.run_kept({"x": X}, ("y",))["y"]
    assert isinstance(kept, OnGpu)
    assert kept.shape == (1, 600)
    assert np.asarray(kept).shape == (1, 600)
    assert isinstance(session.run_kept({"x": X}, ())["y"], np.ndarray)


FAULTS = [
    ("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. "
     "Status Message: CUDNN failure 9: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0 ; expr=set()", 3, True),
    ("CUDNN_FE failure 8: HEURISTIC_QUERY_FAILED\nNo valid engine configs for ConvFwd_\n", 3, True),
    ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel for float16", 3, True),
    ("TensorRT EP failed to call nvinfer1::IExecutionContext::setInputShape() for 'x'", 3, True),
    ("bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to "
     "allocate memory for requested buffer of size 939524096", 5, False),
    ("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size)", 5, False),
    ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", 5, False),
    ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED\nNOT_SUPPORTED by what is left", 5, False),
    ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", 3, False),
    ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x", 3, False),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "refused"), FAULTS)
def test_only_what_is_refused_is_refused(
    network: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int, refused: bool
) -> None:
    """Messages of ONNX Runtime's issues; whatever is no refusal is an error, with its reason."""
    session = opened(network, STATES)

    class Failing:
        def run_with_iobinding(self, *arguments: object) -> None:
            raise RuntimeError(words)

    twins: list[OrtGpuSession] = []

    def twin() -> OrtGpuSession:
        twins.append(opened(network, STATES))
        return twins[-1]

    reruns = Reruns()
    guarded = Guarded("totals", session, twin, reruns)
    guarded.run({"x": X[:, :2]})
    broken = Failing()
    monkeypatch.setattr(broken, "io_binding", session._session.io_binding, raising=False)
    monkeypatch.setattr(session, "_session", broken)
    if refused:
        wanted = opened(network, STATES)
        wanted.run({"x": X[:, :2]})
        found = guarded.run({"x": X[:, 2:]})["y"]
        np.testing.assert_array_equal(found, wanted.run({"x": X[:, 2:]})["y"])
        assert reruns.refused == {"totals": 1}
        return
    with pytest.raises(EdgepackError, match="totals: the GPU") as caught:
        guarded.run({"x": X[:, 2:]})
    assert caught.value.exit_code == code
    assert " ".join(words.split()) in str(caught.value)
    assert not reruns.total()
    assert not twins


def test_a_memory_that_is_full_before_a_call_is_told_too(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(network, STATES)

    def full(*arguments: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(session, "bind", full)
    with pytest.raises(ResourceError, match="totals: the GPU's memory is full"):
        session.run({"x": X})


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    from edgepack.graph.net import Net

    net = Net("plain", Use(role="vocoder"))
    x = net.input("x", [1, "n", 2])
    net.output("next", net.op.Add(net.op.Mul(x, 2.0), 1.0), [1, "n", 2])
    return net.finish(()).save(tmp_path)


def test_repeated_calls_of_changing_shapes(plain: Path) -> None:
    session = opened(plain, (), repeated=True)
    for length in (3, 3, 3, 5, 5, 3, 4):
        x = X[:, :length] * length
        np.testing.assert_array_equal(session.run({"x": x})["next"], 2 * x + 1)


def test_results_of_repeated_calls_stay_and_feed_the_next(plain: Path) -> None:
    session = opened(plain, (), repeated=True)
    x = wanted = X[:, :3]
    kept = []
    for _ in range(5):
        x, wanted = session.run_kept({"x": x}, ("next",))["next"], 2 * wanted + 1
        kept.append((x, wanted))
    for found, right in kept:
        np.testing.assert_array_equal(np.asarray(found), right)
