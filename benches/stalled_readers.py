#!/usr/bin/env python3
"""Resident memory of a server while clients ask for a large checkpoint file and stop reading.

    python3 benches/stalled_readers.py --kith target/release/kith [--readers 50] [--seconds 10] [--set SECTION.KEY=VALUE ...] [--out FILE.json]

The file is `model.safetensors` of a first checkpoint (45 MB). Each reader takes the head of the answer and nothing more. Also told: how
long a small request takes meanwhile, and how long one takes beside eight connections that announce 64 MiB each and send nothing.
"""

import argparse
import json
import socket
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from harness import Server, note

FILE = "model.safetensors"


def resident_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024)


def connect(address, head):
    link = socket.create_connection(address)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    return link


def seconds_of(ask, limit=120):
    """Until `ask` succeeds; it is tried again when it is refused."""
    began = time.monotonic()
    while True:
        try:
            ask()
            return round(time.monotonic() - began, 2)
        except OSError:
            if time.monotonic() - began > limit:
                return None
            time.sleep(0.05)


def post(url):
    """An empty list of pairs: refused with 400 as soon as its body is looked at, and with 429 when it is not."""
    request = urllib.request.Request(f"{url}/v1/pairs", data=b'{"pairs": []}', headers={"content-type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise


def stalled(server, address, args):
    with urllib.request.urlopen(f"{server.url}/v1/training") as answer:
        checkpoint = json.load(answer)["checkpoint"]["live"]
    before = resident_mb(server.process.pid)
    head = [f"GET /v1/checkpoints/{checkpoint}/files/{FILE} HTTP/1.1", "host: localhost"]
    readers = []
    most = before
    for _ in range(args.readers):
        readers.append(connect(address, head))
        readers[-1].recv(64)
        most = max(most, resident_mb(server.process.pid))
    end = time.monotonic() + args.seconds
    while time.monotonic() < end:
        most = max(most, resident_mb(server.process.pid))
        time.sleep(0.1)
    small = seconds_of(lambda: urllib.request.urlopen(f"{server.url}/healthz", timeout=60))
    for reader in readers:
        reader.close()
    time.sleep(2)
    return {"readers": args.readers, "before_mb": before, "most_mb": most, "after_mb": resident_mb(server.process.pid), "healthz_seconds": small}


def silent(server, address):
    head = ["POST /v1/embeddings HTTP/1.1", "host: localhost", "content-type: image/png", f"content-length: {64 << 20}"]
    links = [connect(address, head) for _ in range(8)]
    time.sleep(0.5)
    taken = seconds_of(lambda: post(server.url))
    for link in links:
        link.close()
    return {"silent_connections": len(links), "post_answered_after_seconds": taken}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out")
    args = parser.parse_args()
    sets = ["training.enabled=false", *args.set]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(args.kith, folder, sets).start()
        try:
            host, port = server.url.removeprefix("http://").rsplit(":", 1)
            address = (host, int(port))
            result = {**silent(server, address), **stalled(server, address, args)}
        finally:
            server.kill()
    note(json.dumps(result))
    if args.out:
        Path(args.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
