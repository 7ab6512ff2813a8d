"""A bundle in the Python backend of NVIDIA's Triton: audio in parts, while it is made.

`edgepack export triton` copies this file; only Triton runs it.
"""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from edgepack.errors import CancelledError, EdgepackError, UsageError
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.speech import Settings
from edgepack.runtime.synthesizer import Synthesizer

_POLL_SECONDS = 0.1  # between looks whether a client has gone


class TritonPythonModel:
    """What Triton calls. Each request has a thread, and two compute threads are for one request."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle, which lies beside this file."""
        given = json.loads(args["model_config"]).get("parameters", {})
        settings = {name: value["string_value"] for name, value in given.items()}
        folder = Path(args["model_repository"], args["model_version"], "bundle")
        threads = int(settings["threads"]) if "threads" in settings else None
        self._synthesizer = Synthesizer.load(folder, settings["format"], threads)
        at_once = self._synthesizer.loaded.host.threads // 2 if self._synthesizer.concurrent else 1
        self._most = max(1, at_once)
        self._places = threading.Semaphore(self._most)

    def execute(self, requests: list[Any]) -> None:
        """Begin to speak; waits for a place, so that Triton's own queue is what is bounded."""
        for request in requests:
            sender = request.get_response_sender()
            given = (_value(request, name) for name in ("text_input", "voice", "seed"))
            self._places.acquire()
            threading.Thread(target=self._answer, args=(sender, *given)).start()

    def finalize(self) -> None:
        """Wait for what is being spoken."""
        for _ in range(self._most):
            self._places.acquire()

    def _answer(self, sender: Any, text: bytes, voice: bytes | None, seed: int | None) -> None:
        cancellation, ended = Cancellation(), threading.Event()
        threading.Thread(target=_watch, args=(sender, cancellation, ended)).start()
        try:
            settings = Settings(voice=voice.decode() if voice else None, seed=_seed(seed))
            with self._synthesizer.stream(text.decode(), settings, cancellation) as stream:
                for audio in stream:
                    sender.send(self._part(audio))
        except Exception as error:  # whoever asked is told
            sender.send(triton.InferenceResponse(error=_told(error)))
        finally:
            ended.set()
            self._places.release()
            sender.send(flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _part(self, audio: np.ndarray) -> Any:
        rate = np.array([[self._synthesizer.sample_rate]], np.int32)
        tensors = [triton.Tensor("audio", audio[None]), triton.Tensor("sample_rate", rate)]
        return triton.InferenceResponse(output_tensors=tensors)


def _value(request: Any, name: str) -> Any:
    """The one value of an input, or None if it was not given."""
    tensor = triton.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy().reshape(-1)[0]


def _seed(given: int | None) -> int:
    """A seed, 0 if none was given; raises UsageError for one that is none."""
    if given is not None and given < 0:
        raise UsageError(f"seed {given}: give 0 or more")
    return int(given or 0)


def _watch(sender: Any, cancellation: Cancellation, ended: threading.Event) -> None:
    """Cancel the synthesis when its client has gone."""
    while not ended.wait(_POLL_SECONDS):
        if sender.is_cancelled():
            cancellation.cancel()
            return


def _told(error: Exception) -> Any:
    """Triton's error for one of ours; a bug shows only its class."""
    if isinstance(error, CancelledError):
        return triton.TritonError(str(error), triton.TritonError.CANCELLED)
    if isinstance(error, UsageError | UnicodeDecodeError):
        return triton.TritonError(str(error), triton.TritonError.INVALID_ARG)
    known = isinstance(error, EdgepackError)
    message = str(error) if known else f"internal error: {type(error).__name__}"
    return triton.TritonError(message, triton.TritonError.INTERNAL)
