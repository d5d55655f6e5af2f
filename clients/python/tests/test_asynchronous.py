"""The asynchronous client, from which the synchronous one is made: each kind of call once, against the server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import numpy as np
import pytest

from conftest import KEY, URL, refusal
from kith_client import AsyncKith, Kith, NotFound, Pair, PairInput

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("learning")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client() -> AsyncIterator[AsyncKith]:
    async with AsyncKith(URL, KEY) as client:
        yield client


async def test_vectors_are_those_of_the_synchronous_client(client: AsyncKith, kith: Kith, drawings: list[Path]) -> None:
    found = await client.embed(drawings[:5], batch=2)
    np.testing.assert_array_equal(found.vectors, kith.embed(drawings[:5], model=found.model).vectors)
    many = await asyncio.gather(*(client.embed(path, model=found.model) for path in drawings[:5]))
    np.testing.assert_array_equal(np.concatenate([one.vectors for one in many]), found.vectors)


async def test_pairs_and_images_are_stored_listed_and_deleted(client: AsyncKith, matches: list[tuple[Path, Path]]) -> None:
    pairs = [PairInput(*match, group="asynchronous") for match in matches[300:303]]
    results = [result async for result in client.pairs.stream(pairs)]
    stored = [result.id for result in results if isinstance(result, Pair)]
    assert sorted(stored) == sorted([pair.id async for pair in client.pairs.list(group="asynchronous")])
    assert len(stored) == 3
    image = await client.images.add(matches[300][0])
    assert image.id in [one.id async for one in client.images.list()]
    assert await client.images.content(image.id) == matches[300][0].read_bytes()
    await client.images.delete(image.id)
    with pytest.raises(NotFound):
        await client.images.get(image.id)


async def test_events_come_while_other_calls_are_made(client: AsyncKith) -> None:
    async with client.events(["training", "checkpoint"]) as events:
        paused, taken = await asyncio.gather(client.training.pause(), client.checkpoints.snapshot())
        assert paused.state == "paused"
        async for event in events:
            if event.kind == "training" and event.data["state"] == "paused":
                break
    await client.training.resume()
    assert (await client.checkpoints.get(taken.id)).files


async def test_a_file_is_downloaded_and_a_model_is_judged(
    client: AsyncKith, kith: Kith, tmp_path: Path, matches: list[tuple[Path, Path]]
) -> None:
    live = await client.checkpoints.live()
    target = await client.checkpoints.download(live.id, "model.safetensors", tmp_path / "model")
    assert target.stat().st_size > 0
    alias = await client.aliases.set("asynchronous", live.id)
    keyed = [[(match[0].stem, match[side]) for match in matches[:20]] for side in range(2)]
    assert await client.evaluate(*keyed, model=alias.name) == kith.evaluate(*keyed, model=alias.name)
    await client.aliases.delete("asynchronous")
    assert await client.ready()


async def test_a_stored_image_is_found(client: AsyncKith, drawings: list[Path]) -> None:
    stored = await client.images.add(drawings[0])
    # Stored images are embedded for search in the background.
    with anyio.fail_after(60):
        while (state := await client.search_state()).data[0].indexed_share < 1:
            await anyio.sleep(0.1)
    assert state.data[0].images == state.stored_images
    found = await client.search(drawings[0], k=3, checkpoint=state.data[0].checkpoint)
    assert found.model == f"kith@{state.data[0].checkpoint}"
    assert stored.id in [hit.id for hit in found.data]


async def test_waits_do_not_hold_up_other_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("kith_client._async_io.anyio.sleep", sleep)
    answers = [refusal(429, "overloaded", retry_after="3"), httpx.Response(200, json={"data": []})]
    client = AsyncKith("http://kith.test", transport=httpx.MockTransport(lambda request: answers.pop(0)))
    assert await client.models.list() == []
    assert waited == [3]
