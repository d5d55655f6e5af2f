#!/usr/bin/env python3
"""Does training take from serving? A single client's latency and the most that the server answers, with training paused and running in turn.

    python3 benches/serving_first.py --kith target/release/kith [--rounds 5] [--seconds 10] [--clients 8] [--set SECTION.KEY=VALUE ...] [--out FILE.json]

One server learns from `examples/emoji`. Each round measures paused, then running: one client without a pause, then --clients at once, --seconds each. Ratios are
those of a round, so that a busy moment of the machine meets both; the table has their medians and extremes. Wanted: p99 of one client at most
1.1 times that while paused, and at least 0.9 of the throughput. Clients are processes of their own and share the machine with the server.
"""

import argparse
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from harness import Connection, Server, note, percentile, table
from throughput import EXAMPLE, wait_for_steps

WARM_SECONDS = 2
WANTED = {"p50": None, "p99": 1.1, "images_per_second": 0.9}


def client(url, images, number, seconds, queue):
    """Sends single images; puts the seconds that each answer after the warm-up took."""
    connection, taken = Connection(url, timeout=60), []
    began = time.monotonic()
    while (now := time.monotonic()) < began + WARM_SECONDS + seconds:
        status, data = connection.raw("POST", "/v1/embeddings", images[(number * 31 + len(taken)) % len(images)], "image/png")
        if status != 200:
            raise RuntimeError(f"{status}: {data[:200]}")
        if now >= began + WARM_SECONDS:
            taken.append(time.monotonic() - now)
    queue.put(taken)


def measure(url, images, clients, seconds):
    queue = multiprocessing.Queue()
    crowd = [multiprocessing.Process(target=client, args=(url, images, number, seconds, queue)) for number in range(clients)]
    for process in crowd:
        process.start()
    taken = [one for _ in crowd for one in queue.get(timeout=seconds + 120)]
    for process in crowd:
        process.join()
    return taken


def state(connection, url, images, training, args):
    connection.json("PATCH", "/v1/training", {"state": training})
    before = connection.json("GET", "/v1/training")["step"]
    began = time.monotonic()
    alone = measure(url, images, 1, args.seconds)
    many = measure(url, images, args.clients, args.seconds)
    steps = connection.json("GET", "/v1/training")["step"] - before
    return {"p50": 1000 * percentile(alone, 0.5), "p99": 1000 * percentile(alone, 0.99),
            "images_per_second": len(many) / args.seconds, "steps_per_second": steps / (time.monotonic() - began)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    images = [path.read_bytes() for path in sorted((EXAMPLE / "google").glob("*.png"))]
    folder = Path(tempfile.mkdtemp(prefix="kith-first-"))
    server = Server(args.kith, folder / "data", args.set, folder / "server.log").start()
    rounds = []
    try:
        connection = server.connect()
        server.run("ingest", "--server", server.url, EXAMPLE / "pairs.csv")
        wait_for_steps(connection)
        for number in range(args.rounds):
            both = {training: state(connection, server.url, images, training, args) for training in ("paused", "running")}
            rounds.append(both)
            note(f"round {number + 1}: " + json.dumps({name: {key: round(value, 2) for key, value in one.items()} for name, one in both.items()}))
    finally:
        server.stop()
        shutil.rmtree(folder)
    lines = []
    for key, wanted in WANTED.items():
        ratios = [one["running"][key] / one["paused"][key] for one in rounds]
        middle = statistics.median(ratios)
        holds = "" if wanted is None else "holds" if (middle <= wanted if key == "p99" else middle >= wanted) else "FAILS"
        values = [round(statistics.median(one[name][key] for one in rounds), 2) for name in ("paused", "running")]
        lines.append([key, *values, round(middle, 2), f"{min(ratios):.2f} to {max(ratios):.2f}", wanted or "", holds])
    print(table(["", "paused", "running", "ratio", "of rounds", "wanted", ""], lines))
    if args.out:
        args.out.write_text(json.dumps({"rounds": rounds, "settings": args.set}, indent=1))


if __name__ == "__main__":
    main()
