"""Sends requests, and again while the server is busy or cannot be reached."""

from __future__ import annotations

from typing import TypeVar

import httpx

from .. import _async_io as io
from .._call import Call, decode, to_error
from .._retry import RetryPolicy
from ..errors import ConnectionFailed

T = TypeVar("T")


class AsyncTransport:
    """The connections to one server."""

    def __init__(self, http: httpx.AsyncClient, retry: RetryPolicy) -> None:
        self.http = http
        self.retry = retry

    async def send(self, call: Call, answer: type[T]) -> T:
        """The answer as a dataclass. `ApiError` if the server refuses, `ConnectionFailed` if it cannot be reached."""
        return decode((await self.respond(call)).content, answer)

    async def respond(self, call: Call, *, stream: bool = False) -> httpx.Response:
        """The successful response; with `stream` its body is not read yet and must be closed."""
        attempt = 0
        while True:
            try:
                response = await self.http.send(self._build(call), stream=stream)
            except httpx.TransportError as error:
                final: Exception = ConnectionFailed(f"{self.http.base_url} gives no answer ({_cause(error)})")
                final.__cause__ = error
                # What never arrived may be sent again, whatever it is.
                again = call.repeatable or isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                wait = self.retry.wait_after_failure(attempt) if again else None
            else:
                if response.is_success:
                    return response
                await response.aread()
                refused = final = to_error(response)
                wait = self.retry.wait_after_status(refused.status, refused.retry_after, attempt)
            if wait is None:
                raise final
            await io.sleep(wait)
            attempt += 1

    def _build(self, call: Call) -> httpx.Request:
        return self.http.build_request(
            call.method,
            call.path,
            params=call.params,
            json=call.json,
            content=call.content,
            files=call.files,
            headers=call.headers,
            timeout=call.timeout if call.timeout is not None else httpx.USE_CLIENT_DEFAULT,
        )


def _cause(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
