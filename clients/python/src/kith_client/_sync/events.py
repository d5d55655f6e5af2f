# Made from _async by tools/make_sync.py: change that, and run it again.
"""What happens in the server, as it happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType

import httpx
import httpx_sse

from .. import _sync_io as io
from .._call import Call, decode, given
from ..errors import ConnectionFailed
from ..types import Event, EventKind
from .transport import Transport

# The server sends a line every 15 s while nothing happens.
_SILENCE = 60.0


class EventStream:
    """Events from the moment when the `with` block is entered. A connection that breaks is made again, and goes on after the last event.

    It has no end of its own: leave the block. `ConnectionFailed` if the server is gone, `AuthenticationFailed` if the key ended.
    """

    def __init__(self, transport: Transport, kinds: Iterable[EventKind] | None, last_event_id: str | None = None) -> None:
        self._transport = transport
        self._params = given(kinds=",".join(kinds) if kinds is not None else None)
        self._last = last_event_id
        self._response: httpx.Response | None = None
        self._events: Iterator[httpx_sse.ServerSentEvent] | None = None

    def __enter__(self) -> EventStream:
        self._connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._disconnect()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        attempt = 0
        while True:
            try:
                events = self._events or self._connect()
                event = events.__next__()
            except (StopIteration, httpx.TransportError) as error:
                self._disconnect()
                wait = self._transport.retry.wait_after_failure(attempt)
                if wait is None:
                    raise ConnectionFailed("the stream of events ended again and again") from error
                io.sleep(wait)
                attempt += 1
            else:
                # What keeps the connection while nothing happens has no data.
                if event.data:
                    self._last = event.id
                    return Event(id=event.id, kind=event.event, data=decode(event.data.encode(), dict))

    def _connect(self) -> Iterator[httpx_sse.ServerSentEvent]:
        headers = {"accept": "text/event-stream", **({"last-event-id": self._last} if self._last else {})}
        call = Call("GET", "/v1/events", params=self._params, headers=headers, timeout=_SILENCE)
        self._response = self._transport.respond(call, stream=True)
        self._events = httpx_sse.EventSource(self._response).iter_sse()
        return self._events

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = self._events = None
