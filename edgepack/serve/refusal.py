"""Errors as OpenAI's API reports them: a status, and an object with message, type, param, code."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from edgepack.errors import EdgepackError, GateError, ResourceError, UsageError

_KINDS = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_SERVERS = 500  # statuses from here on are faults of the server


class RefusalError(Exception):
    """A request that is not answered with audio.

    `param` is the field of the body that is wrong, `code` a word for programs. With `retry_after`,
    in whole seconds, a client may ask again after that time.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.retry_after = retry_after

    def again(self) -> "RefusalError":
        """The same for another request: one exception cannot be raised in several."""
        return RefusalError(
            self.status,
            str(self),
            param=self.param,
            code=self.code,
            retry_after=self.retry_after,
        )

    @property
    def outcome(self) -> str:
        """What it is in the metrics of requests."""
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return "busy"
        return "failed" if self.status >= _SERVERS else "refused"

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        usual = "server_error" if self.status >= _SERVERS else "invalid_request_error"
        kind = _KINDS.get(HTTPStatus(self.status), usual)
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def response(self) -> JSONResponse:
        """The whole answer."""
        headers: Mapping[str, str] = {}
        if self.retry_after is not None:
            headers = {"Retry-After": str(self.retry_after)}
        elif self.status == HTTPStatus.UNAUTHORIZED:
            headers = {"WWW-Authenticate": "Bearer"}
        return JSONResponse(self.body, self.status, headers)


def refusal_of(error: BaseException) -> RefusalError:
    """What a client is told of an error of the synthesis; a bug shows only its class."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, UsageError):
        return RefusalError(HTTPStatus.BAD_REQUEST, str(error), code=error.kind)
    if isinstance(error, GateError):
        message = f"the audio has a fault: {error}"
        return RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="faulty_audio")
    if isinstance(error, ResourceError):
        return RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), code=error.kind)
    if isinstance(error, EdgepackError):
        return RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error), code=error.kind)
    message = f"internal error: {type(error).__name__}"
    return RefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="internal")
