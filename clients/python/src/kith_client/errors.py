"""What can go wrong. Every refusal of the server carries its `code`, `param` and `message`."""

from __future__ import annotations


class KithError(Exception):
    """The base of all errors of this package."""


class ConnectionFailed(KithError):
    """No whole answer came, after all retries: nobody listens there, or the connection broke or timed out.

    What a request that is not sent again (a deletion, a snapshot) was to do may have been done.
    """


class InvalidAnswer(KithError):
    """The answer is not what this version of the package reads: another server, or a newer one."""


class DamagedDownload(KithError):
    """A file's bytes are not those that its checkpoint names."""


class ApiError(KithError):
    """The server refused a request.

    `status` is HTTP's. `code` is stable and for programs, `message` for people. `param` is the path of the field that was wrong, such
    as `input[3]`. The server's log has a line under `request_id`. `retry_after` is in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = f", {self.param}" if self.param else ""
        return f"{self.message} (status {self.status}, {self.code}{where})"


class InvalidRequest(ApiError):
    """400, 413, 415 and others: the request itself is wrong."""


class AuthenticationFailed(ApiError):
    """401: a key is missing, wrong or expired."""


class PermissionDenied(ApiError):
    """403: the key's scope does not include the route."""


class NotFound(ApiError):
    """404: no such pair, image, checkpoint, alias or model."""


class Conflict(ApiError):
    """409: what is stored does not allow it, such as deleting the live checkpoint."""


class RateLimited(ApiError):
    """429, after all retries: the server is full, or the key's limit is reached."""


class Unavailable(ApiError):
    """503, after all retries: the server starts or stops, or training or a snapshot failed."""


class ServerFailed(ApiError):
    """500, 507 and others: the server's own failure."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
    503: Unavailable,
}


def class_of(status: int) -> type[ApiError]:
    """The class of errors with an HTTP status."""
    return _BY_STATUS.get(status, ServerFailed if status >= 500 else InvalidRequest)
