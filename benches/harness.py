"""A kith server under measurement: started on a fresh folder, talked to over one connection a thread, stopped or killed.

Standard library only. Used by the scripts beside it.
"""

import base64
import http.client
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

START_SECONDS = 120
REOPEN_SECONDS = 20


class Refused(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status, document):
        super().__init__(f"{status}: {document}")
        self.status = status


class Connection:
    """One kept-alive connection, for one thread."""

    def __init__(self, url, timeout=600):
        parts = urlsplit(url)
        self.http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        self.used = time.monotonic()

    def raw(self, method, path, body=None, content_type=None):
        """The status and the body's bytes."""
        headers = {"content-type": content_type} if content_type else {}
        # The server closes connections that idle (server.idle_timeout_seconds): after a pause a new one is opened.
        if time.monotonic() - self.used > REOPEN_SECONDS:
            self.http.close()
        self.used = time.monotonic()
        try:
            self.http.request(method, path, body, headers)
            answer = self.http.getresponse()
            return answer.status, answer.read()
        except Exception:
            self.http.close()
            raise

    def json(self, method, path, document=None):
        """The answer's document; raises Refused for other statuses than 2xx."""
        body = None if document is None else json.dumps(document)
        status, data = self.raw(method, path, body, "application/json" if body else None)
        document = json.loads(data) if data else None
        if not 200 <= status < 300:
            raise Refused(status, document)
        return document


# Benchmarks send few images again and again: vectors that are kept would be measured in place of the encoder.
UNCACHED = "serving.cache_mb=0"


class Server:
    """A `kith serve` process on a free port of this machine. It keeps no vectors, unless `sets` say so."""

    def __init__(self, kith, data, sets=(), log=None):
        self.kith, self.data, self.sets, self.log = kith, Path(data), list(sets), log
        if not any(setting.startswith("serving.cache_mb=") for setting in self.sets) and "cache_mb" in self.run("config"):
            self.sets.append(UNCACHED)
        self.process = self.url = None

    def start(self):
        options = [part for setting in self.sets for part in ("--set", setting)]
        log = open(self.log, "ab") if self.log else subprocess.DEVNULL
        self.process = subprocess.Popen(
            [self.kith, "serve", "--listen", "127.0.0.1:0", "--data-dir", self.data, *options],
            stdout=subprocess.PIPE, stderr=log, text=True)
        if self.log:
            log.close()
        # A server that hangs before it listens prints nothing: killing it ends the wait for its line.
        limit = threading.Timer(START_SECONDS, self.process.kill)
        limit.start()
        for line in self.process.stdout:
            if "http://" in line:
                self.url = "http://" + line.split("http://")[1].split()[0].rstrip("/")
                break
        limit.cancel()
        if self.url is None or self.process.poll() is not None:
            raise RuntimeError(f"the server did not start: see {self.log}")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return self

    def connect(self):
        return Connection(self.url)

    def stop(self):
        """SIGTERM; the exit code."""
        return self.end(signal.SIGTERM)

    def kill(self):
        """SIGKILL: nothing can be tidied up."""
        return self.end(signal.SIGKILL)

    def end(self, number):
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        code = self.process.wait(timeout=START_SECONDS)
        self.process.stdout.close()
        self.url = None
        return code

    def processor_seconds(self):
        """Of all threads since the start (Linux): hardly changed by what else the machine does."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def run(self, *arguments):
        """Another subcommand of the same program; its standard output."""
        done = subprocess.run([self.kith, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout


class Threads:
    """Threads that run while a `with` lasts: each ends when it sees `over`."""

    def __init__(self, threads, over=None):
        self.lock, self.over, self.threads = threading.Lock(), over or threading.Event(), threads

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


# Two towers want to hear the side; with one it has no effect.
EMBEDDINGS = "/v1/embeddings?input_type=anchor"


class Load(Threads):
    """Threads that send embedding requests without a pause, or one every `every` seconds, and note how long each took. Answers of status 429 are failures, unless
    something overloads the server on purpose (`overloaded`)."""

    def __init__(self, url, images, batch=1, threads=1, every=0.0, overloaded=False):
        self.url, self.images, self.batch, self.every, self.overloaded = url, images, batch, every, overloaded
        self.taken, self.failed = [], []
        super().__init__([threading.Thread(target=self.work, args=(i,)) for i in range(threads)])

    def take(self):
        """(start, seconds) of the answered requests and the failures since the last call."""
        with self.lock:
            taken, failed, self.taken, self.failed = self.taken, self.failed, [], []
        return taken, failed

    def work(self, number):
        connection, choice = Connection(self.url, timeout=60), random.Random(number)
        while not self.over.is_set():
            images = choice.choices(self.images, k=self.batch)
            began = time.monotonic()
            try:
                if self.batch == 1:
                    status, data = connection.raw("POST", EMBEDDINGS, images[0], "image/png")
                else:
                    document = {"model": "kith", "input": [base64.b64encode(image).decode() for image in images]}
                    status, data = connection.raw("POST", EMBEDDINGS, json.dumps(document), "application/json")
                failure = None if status == 200 else f"{status}: {data[:200]}"
            except Exception as error:
                failure = repr(error)
            seconds = time.monotonic() - began
            with self.lock:
                if self.overloaded and failure is not None and failure.startswith("429"):
                    pass
                elif failure is None:
                    self.taken.append((began, seconds))
                else:
                    self.failed.append(failure)
            self.over.wait(max(0.0, self.every - seconds) if self.every or failure is None else 0.1)


def percentile(values, share):
    """Nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def noise_png(choice, side=16):
    """A PNG of random pixels that nobody has seen before."""
    rows = b"".join(b"\0" + choice.randbytes(3 * side) for _ in range(side))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def note(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def table(header, rows):
    """Markdown."""
    cells = [list(map(str, row)) for row in [header, ["---"] * len(header), *rows]]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)
