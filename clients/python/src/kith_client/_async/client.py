"""The client of one server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Hashable, Iterable, Sequence
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from .. import _async_io as io
from .._call import Call, given
from .._embeddings import EmbedOptions, as_list, batches, join, shift_param
from .._images import ImageInput, to_base64
from .._retrieval import retrieval
from .._retry import RetryPolicy
from ..errors import ApiError, ConnectionFailed
from ..types import Embeddings, EncodingFormat, EventKind, InputType, Layer, Priority, Retrieval, SearchResult, SearchState
from .checkpoints import AsyncCheckpoints
from .events import AsyncEventStream
from .pairs import AsyncImages, AsyncPairs
from .training import AsyncAliases, AsyncModels, AsyncTrainingControl
from .transport import AsyncTransport

_URL = "http://127.0.0.1:7700"


class AsyncKith:
    """A server at `url` (the variable `KITH_URL` unless given, else the default address), asked with `key` (`KITH_KEY`).

    `timeout` is in seconds without a byte. `transport` is httpx's, for proxies and tests. Close it, or use it in a `with` block.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        url = url or os.environ.get("KITH_URL") or _URL
        key = (key if key is not None else os.environ.get("KITH_KEY", "")).strip()
        headers = {"user-agent": "kith-client", **({"authorization": f"Bearer {key}"} if key else {})}
        http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._transport = AsyncTransport(http, retry or RetryPolicy())
        self.pairs = AsyncPairs(self._transport)
        self.images = AsyncImages(self._transport)
        self.training = AsyncTrainingControl(self._transport)
        self.checkpoints = AsyncCheckpoints(self._transport)
        self.aliases = AsyncAliases(self._transport)
        self.models = AsyncModels(self._transport)

    async def __aenter__(self) -> AsyncKith:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._transport.http.aclose()

    @property
    def url(self) -> str:
        """The server's address."""
        return str(self._transport.http.base_url).rstrip("/")

    async def ready(self) -> bool:
        """Whether the server answers and can store; asks once."""
        once = AsyncTransport(self._transport.http, RetryPolicy(max_retries=0))
        try:
            await once.respond(Call("GET", "/readyz"))
        except (ApiError, ConnectionFailed):
            return False
        return True

    async def embed(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        model: str = "kith",
        format: EncodingFormat = "float",
        dimensions: int | None = None,
        layer: Layer | None = None,
        input_type: InputType | None = None,
        priority: Priority | None = None,
        batch: int = 32,
    ) -> Embeddings:
        """The vectors of one or any number of images, all from one checkpoint, in requests of at most `batch` images.

        `dimensions` keeps the first values, to unit length again. `layer="hidden"` gives the features below the embedding. `ApiError` if an
        image is refused; `param` says which (`input[3]`).
        """
        options = EmbedOptions(format, dimensions, layer, input_type, priority)
        return join([part async for part in self.embed_batches(images, model=model, options=options, batch=batch)])

    async def embed_batches(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        model: str = "kith",
        options: EmbedOptions | None = None,
        batch: int = 32,
    ) -> AsyncIterator[Embeddings]:
        """As `embed`, one request after another, for progress and for more images than memory holds."""
        options = options or EmbedOptions()
        waiting = batches(as_list(images), batch)
        done = 0
        while files := await io.blocking(lambda: next(waiting, None)):
            try:
                response = await self._transport.respond(options.call(model, files))
            except ApiError as error:
                shift_param(error, done)
                raise
            part = options.read(response.content)
            done += len(files)
            # Whatever is promoted meanwhile, all vectors come from one checkpoint.
            model = part.model
            yield part

    async def search(
        self,
        image: ImageInput | None = None,
        *,
        id: str | None = None,
        vector: Sequence[float] | npt.NDArray[np.floating[Any]] | None = None,
        k: int = 10,
        group: str | None = None,
        checkpoint: str | None = None,
        priority: Priority | None = None,
    ) -> SearchResult:
        """The `k` stored images nearest to an image, a stored image's `id`, or a vector; those of a `group` only, if one is given.

        Give exactly one of the three. Beside a vector name the `checkpoint` that made it.
        """
        query: dict[str, Any] = {"id": id, "vector": None if vector is None else [float(value) for value in vector]}
        if image is not None:
            query["image"] = await io.blocking(lambda: to_base64(image))
        body = given(**query, k=k, group=group, checkpoint=checkpoint)
        headers = given(**{"x-kith-priority": priority})
        return await self._transport.send(Call("POST", "/v1/search", json=body, headers=headers), SearchResult)

    async def search_state(self) -> SearchState:
        """How many images are stored, and which share of them each checkpoint finds."""
        return await self._transport.send(Call("GET", "/v1/search"), SearchState)

    async def evaluate(
        self,
        queries: Iterable[tuple[Hashable, ImageInput]],
        gallery: Iterable[tuple[Hashable, ImageInput]],
        *,
        model: str = "kith",
    ) -> Retrieval:
        """How well a model finds, for each query, images of the gallery with the same key. The images are embedded and not stored."""
        asked, stored = list(queries), list(gallery)
        found = await self.embed([image for _, image in asked + stored], model=model)
        ends = len(asked)
        keys = [key for key, _ in asked + stored]
        vectors = found.vectors
        return await io.blocking(lambda: retrieval(vectors[:ends], keys[:ends], vectors[ends:], keys[ends:]))

    def events(self, kinds: Iterable[EventKind] | None = None, *, last_event_id: str | None = None) -> AsyncEventStream:
        """What happens in the server, from the entry of the `with` block on, or after an event; of all kinds unless some are given."""
        return AsyncEventStream(self._transport, kinds, last_event_id)
