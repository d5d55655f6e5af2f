#!/usr/bin/env python3
"""Four times as many requests as the server can answer, beside a thousand connections that send half a request or nothing.

    apt install hey
    python3 benches/overload.py --kith target/release/kith [--minutes 5] [--times 4] [--clients 32] [--set SECTION.KEY=VALUE ...] [--out FILE.json]

First --clients connections send single images without a pause: the rate and p99 at saturation. Then 25 `hey` send --times that rate, evenly, on 500
connections for --minutes, while 500 connections stay idle and 500 have sent half a head. Told are accepted requests' p99, statuses, resident memory, and how long after the end
a request takes no longer than the slowest of a quiet server. Wanted: p99 at most twice that of saturation, no status but 200 and 429, memory within a
twentieth, recovery within a second. Exits 1 if one of these fails.
"""

import argparse
import csv
import io
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from harness import Server, Threads, note, percentile
from soak import resident_mb
from throughput import EXAMPLE

# A worker of `hey` waits for its answer, so there must be more than the queue holds.
WORKERS = 500
STREAMS = 25
SILENT = 500
SATURATION_SECONDS = 15


def hey(url, image, seconds, workers, rate=None):
    """[(status, milliseconds)] of every request: one `hey`, or with a rate several of them, one after the other within the time of a request's turn. All workers of
    one `hey` send at the same moment: a single one would send nothing but bursts of `workers` requests."""
    streams = STREAMS if rate else 1
    paced = ["-q", f"{rate / workers:.4f}"] if rate else []
    command = ["hey", "-z", f"{seconds}s", "-c", str(workers // streams), "-t", "60", *paced, "-m", "POST", "-T", "image/png", "-D", image, "-o", "csv", f"{url}/v1/embeddings"]
    running = []
    for _ in range(streams):
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        if rate:
            time.sleep(workers / rate / streams)
    with ThreadPoolExecutor(streams) as pool:
        outputs = list(pool.map(lambda process: process.communicate()[0], running))
    if any(process.returncode for process in running):
        raise SystemExit("hey failed")
    rows = [row for text in outputs for row in csv.DictReader(io.StringIO(text))]
    return [(int(row["status-code"]), 1000 * float(row["response-time"])) for row in rows]


def accepted(answers):
    return [taken for status, taken in answers if status == 200]


def keep_silent(address, over):
    """Keeps idle connections and ones with half a head, and opens them again when the server closes them, until `over` is set."""
    head, links = b"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-", {}
    while not over.is_set():
        for number in range(2 * SILENT):
            try:
                link = links.get(number)
                if link is not None:
                    link.setblocking(False)
                    if link.recv(65536):
                        continue
                    link.close()
                links[number] = socket.create_connection(address, timeout=5)
                if number < SILENT:
                    links[number].sendall(head)
            except BlockingIOError:
                continue
            except OSError:
                links.pop(number, None)
        over.wait(1)
    for link in links.values():
        link.close()


def single(connection, image):
    began = time.monotonic()
    status, _ = connection.raw("POST", "/v1/embeddings", image, "image/png")
    return status, 1000 * (time.monotonic() - began)


def recovery(server, image, slowest):
    """Seconds until a request is accepted and takes no longer than `slowest` milliseconds."""
    began = time.monotonic()
    connection = server.connect()
    while True:
        status, taken = single(connection, image)
        if status == 200 and taken <= slowest:
            return time.monotonic() - began - taken / 1000
        if time.monotonic() - began > 60:
            return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--times", type=float, default=4)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    path = sorted((EXAMPLE / "google").glob("*.png"))[0]
    image = path.read_bytes()
    folder = Path(tempfile.mkdtemp(prefix="kith-overload-"))
    server = Server(args.kith, folder / "data", args.set, folder / "server.log").start()
    try:
        connection = server.connect()
        quiet = [single(connection, image)[1] for _ in range(300)][100:]
        hey(server.url, path, 3, args.clients)
        saturated = accepted(hey(server.url, path, SATURATION_SECONDS, args.clients))
        rate = len(saturated) / SATURATION_SECONDS
        note(f"alone {statistics.median(quiet):.1f} ms; saturated by {args.clients} connections: {rate:.0f} a second, p99 {percentile(saturated, 0.99):.0f} ms")
        parts, seconds = urlsplit(server.url), round(60 * args.minutes)
        memory, over = [], threading.Event()

        def watch():
            began = time.monotonic()
            # Not while the last requests leave: memory that is given back then is no fault.
            while not over.wait(2) and time.monotonic() < began + seconds:
                memory.append(resident_mb(server.process.pid))

        with Threads([threading.Thread(target=keep_silent, args=((parts.hostname, parts.port), over)), threading.Thread(target=watch)], over):
            answers = hey(server.url, path, seconds, WORKERS, args.times * rate)
            took = recovery(server, image, max(quiet))
    finally:
        server.stop()
        shutil.rmtree(folder)
    statuses = {}
    for status, _ in answers:
        statuses[status] = statuses.get(status, 0) + 1
    settled = memory[len(memory) // 10:]
    found = {
        "saturated_per_second": round(rate, 1), "saturated_p99_ms": round(percentile(saturated, 0.99), 1),
        "sent_per_second": round(len(answers) / seconds, 1), "accepted_per_second": round(len(accepted(answers)) / seconds, 1),
        "accepted_p50_ms": round(percentile(accepted(answers), 0.5), 1), "accepted_p99_ms": round(percentile(accepted(answers), 0.99), 1),
        "refused_p99_ms": round(percentile([taken for status, taken in answers if status == 429] or [0], 0.99), 1), "statuses": statuses,
        "memory_mb": [round(min(settled)), round(max(settled))], "recovery_seconds": None if took is None else round(took, 2),
    }
    middle = statistics.median(settled)
    holds = {
        "p99": found["accepted_p99_ms"] <= 2 * found["saturated_p99_ms"], "statuses": set(statuses) <= {200, 429},
        "memory": max(settled) <= 1.05 * middle and min(settled) >= 0.95 * middle, "recovery": took is not None and took < 1,
    }
    print(json.dumps(found | {"holds": holds}, indent=1))
    if args.out:
        series = {"memory_every_2_s_mb": [round(sample) for sample in memory]}
        args.out.write_text(json.dumps(found | {"holds": holds} | series, indent=1))
    sys.exit(0 if all(holds.values()) else 1)


if __name__ == "__main__":
    main()
