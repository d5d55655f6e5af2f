"""What happens in the server, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType

import httpx
import httpx_sse

from .. import _async_io as io
from .._call import Call, decode, given
from ..errors import ConnectionFailed
from ..types import Event, EventKind
from .transport import AsyncTransport

# The server sends a line every 15 s while nothing happens.
_SILENCE = 60.0


class AsyncEventStream:
    """Events from the moment when the `with` block is entered. A connection that breaks is made again, and goes on after the last event.

    It has no end of its own: leave the block. `ConnectionFailed` if the server is gone, `AuthenticationFailed` if the key ended.
    """

    def __init__(self, transport: AsyncTransport, kinds: Iterable[EventKind] | None, last_event_id: str | None = None) -> None:
        self._transport = transport
        self._params = given(kinds=",".join(kinds) if kinds is not None else None)
        self._last = last_event_id
        self._response: httpx.Response | None = None
        self._events: AsyncIterator[httpx_sse.ServerSentEvent] | None = None

    async def __aenter__(self) -> AsyncEventStream:
        await self._connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._disconnect()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        attempt = 0
        while True:
            try:
                events = self._events or await self._connect()
                event = await events.__anext__()
            except (StopAsyncIteration, httpx.TransportError) as error:
                await self._disconnect()
                wait = self._transport.retry.wait_after_failure(attempt)
                if wait is None:
                    raise ConnectionFailed("the stream of events ended again and again") from error
                await io.sleep(wait)
                attempt += 1
            else:
                # What keeps the connection while nothing happens has no data.
                if event.data:
                    self._last = event.id
                    return Event(id=event.id, kind=event.event, data=decode(event.data.encode(), dict))

    async def _connect(self) -> AsyncIterator[httpx_sse.ServerSentEvent]:
        headers = {"accept": "text/event-stream", **({"last-event-id": self._last} if self._last else {})}
        call = Call("GET", "/v1/events", params=self._params, headers=headers, timeout=_SILENCE)
        self._response = await self._transport.respond(call, stream=True)
        self._events = httpx_sse.EventSource(self._response).aiter_sse()
        return self._events

    async def _disconnect(self) -> None:
        if self._response is not None:
            await self._response.aclose()
        self._response = self._events = None
