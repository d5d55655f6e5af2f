"""The server that `tests/clients/run.sh` started for these tests, and images. It learns; the key has the scope `admin`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from kith_client import Kith, PairInput, RetryPolicy

EMOJI = Path(__file__).parents[3] / "examples/emoji"
URL = os.environ["KITH_LEARNING_URL"]
KEY = os.environ["KITH_LEARNING_KEY"]

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def kith() -> Iterator[Kith]:
    with Kith(URL, KEY) as client:
        yield client


@pytest.fixture(scope="session")
def drawings() -> list[Path]:
    """Files of different images."""
    return sorted((EMOJI / "google").glob("*.png"))


@pytest.fixture(scope="session")
def matches(drawings: list[Path]) -> list[tuple[Path, Path]]:
    """Two drawings of each of many emoji."""
    other = EMOJI / "twitter"
    return [(one, other / one.name) for one in drawings if (other / one.name).exists()]


@pytest.fixture(scope="session")
def learning(matches: list[tuple[Path, Path]]) -> None:
    """The server has pairs, and has made a step."""
    with Kith(URL, KEY) as client, client.events(["step"]) as steps:
        list(client.pairs.stream(PairInput(*match) for match in matches[:60]))
        next(steps)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KITH_KEY", raising=False)
    monkeypatch.delenv("KITH_URL", raising=False)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have waited; it goes on at once."""
    waited: list[float] = []
    monkeypatch.setattr("kith_client._sync_io.time.sleep", waited.append)
    return waited


def scripted(*answers: httpx.Response | Exception, retry: RetryPolicy | None = None) -> tuple[Kith, list[httpx.Request]]:
    """A client whose server gives these answers, one after another, and the requests that it got."""
    left, asked = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        asked.append(request)
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return Kith("http://kith.test", transport=httpx.MockTransport(answer), retry=retry), asked


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    document = {"error": {"message": f"it is {code}", "type": "some_error", "param": None, "code": code}}
    return httpx.Response(status, json=document, headers={name.replace("_", "-"): value for name, value in headers.items()})
