# Made from _async by tools/make_sync.py: change that, and run it again.
"""Pairs and images that the server stores."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import TypeVar

from .. import _sync_io as io
from .._call import Call, Data, Page, given
from .._images import ImageInput, to_bytes
from .._pairs import PairInput, Results, Side, chunks, read_results
from ..types import Image, Pair, PairFailure
from .transport import Transport

T = TypeVar("T")


def pages(transport: Transport, call: Call, page: type[Page[T]]) -> Iterator[T]:
    """The rows of all pages of a list."""
    after: str | None = None
    while True:
        found = transport.send(Call(call.method, call.path, params={**call.params, **given(after=after)}), page)
        for row in found.data:
            yield row
        after = found.next
        if after is None:
            return


class Pairs:
    """`/v1/pairs`: what the server learns from."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(self, anchor: Side, positive: Side | None = None, *, group: str | None = None, weight: float | None = None) -> Pair:
        """Stores a pair. Without `positive` two views of the anchor are the pair. It is on disk when this returns."""
        return (self.add_all([PairInput(anchor, positive, group, weight)]))[0]

    def add_all(self, pairs: Iterable[PairInput], *, idempotency_key: str | None = None) -> list[Pair]:
        """Stores pairs in one request, all or none; the server bounds their number (`server.max_pairs`).

        A retry is answered as the first request was. To hold for retries of your own, too, give an `idempotency_key`.
        """
        listed = list(pairs)
        body = io.blocking(lambda: {"pairs": [pair.json() for pair in listed]})
        headers = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
        return (self._transport.send(Call("POST", "/v1/pairs", json=body, headers=headers), Data[Pair])).data

    def stream(self, pairs: Iterable[PairInput]) -> Iterator[Pair | PairFailure]:
        """Stores any number of pairs, and yields a result for each, in order; one that is refused does not stop the others.

        Pairs are read as the results are taken. While the server is busy, those without a result are sent again; a pair that was stored
        already then has `duplicate`. `ApiError` if the stream cannot go on, `OSError` if a file cannot be read: what was yielded is stored.
        """
        rest = chunks(pairs)
        first = 0
        while lines := io.blocking(lambda: next(rest, None)):
            attempt = 0
            while lines:
                results = self._post(lines, first)
                for result in results.done:
                    yield result
                first += len(results.done)
                attempt = 0 if results.done else attempt
                lines = lines[len(results.done) :]
                if lines:
                    wait = self._transport.retry.wait_after_failure(attempt) if results.may_continue() else None
                    if wait is None:
                        raise results.error()
                    io.sleep(wait)
                    attempt += 1

    def _post(self, lines: list[bytes], first: int) -> Results:
        headers = {"content-type": "application/x-ndjson"}
        response = self._transport.respond(Call("POST", "/v1/pairs", content=b"".join(lines), headers=headers))
        return read_results(response.content, len(lines), first)

    def get(self, id: str) -> Pair:
        """One pair."""
        return self._transport.send(Call("GET", f"/v1/pairs/{id}"), Pair)

    def list(self, *, group: str | None = None) -> Iterator[Pair]:
        """All pairs, or those of a group, page by page."""
        for pair in pages(self._transport, Call("GET", "/v1/pairs", params=given(group=group)), Page[Pair]):
            yield pair

    def delete(self, id: str) -> None:
        """Deletes a pair and leaves its images."""
        self._transport.respond(Call("DELETE", f"/v1/pairs/{id}", repeatable=False))


class Images:
    """`/v1/images`: the stored images."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(self, image: ImageInput) -> Image:
        """Stores an image. One that was stored before is the same; a damaged one is repaired."""
        file = io.blocking(lambda: to_bytes(image))
        return self._transport.send(Call("POST", "/v1/images", files=[("file", ("image", file))]), Image)

    def get(self, id: str) -> Image:
        """What is known of an image."""
        return self._transport.send(Call("GET", f"/v1/images/{id}"), Image)

    def content(self, id: str) -> bytes:
        """The bytes of an image, as they were sent."""
        return (self._transport.respond(Call("GET", f"/v1/images/{id}/content"))).content

    def list(self, *, damaged: bool | None = None) -> Iterator[Image]:
        """All images, or the damaged ones, page by page."""
        params = given(damaged=None if damaged is None else str(damaged).lower())
        for image in pages(self._transport, Call("GET", "/v1/images", params=params), Page[Image]):
            yield image

    def delete(self, id: str) -> None:
        """Erases an image and its pairs; training forgets it."""
        self._transport.respond(Call("DELETE", f"/v1/images/{id}", repeatable=False))
