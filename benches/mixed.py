"""All that callers of a server do, at once and for as long as wanted; used by soak.py."""

import base64
import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from harness import Connection, Threads, noise_png, note

JSON, PNG, LINES = "application/json", "image/png", "application/x-ndjson"


class Mixed(Threads):
    """Threads that post pairs, erase some, take, download and promote snapshots, send large and wrong requests, stream events, break off, and overload the server
    now and then. `statuses` counts the answers by what was asked and status; a connection that fails unasked counts as status 0."""

    def __init__(self, url, images):
        self.url, self.images = url, images
        self.statuses = Counter()
        acts = [(self.pairs, 2), (self.batches, 1), (self.other_shapes, 1), (self.wrong, 1), (self.reads, 5), (self.events, 1), (self.broken_off, 2),
                (self.snapshots, 60), (self.burst, 60)]
        super().__init__([threading.Thread(target=self.repeat, args=(act, seconds, number)) for number, (act, seconds) in enumerate(acts)])

    def repeat(self, act, seconds, number):
        connection, choice = Connection(self.url, timeout=120), random.Random(number)
        while not self.over.wait(seconds):
            try:
                act(connection, choice)
            except Exception as error:
                note(f"{act.__name__}: {error!r}")
                self.count(act.__name__, 0)

    def count(self, what, status):
        with self.lock:
            self.statuses[what, status] += 1

    def ask(self, connection, what, method, path, body=None, kind=None):
        try:
            status, data = connection.raw(method, path, body, kind)
        except (OSError, http.client.HTTPException):
            self.count(what, 0)
            return 0, b""
        self.count(what, status)
        return status, data

    def document(self, connection, what, method, path, document=None):
        status, data = self.ask(connection, what, method, path, json.dumps(document) if document is not None else None, JSON if document is not None else None)
        return json.loads(data) if data and status < 300 else {}

    def some(self, choice, count):
        return [base64.b64encode(image).decode() for image in choice.choices(self.images, k=count)]

    def pairs(self, connection, choice):
        pair = {side: {"image": base64.b64encode(noise_png(choice, 32)).decode()} for side in ("anchor", "positive")}
        if choice.random() < 0.3:
            self.ask(connection, "pairs as lines", "POST", "/v1/pairs", json.dumps(pair) + "\n", LINES)
            return
        found = self.document(connection, "pairs", "POST", "/v1/pairs", {"pairs": [pair]})
        for posted in found.get("pairs", []):
            if choice.random() < 0.2:
                self.ask(connection, "erase a pair", "DELETE", f"/v1/pairs/{posted['id']}")

    def batches(self, connection, choice):
        self.document(connection, "32 images", "POST", "/v1/embeddings", {"model": "kith", "input": self.some(choice, 32)})

    def other_shapes(self, connection, choice):
        images = [f"data:image/png;base64,{image}" for image in self.some(choice, 2)]
        self.document(connection, "cohere", "POST", "/v2/embed", {"model": "kith", "images": images[:1], "input_type": "image", "embedding_types": ["float", "int8"]})
        self.document(connection, "base64", "POST", "/v1/embeddings", {"model": "kith", "input": images, "encoding_format": "base64"})

    def wrong(self, connection, choice):
        bodies = [(b"{", JSON), (b'{"model": "kith"}', JSON), (b"no image", PNG), (b'{"model": "other", "input": ["aGVsbG8="]}', JSON)]
        self.ask(connection, "wrong", "POST", "/v1/embeddings", *choice.choice(bodies))

    def reads(self, connection, _):
        for path in ("/metrics", "/openapi.json", "/v1/models", "/v1/checkpoints", "/v1/training", "/v1/pairs", "/healthz", "/readyz"):
            self.ask(connection, path, "GET", path)

    def events(self, _, choice):
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as link:
            link.sendall(b"GET /v1/events HTTP/1.1\r\nhost: " + parts.netloc.encode() + b"\r\n\r\n")
            until, head = time.monotonic() + choice.uniform(1, 20), b""
            while time.monotonic() < until and not self.over.is_set():
                try:
                    read = link.recv(65536)
                except TimeoutError:
                    continue
                if not read:
                    break
                head = head or read
        self.count("events", int(head.split(b" ", 2)[1]) if head else 0)

    def broken_off(self, _, choice):
        parts = urlsplit(self.url)
        image = choice.choice(self.images)
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: image/png\r\ncontent-length: {len(image)}\r\n\r\n".encode()
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as link:
            link.sendall((head + image)[:choice.randrange(len(head) + len(image))])

    def snapshots(self, connection, choice):
        self.document(connection, "snapshot", "POST", "/v1/checkpoints?wait=true", {"note": "soak"})
        found = self.document(connection, "/v1/checkpoints", "GET", "/v1/checkpoints").get("data", [])
        complete = [one["id"] for one in found if one.get("status") == "complete"]
        if complete:
            chosen = choice.choice(complete)
            self.ask(connection, "download", "GET", f"/v1/checkpoints/{chosen}/files/model.safetensors")
            self.ask(connection, "promote", "POST", f"/v1/checkpoints/{chosen}/promote")
            self.ask(connection, "auto", "POST", "/v1/checkpoints/auto")

    def burst(self, _, choice):
        images = choice.choices(self.images, k=400)

        def send(image):
            connection = Connection(self.url, timeout=60)
            self.ask(connection, "burst", "POST", "/v1/embeddings", image, PNG)
            connection.http.close()

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(send, images))

    def failures(self):
        """Answers that say that the server failed, connections that failed, and acts that never came to an answer."""
        acts = ("pairs", "pairs as lines", "32 images", "cohere", "base64", "wrong", "/metrics", "events", "snapshot", "promote", "download", "burst")
        never = set(acts) - {what for what, _ in self.statuses}
        if never:
            note(f"never answered: {sorted(never)}")
        return len(never) + sum(count for (_, status), count in self.statuses.items() if status == 0 or status >= 500)
