"""What is sent again, how often, and after how long: against scripted answers, and against a server that limits its keys."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from conftest import refusal, scripted
from kith_client import (
    ApiError,
    AuthenticationFailed,
    ConnectionFailed,
    DamagedDownload,
    InvalidAnswer,
    Kith,
    Pair,
    PairFailure,
    PairInput,
    RateLimited,
    RetryPolicy,
    Unavailable,
)

BROKEN = httpx.ReadError("the connection broke")
ABSENT = httpx.ConnectError("nobody listens")
MODELS = httpx.Response(200, json={"data": []})
PAIR = {
    "id": "p",
    "anchor": "a",
    "positive": "b",
    "group": None,
    "created_at": "2026-01-02T03:04:05.123456789Z",
    "holdout": False,
    "split": "train",
    "duplicate": False,
}


def test_a_busy_server_is_asked_again_after_its_retry_after(waits: list[float]) -> None:
    kith, asked = scripted(refusal(429, "overloaded", retry_after="7"), refusal(503, "not_ready", retry_after="2"), MODELS)
    assert kith.models.list() == []
    assert waits == [7, 2]
    assert len(asked) == 3


def test_without_retry_after_the_waits_grow(waits: list[float]) -> None:
    kith, _ = scripted(*[BROKEN] * 4, MODELS)
    kith.models.list()
    for attempt, wait in enumerate(waits):
        assert 0.125 * 2**attempt <= wait <= 0.25 * 2**attempt
    assert len(waits) == 4


def test_retries_are_bounded(waits: list[float]) -> None:
    policy = RetryPolicy(max_retries=2)
    kith, asked = scripted(*[refusal(429, "rate_limited", retry_after="1")] * 3, retry=policy)
    with pytest.raises(RateLimited) as caught:
        kith.models.list()
    assert (caught.value.code, caught.value.retry_after, caught.value.message) == ("rate_limited", 1, "it is rate_limited")
    kith, asked = scripted(*[BROKEN] * 3, retry=policy)
    with pytest.raises(ConnectionFailed, match="the connection broke"):
        kith.models.list()
    assert len(asked) == 3


def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(waits: list[float]) -> None:
    kith, asked = scripted(refusal(429, "quota_exceeded", retry_after="3600"))
    with pytest.raises(RateLimited):
        kith.models.list()
    assert (len(asked), waits) == (1, [])


def test_what_a_retry_cannot_help_is_not_sent_again(waits: list[float]) -> None:
    for status, code in [(400, "invalid_field"), (401, "invalid_key"), (404, "unknown_model"), (500, "internal_error")]:
        kith, asked = scripted(refusal(status, code))
        with pytest.raises(ApiError):
            kith.models.list()
        assert len(asked) == 1
    assert waits == []


def test_a_snapshot_or_deletion_is_sent_again_only_if_it_never_arrived(waits: list[float]) -> None:
    kith, asked = scripted(ABSENT, refusal(503, "not_ready"), httpx.Response(204))
    kith.pairs.delete("p")
    assert len(asked) == 3
    acts: list[Callable[[Kith], object]] = [lambda kith: kith.pairs.delete("p"), lambda kith: kith.checkpoints.snapshot()]
    for act in acts:
        kith, asked = scripted(BROKEN)
        with pytest.raises(ConnectionFailed):
            act(kith)
        assert len(asked) == 1


def test_a_retry_of_pairs_has_the_idempotency_key_of_the_first_request(waits: list[float]) -> None:
    kith, asked = scripted(BROKEN, httpx.Response(201, json={"data": [PAIR]}), httpx.Response(201, json={"data": [PAIR]}))
    kith.pairs.add(b"one", b"two")
    kith.pairs.add(b"one", b"two")
    keys = [request.headers["idempotency-key"] for request in asked]
    assert keys[0] == keys[1] != keys[2]


def lines(*results: object) -> httpx.Response:
    return httpx.Response(200, content="".join(json.dumps(result) + "\n" for result in results))


def failure(code: str) -> dict[str, object]:
    return {"error": {"message": code, "type": "some_error", "param": None, "code": code}}


def sent(asked: list[httpx.Request]) -> list[int]:
    """Lines of each request."""
    return [len(request.content.splitlines()) for request in asked]


def test_pairs_of_a_stream_without_a_result_are_sent_again(waits: list[float]) -> None:
    kith, asked = scripted(lines(PAIR, failure("stopping")), BROKEN, lines(PAIR), lines(PAIR, failure("image_undecodable")))
    results = list(kith.pairs.stream([PairInput(b"image")] * 4))
    assert [type(result) for result in results] == [Pair, Pair, Pair, PairFailure]
    assert isinstance(results[3], PairFailure)
    assert results[3].index == 3
    assert sent(asked) == [4, 3, 3, 2]
    assert len(waits) == 3


def test_a_line_that_is_too_long_fails_alone(waits: list[float]) -> None:
    kith, asked = scripted(lines(PAIR, failure("line_too_large")), lines(PAIR))
    assert [type(result) for result in kith.pairs.stream([PairInput(b"image")] * 3)] == [Pair, PairFailure, Pair]
    assert sent(asked) == [3, 1]


def test_a_stream_that_cannot_go_on_says_why(waits: list[float]) -> None:
    kith, _ = scripted(lines(PAIR, failure("quota_exceeded")))
    results = kith.pairs.stream([PairInput(b"image")] * 3)
    assert isinstance(next(results), Pair)
    with pytest.raises(RateLimited, match="quota_exceeded"):
        next(results)
    kith, asked = scripted(*[lines(failure("stopping"))] * 5)
    with pytest.raises(Unavailable):
        next(kith.pairs.stream([PairInput(b"image")]))
    assert len(asked) == 5


def checkpoint(content: bytes, sha256: str) -> httpx.Response:
    files = [{"name": "model.safetensors", "bytes": len(content), "sha256": sha256}]
    fields = {"id": "c", "status": "complete", "role": "live", "step": 1, "created_at": "2026-01-02T03:04:05Z", "bytes": 9}
    return httpx.Response(200, json={**fields, "keep": False, "held": False, "files": files})


class Body(httpx.SyncByteStream):
    """A body that is read as it comes, and may break off."""

    def __init__(self, content: bytes, *, broken: bool = False) -> None:
        self.content = content
        self.broken = broken

    def __iter__(self) -> Iterator[bytes]:
        yield self.content
        if self.broken:
            raise BROKEN


SHA_OF_ABCDEF = "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721"


def test_a_download_goes_on_where_it_broke_off(waits: list[float], tmp_path: Path) -> None:
    kith, asked = scripted(
        checkpoint(b"abcdef", SHA_OF_ABCDEF),
        httpx.Response(200, stream=Body(b"abc", broken=True)),
        httpx.Response(206, stream=Body(b"def")),
    )
    assert kith.checkpoints.download("c", "model.safetensors", tmp_path / "model").read_bytes() == b"abcdef"
    assert [request.headers["range"] for request in asked[1:]] == ["bytes=0-", "bytes=3-"]


def test_a_download_that_is_damaged_or_never_ends_leaves_no_file(waits: list[float], tmp_path: Path) -> None:
    kith, _ = scripted(checkpoint(b"abcdef", "0" * 64), httpx.Response(200, stream=Body(b"abcdef")))
    with pytest.raises(DamagedDownload):
        kith.checkpoints.download("c", "model.safetensors", tmp_path / "model")
    kith, _ = scripted(checkpoint(b"abcdef", SHA_OF_ABCDEF), *[httpx.Response(206, stream=Body(b"", broken=True)) for _ in range(5)])
    with pytest.raises(ConnectionFailed):
        kith.checkpoints.download("c", "model.safetensors", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def events(*numbers: int) -> bytes:
    # Each with a line that keeps the connection, before it and after it.
    return "".join(f':\n\nid: 1-{number}\nevent: step\ndata: {{"step": {number}}}\n\n:\n\n' for number in numbers).encode()


def test_a_stream_of_events_goes_on_after_the_last_one(waits: list[float]) -> None:
    kind = {"content-type": "text/event-stream"}
    kith, asked = scripted(
        httpx.Response(200, headers=kind, stream=Body(events(1, 2), broken=True)),
        ABSENT,
        httpx.Response(200, headers=kind, content=events(3)),
        refusal(401, "expired_key"),
    )
    with kith.events(["step"]) as stream:
        assert [next(stream).data["step"] for _ in range(3)] == [1, 2, 3]
        with pytest.raises(AuthenticationFailed):
            next(stream)
    assert [request.headers.get("last-event-id") for request in asked] == [None, "1-2", "1-2", "1-3"]


def test_an_answer_of_another_server_is_named(waits: list[float]) -> None:
    for answer in (httpx.Response(200, text="<html>"), httpx.Response(200, json={"data": [{"id": 7}]})):
        kith, _ = scripted(answer)
        with pytest.raises(InvalidAnswer, match="kith server"):
            kith.models.list()
    kith, _ = scripted(httpx.Response(502, text="<html>bad gateway"))
    with pytest.raises(ApiError, match="bad gateway"):
        kith.models.list()


def test_a_server_that_is_not_there_is_not_ready_and_not_waited_for(waits: list[float]) -> None:
    kith, asked = scripted(ABSENT, refusal(503, "stopping"))
    assert not kith.ready()
    assert not kith.ready()
    assert len(asked) == 2
    assert waits == []


def test_a_limited_key_gets_its_answer_after_the_wait_that_the_server_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    really = time.sleep

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        really(seconds)

    monkeypatch.setattr("kith_client._sync_io.time.sleep", sleep)
    with Kith(os.environ["KITH_LIMITED_URL"], json.loads(os.environ["KITH_LIMITED_KEYS"])["kith-client"]) as kith:
        # More than a minute's worth at once; a busy machine gets some of them back meanwhile.
        for _ in range(1000):
            kith.models.list()
            if waited:
                break
    assert waited[0] >= 1
