"""`POST /v1/audio/voices` and `DELETE /v1/audio/voices/{name}`: voices made of recordings."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgepack.errors import EdgepackError
from edgepack.serve import keys
from edgepack.serve.models import ServedModel, named
from edgepack.serve.refusal import RefusalError, refusal_of
from edgepack.serve.service import Service
from edgepack.serve.uploaded import UploadedVoices
from edgepack.serve.voice_form import received


class Uploads:
    """The handlers of the two routes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._voices = {
            name: UploadedVoices(model.synthesizer) for name, model in service.models.items()
        }

    async def add(self, request: Request) -> Response:
        """Make a voice of a recording, in its turn among the texts that are spoken.

        It is finished and kept even if the client has gone.
        """
        self._require_allowed(request)
        async with received(request, self._service.options.limits) as (fields, file):
            name, of = fields.name, self._voices[self._model(fields.model).name]
            with _told():
                await asyncio.to_thread(of.require_free, name)
                async with self._service.turn():
                    warnings = await asyncio.to_thread(of.add, name, file, fields.ref_text)
        return JSONResponse({"success": True, "voice": {"name": name}, "warnings": warnings})

    async def remove(self, request: Request) -> Response:
        """Remove a voice that was uploaded."""
        self._require_allowed(request)
        name = request.path_params["name"]
        model = self._model(request.query_params.get("model"))
        with _told():
            await asyncio.to_thread(self._voices[model.name].remove, name)
        return JSONResponse({"success": True, "voice": {"name": name}})

    def _model(self, name: str | None) -> ServedModel:
        models = self._service.models
        if name is None and len(models) == 1:
            return next(iter(models.values()))
        if name is None:
            raise RefusalError(
                HTTPStatus.BAD_REQUEST,
                f"say which model it is for: {', '.join(models)}",
                param="model",
                code="invalid_value",
            )
        return named(models, name)

    def _require_allowed(self, request: Request) -> None:
        """Raise RefusalError unless uploads are on and this is a client of this server's owner.

        A web page of others can send a form unasked to a server on the reader's own machine; its
        browser says where it comes from. Without keys all clients and names are of this machine.
        """
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if not self._service.options.uploads:
            raise _forbidden("uploads of voices are off; start the server with --uploads")
        if origin is not None and origin.partition("://")[2] != host:
            raise _forbidden(f"a page of {origin} may not change the voices of this server")
        if not self._service.options.keys:
            client = request.client.host if request.client else ""
            if not (keys.is_loopback(client) and keys.is_loopback(_name(host))):
                raise _forbidden("without API keys only programs of this machine may change voices")


@contextmanager
def _told() -> Iterator[None]:
    """Turn an error of the bundle or of the disk into a RefusalError."""
    try:
        yield
    except EdgepackError as error:
        raise refusal_of(error) from error
    except OSError as error:
        message = f"the bundle cannot be changed: {error.strerror or error}"
        raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, message) from error


def _name(host: str) -> str:
    """The name or address in a header `Host`, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _forbidden(message: str) -> RefusalError:
    return RefusalError(HTTPStatus.FORBIDDEN, message, code="forbidden")
