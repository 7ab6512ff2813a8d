"""The ASGI app: OpenAI's speech API, the list of voices, health, metrics and a page."""

import asyncio
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgepack.errors import UsageError
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve import page
from edgepack.serve.answering import SpeechEndpoint
from edgepack.serve.keys import Guard
from edgepack.serve.metrics import CONTENT_TYPE
from edgepack.serve.models import named
from edgepack.serve.options import ServeOptions
from edgepack.serve.refusal import RefusalError, refusal_of
from edgepack.serve.service import Service
from edgepack.serve.uploads import Uploads


def app(synthesizers: Mapping[str, Synthesizer], options: ServeOptions | None = None) -> Starlette:
    """An app that speaks with loaded bundles, which clients know by the names that are given.

    It belongs to one event loop, where its `state.service` also speaks for other protocols. Raises
    UsageError if there is no bundle, or more may run at once than one of them can.
    """
    options = options or ServeOptions()
    if not synthesizers:
        raise UsageError("no bundle to serve")
    if options.running > 1 and not all(one.concurrent for one in synthesizers.values()):
        raise UsageError("a bundle on a GPU or with low memory speaks one text at a time")
    service = Service(synthesizers, options)
    pages, uploads = _Pages(service), Uploads(service)
    routes = [
        Route("/v1/audio/speech", SpeechEndpoint(service), methods=["POST"]),
        Route("/v1/audio/voices", pages.voices),
        Route("/v1/audio/voices", uploads.add, methods=["POST"]),
        Route("/v1/audio/voices/{name}", uploads.remove, methods=["DELETE"]),
        Route("/v1/audio/models", pages.named),
        Route("/v1/models", pages.models),
        Route("/v1/models/{name:path}", pages.model),
        Route("/health/live", pages.live),
        Route("/health/ready", pages.ready),
        Route("/metrics", pages.metrics),
        *page.routes(),
    ]
    made = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, keys=options.keys)],
        exception_handlers={RefusalError: _refused, HTTPException: _no_route, Exception: _bug},
    )
    made.state.service = service
    return made


class _Pages:
    """What is answered at once."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def models(self, request: Request) -> Response:
        data = [model.record for model in self._service.models.values()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        return JSONResponse(named(self._service.models, request.path_params["name"]).record)

    async def named(self, request: Request) -> Response:
        """The bundles as Open WebUI asks for them."""
        names = [{"id": name, "name": name} for name in self._service.models]
        return JSONResponse({"models": names})

    async def voices(self, request: Request) -> Response:
        """Voices of all bundles, or of the one that `?model=` names."""
        chosen = request.query_params.get("model")
        models = [named(self._service.models, chosen)] if chosen else self._service.models.values()
        lists = [await asyncio.to_thread(model.voices) for model in models]
        names = dict.fromkeys(name for one in lists for name in one)
        return JSONResponse({"voices": [{"id": name, "name": name} for name in names]})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """All bundles are loaded; a full queue is told to whom it concerns, with 429."""
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _refused(request: Request, error: Exception) -> Response:
    return refusal_of(error).response


async def _no_route(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return RefusalError(error.status_code, f"{request.url.path}: {error.detail}").response


async def _bug(request: Request, error: Exception) -> Response:
    """An answer in the usual form; the server writes the traceback to its log."""
    return refusal_of(error).response
