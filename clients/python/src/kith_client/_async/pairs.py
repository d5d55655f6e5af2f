"""Pairs and images that the server stores."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from .. import _async_io as io
from .._call import Call, Data, Page, given
from .._images import ImageInput, to_bytes
from .._pairs import PairInput, Results, Side, chunks, read_results
from ..types import Image, Pair, PairFailure
from .transport import AsyncTransport

T = TypeVar("T")


async def pages(transport: AsyncTransport, call: Call, page: type[Page[T]]) -> AsyncIterator[T]:
    """The rows of all pages of a list."""
    after: str | None = None
    while True:
        found = await transport.send(Call(call.method, call.path, params={**call.params, **given(after=after)}), page)
        for row in found.data:
            yield row
        after = found.next
        if after is None:
            return


class AsyncPairs:
    """`/v1/pairs`: what the server learns from."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def add(self, anchor: Side, positive: Side | None = None, *, group: str | None = None, weight: float | None = None) -> Pair:
        """Stores a pair. Without `positive` two views of the anchor are the pair. It is on disk when this returns."""
        return (await self.add_all([PairInput(anchor, positive, group, weight)]))[0]

    async def add_all(self, pairs: Iterable[PairInput], *, idempotency_key: str | None = None) -> list[Pair]:
        """Stores pairs in one request, all or none; the server bounds their number (`server.max_pairs`).

        A retry is answered as the first request was. To hold for retries of your own, too, give an `idempotency_key`.
        """
        listed = list(pairs)
        body = await io.blocking(lambda: {"pairs": [pair.json() for pair in listed]})
        headers = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
        return (await self._transport.send(Call("POST", "/v1/pairs", json=body, headers=headers), Data[Pair])).data

    async def stream(self, pairs: Iterable[PairInput]) -> AsyncIterator[Pair | PairFailure]:
        """Stores any number of pairs, and yields a result for each, in order; one that is refused does not stop the others.

        Pairs are read as the results are taken. While the server is busy, those without a result are sent again; a pair that was stored
        already then has `duplicate`. `ApiError` if the stream cannot go on, `OSError` if a file cannot be read: what was yielded is stored.
        """
        rest = chunks(pairs)
        first = 0
        while lines := await io.blocking(lambda: next(rest, None)):
            attempt = 0
            while lines:
                results = await self._post(lines, first)
                for result in results.done:
                    yield result
                first += len(results.done)
                attempt = 0 if results.done else attempt
                lines = lines[len(results.done) :]
                if lines:
                    wait = self._transport.retry.wait_after_failure(attempt) if results.may_continue() else None
                    if wait is None:
                        raise results.error()
                    await io.sleep(wait)
                    attempt += 1

    async def _post(self, lines: list[bytes], first: int) -> Results:
        headers = {"content-type": "application/x-ndjson"}
        response = await self._transport.respond(Call("POST", "/v1/pairs", content=b"".join(lines), headers=headers))
        return read_results(response.content, len(lines), first)

    async def get(self, id: str) -> Pair:
        """One pair."""
        return await self._transport.send(Call("GET", f"/v1/pairs/{id}"), Pair)

    async def list(self, *, group: str | None = None) -> AsyncIterator[Pair]:
        """All pairs, or those of a group, page by page."""
        async for pair in pages(self._transport, Call("GET", "/v1/pairs", params=given(group=group)), Page[Pair]):
            yield pair

    async def delete(self, id: str) -> None:
        """Deletes a pair and leaves its images."""
        await self._transport.respond(Call("DELETE", f"/v1/pairs/{id}", repeatable=False))


class AsyncImages:
    """`/v1/images`: the stored images."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def add(self, image: ImageInput) -> Image:
        """Stores an image. One that was stored before is the same; a damaged one is repaired."""
        file = await io.blocking(lambda: to_bytes(image))
        return await self._transport.send(Call("POST", "/v1/images", files=[("file", ("image", file))]), Image)

    async def get(self, id: str) -> Image:
        """What is known of an image."""
        return await self._transport.send(Call("GET", f"/v1/images/{id}"), Image)

    async def content(self, id: str) -> bytes:
        """The bytes of an image, as they were sent."""
        return (await self._transport.respond(Call("GET", f"/v1/images/{id}/content"))).content

    async def list(self, *, damaged: bool | None = None) -> AsyncIterator[Image]:
        """All images, or the damaged ones, page by page."""
        params = given(damaged=None if damaged is None else str(damaged).lower())
        async for image in pages(self._transport, Call("GET", "/v1/images", params=params), Page[Image]):
            yield image

    async def delete(self, id: str) -> None:
        """Erases an image and its pairs; training forgets it."""
        await self._transport.respond(Call("DELETE", f"/v1/images/{id}", repeatable=False))
