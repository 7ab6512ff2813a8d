"""`edgepack export triton`, and its model in a stand-in for Triton's Python backend."""

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import Build

from edgepack.bundle.bundle import open_bundle
from edgepack.cli import main
from edgepack.runtime.speech import Settings
from edgepack.runtime.synthesizer import Synthesizer

TEXT = "Good morning."
LONG = "Good morning, and how are you today? " * 40
FINAL = 1


@dataclass(frozen=True)
class Tensor:
    name: str
    value: np.ndarray

    def as_numpy(self) -> np.ndarray:
        return self.value


class TritonError(Exception):
    INTERNAL, INVALID_ARG, CANCELLED = 1, 3, 7

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class InferenceResponse:
    output_tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None


@dataclass
class Sender:
    """As Triton's: takes responses, and refuses more after the final flag."""

    responses: list[InferenceResponse] = field(default_factory=list)
    cancelled: bool = False
    final: threading.Event = field(default_factory=threading.Event)

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        assert not self.final.is_set()
        if response is not None:
            self.responses.append(response)
        if flags == FINAL:
            self.final.set()

    def is_cancelled(self) -> bool:
        return self.cancelled


class Request:
    """Inputs by name, in a batch of one as Triton gives them."""

    def __init__(self, text: bytes, **more: Any) -> None:
        values = {"text_input": np.array([[text]], object), **more}
        self.inputs = {name: Tensor(name, value) for name, value in values.items()}
        self.sender = Sender()

    def get_response_sender(self) -> Sender:
        return self.sender

    @property
    def audio(self) -> np.ndarray:
        """All of it, once the final flag has come; fails if there was an error."""
        assert self.sender.final.wait(60)
        assert not [one.error for one in self.sender.responses if one.error]
        return np.concatenate([one.output_tensors[0].value[0] for one in self.sender.responses])

    @property
    def error(self) -> TritonError:
        assert self.sender.final.wait(60)
        found = self.sender.responses[-1].error
        assert found
        return found


@pytest.fixture(scope="module")
def backend() -> Iterator[ModuleType]:
    """What Triton's stub puts into the process of a model."""
    fake: Any = ModuleType("triton_python_backend_utils")
    fake.Tensor, fake.InferenceResponse, fake.TritonError = Tensor, InferenceResponse, TritonError
    fake.TRITONSERVER_RESPONSE_COMPLETE_FINAL = FINAL
    fake.get_input_tensor_by_name = lambda request, name: request.inputs.get(name)
    sys.modules[fake.__name__] = fake
    yield fake
    del sys.modules[fake.__name__]


@pytest.fixture(scope="module")
def exported(bundle: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repository")
    words = ["--format", "ort", "--threads", "2", "--waiting", "3", "--quiet"]
    assert main(["export", "triton", str(bundle("demo")), "-o", str(repository), *words]) == 0
    (model,) = repository.iterdir()
    return model


@pytest.fixture(scope="module")
def model(exported: Path, backend: ModuleType) -> Iterator[Any]:
    """The model as Triton loads it: from the file, with the configuration as JSON."""
    spec = importlib.util.spec_from_file_location("model", exported / "1" / "model.py")
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    parameters = {"format": {"string_value": "ort"}, "threads": {"string_value": "2"}}
    config = json.dumps({"name": exported.name, "parameters": parameters})
    made.initialize(
        {"model_config": config, "model_repository": str(exported), "model_version": "1"}
    )
    yield made
    made.finalize()


def test_the_folder_is_a_model_with_its_bundle(exported: Path, bundle: Build) -> None:
    assert exported.name == Path(bundle("demo")).name
    found = {path.name for path in exported.iterdir()}
    assert found == {"config.pbtxt", "requirements.txt", "1"}
    copied = open_bundle(exported / "1" / "bundle")
    copied.check(copied.manifest.files)
    assert (exported / "requirements.txt").read_text().startswith("edgepack[ort")
    config = (exported / "config.pbtxt").read_text()
    assert f'name: "{exported.name}"' in config
    assert "max_queue_size: 3" in config
    assert 'key: "threads" value { string_value: "2" }' in config


def test_the_audio_is_that_of_a_stream(model: Any, exported: Path) -> None:
    voice = np.array([[b"espeak_female"]], object)
    request = Request(TEXT.encode(), voice=voice, seed=np.array([[7]], np.int64))
    model.execute([request])
    heard = request.audio
    ours = Synthesizer.load(exported / "1" / "bundle", "ort", 2)
    settings = Settings(voice="espeak_female", seed=7)
    with ours.stream(TEXT, settings) as stream:
        assert np.array_equal(heard, np.concatenate(list(stream)))
    rates = {int(one.output_tensors[1].value[0, 0]) for one in request.sender.responses}
    assert rates == {ours.sample_rate}
    assert {one.output_tensors[0].value.dtype for one in request.sender.responses} == {heard.dtype}
    assert heard.dtype == np.float32  # as the configuration says


def test_voice_and_seed_may_be_left_out(model: Any) -> None:
    one, other = Request(TEXT.encode()), Request(TEXT.encode(), seed=np.array([[0]], np.int64))
    model.execute([one, other])
    assert np.array_equal(one.audio, other.audio)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: Request(b""),
        lambda: Request(b"\xff\xfe"),
        lambda: Request(TEXT.encode(), voice=np.array([[b"nobody"]], object)),
        lambda: Request(TEXT.encode(), seed=np.array([[-1]], np.int64)),
    ],
    ids=["empty", "no UTF-8", "no such voice", "no such seed"],
)
def test_a_wrong_request_is_told_what_is_wrong(
    model: Any, request_of: Callable[[], Request]
) -> None:
    wrong = request_of()
    model.execute([wrong])
    assert wrong.error.code == TritonError.INVALID_ARG
    assert len(wrong.sender.responses) == 1


def test_it_stops_when_the_client_has_gone(model: Any) -> None:
    request = Request(LONG.encode())
    model.execute([request])
    while not request.sender.responses:
        time.sleep(0.01)
    request.sender.cancelled = True
    start = time.monotonic()
    assert request.error.code == TritonError.CANCELLED
    assert time.monotonic() - start < 2  # of about half a minute


def test_what_has_no_turn_stays_with_triton(model: Any) -> None:
    """Its queue is bounded; ours would not be."""
    first, second = Request(LONG.encode()), Request(TEXT.encode())
    model.execute([first])  # two threads: one text at once
    waiting = threading.Thread(target=model.execute, args=([second],))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    first.sender.cancelled = True
    waiting.join(10)
    assert not waiting.is_alive()
    assert len(second.audio) > 10_000


def test_an_export_is_replaced_and_nothing_else(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "triton", str(bundle("demo")), "-o", str(tmp_path / "models")]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    model = Path(told["output"])
    assert (told["model"], told["tried_in_triton"]) == (model.name, False)
    (model / "1" / "model.py").write_text("")
    assert main(words) == 0
    assert "not tried in Triton" in capsys.readouterr().out
    assert (model / "1" / "model.py").stat().st_size > 1000
    (model / "config.pbtxt").write_text("name: 'mine'")
    assert main(words) == 2
    assert "there is something else" in capsys.readouterr().err
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_a_runtime_that_the_bundle_lacks_is_refused(
    bundle: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "triton", str(bundle("demo")), "-o", str(tmp_path), "--format", "ortt"]
    assert main(words) == 2
    assert "unknown runtime 'ortt'; did you mean 'ort'?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
