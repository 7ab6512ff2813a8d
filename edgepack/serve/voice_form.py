"""The body of `POST /v1/audio/voices`: a form with a recording, bounded while it is read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, BinaryIO

import msgspec
from msgspec import Meta
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive

from edgepack.serve.options import RequestLimits
from edgepack.serve.refusal import RefusalError
from edgepack.serve.request import ShortText, invalid

_FORM = "multipart/form-data"
_FILE = "audio_sample"
_OTHERS = 64 * 1024  # bytes of a body beside the recording
_NO = {"false", "no", "0"}


class VoiceFields(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is said of an uploaded voice.

    `consent` says that whoever is heard agrees: true, or where that is recorded. `ref_text` is what
    is said in the recording. `model` may be left out where there is one bundle.
    """

    name: ShortText
    consent: ShortText
    ref_text: Annotated[str, Meta(min_length=1, max_length=4096)]
    model: ShortText | None = None


@asynccontextmanager
async def received(
    request: Request, limits: RequestLimits
) -> AsyncIterator[tuple[VoiceFields, BinaryIO]]:
    """The fields and the recording, which is open during the block; raises RefusalError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise RefusalError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"send a form with the header Content-Type: {_FORM}",
            code="unsupported_media_type",
        )
    receive = _counted(request.receive, limits.upload_bytes)
    bounded = Request(request.scope, receive)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            form = await bounded.form(max_files=1, max_fields=16, max_part_size=_OTHERS)
    except TimeoutError:
        raise RefusalError(
            HTTPStatus.REQUEST_TIMEOUT, f"no whole body in {limits.upload_seconds:g} s"
        ) from None
    try:
        yield _fields(form), _recording(form, limits.upload_bytes)
    finally:
        await form.close()


def _counted(receive: Receive, most: int) -> Receive:
    """`receive` that raises RefusalError once the body is larger than a recording may be."""
    left = most + _OTHERS

    async def counting() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large(most)
        return message

    return counting


def _too_large(most: int) -> RefusalError:
    return RefusalError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the recording has more than {most} bytes",
        param=_FILE,
        code="body_too_large",
    )


def _fields(form: FormData) -> VoiceFields:
    given = {name: value for name, value in form.multi_items() if name != _FILE}
    try:
        fields = msgspec.convert(given, VoiceFields)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    if fields.consent.strip().lower() in _NO:
        raise _wrong("whoever is heard in the recording has to agree", "consent")
    return fields


def _recording(form: FormData, most: int) -> BinaryIO:
    found = form.get(_FILE)
    if not isinstance(found, UploadFile):
        raise _wrong("attach a recording as a file", _FILE)
    if (found.size or 0) > most:
        raise _too_large(most)
    return found.file


def _wrong(message: str, param: str) -> RefusalError:
    return RefusalError(HTTPStatus.BAD_REQUEST, message, param=param, code="invalid_value")
