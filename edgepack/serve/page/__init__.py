"""The page at `/`, on which a text is typed and heard, from the files beside this module.

It needs nothing from elsewhere and holds no secret, so it is open to everybody; it asks for a key
where the API wants one. The files are read once: no request names a path.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).parent
_START = "index.html"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> list[Route]:
    """The page, and below `/page/` what it consists of."""
    files = {path.name: _answering(path) for path in _FOLDER.iterdir() if path.suffix in _TYPES}
    start = Route("/", files.pop(_START))
    return [start, *(Route(f"/page/{name}", answer) for name, answer in files.items())]


def _answering(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """What answers a request with a file as it is now."""
    data, kind = path.read_bytes(), _TYPES[path.suffix]

    async def answer(request: Request) -> Response:
        return Response(data, headers=_HEADERS, media_type=kind)

    return answer
