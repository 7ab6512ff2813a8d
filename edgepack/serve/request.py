"""The body of `POST /v1/audio/speech`, checked: OpenAI's fields and a few more."""

import asyncio
import re
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request

from edgepack.runtime.speech import Settings
from edgepack.serve.options import RequestLimits
from edgepack.serve.refusal import RefusalError

_PARAM = re.compile(r"`(?:\$\.)?(\w+)[^`]*`$")
_JSON = "application/json"

ShortText = Annotated[str, Meta(min_length=1, max_length=256)]


class VoiceId(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A voice as an object, as OpenAI's clients may give it."""

    id: ShortText


class SpeechRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What is to be said, by whom and how. Fields after `stream_format` are not OpenAI's.

    Without a voice the bundle's default speaks. `stream` is whether audio is sent while it is made.
    `language` is a code that the bundle has to be built for; text in other languages is refused
    then.
    """

    model: ShortText
    input: Annotated[str, Meta(min_length=1, max_length=4096)]
    voice: ShortText | VoiceId | None = None
    instructions: Annotated[str, Meta(max_length=4096)] | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4.0)] = 1.0
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    stream: bool = True
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    solver: ShortText = "auto"
    mode: ShortText = "auto"
    language: ShortText | None = None

    def settings(self, *, strict: bool) -> Settings:
        """The settings of the synthesis."""
        return Settings(
            voice=self.voice.id if isinstance(self.voice, VoiceId) else self.voice,
            mode=self.mode,
            instruction=self.instructions or None,
            seed=self.seed,
            solver=self.solver,
            speed=self.speed,
            strict=strict,
            strict_language=self.language is not None,
        )


def parse(body: bytes) -> SpeechRequest:
    """The request in a body; raises RefusalError that names the field that is wrong."""
    try:
        return msgspec.json.decode(body, type=SpeechRequest)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusalError(
            HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}", code="invalid_json"
        ) from None


def invalid(error: msgspec.ValidationError) -> RefusalError:
    """What a client is told of a field that is not as it has to be."""
    named = _PARAM.search(str(error))
    code = "unknown_parameter" if "unknown field" in str(error) else "invalid_value"
    return RefusalError(
        HTTPStatus.BAD_REQUEST, str(error), param=named[1] if named else None, code=code
    )


async def read(request: Request, limits: RequestLimits) -> SpeechRequest:
    """Read and check a body; raises RefusalError, or ClientDisconnect if it does not come."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:  # a page of another site can send other types without being asked
        raise RefusalError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"send JSON with the header Content-Type: {_JSON}",
            code="unsupported_media_type",
        )
    try:
        async with asyncio.timeout(limits.body_seconds):
            return parse(await _bounded(request, limits.body_bytes))
    except TimeoutError:
        raise RefusalError(
            HTTPStatus.REQUEST_TIMEOUT, f"no whole body in {limits.body_seconds:g} s"
        ) from None


async def _bounded(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise RefusalError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has more than {most} bytes",
                code="body_too_large",
            )
    return bytes(body)
