"""The bundles that are served, under the names that clients know them by."""

import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

import edgepack
from edgepack.bundle.bundle import MANIFEST, open_bundle
from edgepack.errors import UnsupportedError, UsageError
from edgepack.runtime.engines.session import engine
from edgepack.runtime.speech import Settings, mode_of
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve import encoding
from edgepack.serve.refusal import RefusalError
from edgepack.serve.request import SpeechRequest

_KEYS = 1  # version of what the key of an utterance is made of


@dataclass(frozen=True)
class ServedModel:
    """A loaded bundle with the name, formats and time that clients are told.

    `digest` is of all that decides the audio besides the request and the voice.
    """

    name: str
    synthesizer: Synthesizer
    formats: list[str]
    created: int
    digest: bytes

    @staticmethod
    def of(name: str, synthesizer: Synthesizer) -> "ServedModel":
        """What is told of a synthesizer."""
        folder = synthesizer.loaded.bundle.folder
        return ServedModel(
            name,
            synthesizer,
            encoding.supported(synthesizer.sample_rate),
            int((folder / MANIFEST).stat().st_mtime),
            _digest(synthesizer),
        )

    @property
    def record(self) -> dict[str, Any]:
        """The model as OpenAI's API lists it, and the sample rate of its audio."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "edgepack",
            "sample_rate": self.synthesizer.sample_rate,
        }

    def voices(self) -> list[str]:
        """Names of the voices in the bundle as it is on the disk now, the default first."""
        manifest = open_bundle(self.synthesizer.loaded.bundle.folder).manifest
        return sorted(manifest.voices, key=lambda name: (name != manifest.default_voice, name))

    def key(self, asked: SpeechRequest, settings: Settings, *, whole: bool) -> str:
        """The name of an utterance among all that are kept; raises RefusalError if it cannot be.

        It is made of everything that decides the samples. The voice counts by its content.
        """
        loaded = self.synthesizer.loaded
        self._require_format(asked.response_format)
        self._require_language(asked.language)
        with _about("voice"):
            name, voice = loaded.voices.read(settings.voice)
        with _about("mode"):
            mode = mode_of(name, voice, settings)
        with _about("solver"):
            loaded.solver(settings.solver, settings.steps)
        parts = [
            _KEYS,
            self.digest,
            voice.digest,
            asked.input,
            mode,
            settings.instruction,
            settings.seed,
            settings.solver,
            settings.speed,
            settings.strict,
            settings.strict_language,
            whole,
        ]
        return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()

    def _require_format(self, kind: str) -> None:
        if kind in self.formats:
            return
        try:
            encoding.require(kind, self.synthesizer.sample_rate)
        except UnsupportedError as error:
            raise RefusalError(
                HTTPStatus.BAD_REQUEST,
                f"{error}; or ask for {', '.join(self.formats)}",
                param="response_format",
                code="unsupported_format",
            ) from None

    def _require_language(self, code: str | None) -> None:
        manifest = self.synthesizer.loaded.bundle.manifest
        if code is not None and code not in manifest.languages:
            raise RefusalError(
                HTTPStatus.BAD_REQUEST,
                f"{self.name} does not speak {code!r}, but {', '.join(manifest.languages)}",
                param="language",
                code="unsupported_language",
            )


@contextmanager
def _about(param: str) -> Iterator[None]:
    """Turn a UsageError of the block into a RefusalError about a field of the body."""
    try:
        yield
    except UsageError as error:
        raise RefusalError(
            HTTPStatus.BAD_REQUEST, str(error), param=param, code="invalid_value"
        ) from None


def named(models: Mapping[str, ServedModel], name: str) -> ServedModel:
    """The model of a name; raises RefusalError for others."""
    if found := models.get(name):
        return found
    raise RefusalError(
        HTTPStatus.NOT_FOUND,
        f"no model {name!r} here; there is {', '.join(models)}",
        param="model",
        code="model_not_found",
    )


def _digest(synthesizer: Synthesizer) -> bytes:
    """A hash of the bundle without its voices, its engines, this version, the kind of machine."""
    bundle, host = synthesizer.loaded.bundle, synthesizer.loaded.host
    own = set(bundle.manifest.voices.values())
    files = {name: stored for name, stored in bundle.manifest.files.items() if name not in own}
    without = msgspec.structs.replace(bundle.manifest, voices={}, default_voice="", files=files)
    parts = [
        msgspec.json.encode(without),
        [f"{name} {engine(name).version()}" for name in bundle.engines(host.runtime)],
        edgepack.__version__,
        host.threads,
        synthesizer.loaded.batching.words,
        platform.machine(),
    ]
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()
