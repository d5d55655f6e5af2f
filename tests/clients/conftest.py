"""What the tests of all clients share: the two servers that `run.sh` started, images, and the answer of a plain HTTP call."""

import base64
import json
import os
import pathlib
import struct
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

URL = os.environ["KITH_URL"]
# A server on which each key has 20 requests, and gets another every three seconds, and 400,000 bytes of bodies a day.
LIMITED_URL = os.environ["KITH_LIMITED_URL"]
DIMENSIONS = 16
# What `server.max_body_bytes` of the first server is exceeded by.
TOO_LARGE = "A" * 300_000


def data_uri(image):
    return "data:image/png;base64," + base64.b64encode(image).decode()


@pytest.fixture(scope="session")
def images():
    paths = sorted(pathlib.Path(os.environ["KITH_IMAGES"]).glob("*.png"))
    return [data_uri(path.read_bytes()) for path in paths]


@pytest.fixture
def slow_image():
    """An image that takes many milliseconds, and that the server has not seen: bytes behind its end make it another."""
    return data_uri(pathlib.Path(os.environ["KITH_LARGE_IMAGE"]).read_bytes() + os.urandom(8))


@pytest.fixture(scope="session")
def server():
    """The server without limits on its keys; `key` has the scope `embed`."""
    return SimpleNamespace(url=URL, key=os.environ["KITH_KEY"])


@pytest.fixture(scope="session")
def limited():
    """The server with limits; each client has a key of its own."""
    keys = json.loads(os.environ["KITH_LIMITED_KEYS"])
    return SimpleNamespace(url=LIMITED_URL, keys=keys)


def plain(images, **options):
    """The vectors of a plain HTTP call."""
    body = json.dumps({"model": "kith", "input": images, **options}).encode()
    headers = {"authorization": f"Bearer {os.environ['KITH_KEY']}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{URL}/v1/embeddings", body, headers)) as answer:
        return [item["embedding"] for item in json.load(answer)["data"]]


def as_f32(vectors):
    """The values as 32-bit floats: a decimal of JSON and a float of base64 that mean the same are then equal."""
    return [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors]


def assert_same(vectors, expected):
    assert [len(vector) for vector in vectors] == [len(vector) for vector in expected]
    assert as_f32(vectors) == as_f32(expected)


def spend(key):
    """Uses up what `key` may ask of the limited server; gives the seconds of `retry-after`, of which a client must wait at least two."""
    request = urllib.request.Request(f"{LIMITED_URL}/v1/models", headers={"authorization": f"Bearer {key}"})
    for _ in range(1000):
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as error:
            assert error.code == 429
            return int(error.headers["retry-after"])
    raise AssertionError("the limit was never reached")


def statuses_of_retry(key, call):
    """The statuses that `call` gets with a spent key, until the first of them is 429. `call` gives the statuses of its answers."""
    while True:
        spend(key)
        statuses = call()
        # A machine that is busy may take so long that the key has a request again.
        if statuses[0] == 429:
            return statuses
