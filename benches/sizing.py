#!/usr/bin/env python3
"""Memory and disk of a server, by what they depend on: side and batch, stored images and pairs, checkpoints.

    python3 benches/sizing.py --kith target/release/kith [--sides 64,96,160,224] [--batch 32] [--steps 12] [--pairs 10000] [--out FILE.json]

Memory is the process's resident set: at rest, after images one at a time and 32 at a time, and in training, each with the example's pictures and a fresh data folder. Disk is what
a folder takes (`st_blocks`), with pairs of small random images that are stored without training.
"""

import argparse
import base64
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

from harness import Load, Server, noise_png, note, table
from soak import resident_mb
from throughput import EXAMPLE

SERVING_SECONDS = 8
# What a start used is given back after some ten seconds.
IDLE_SECONDS = 15
LIMIT_SECONDS = 300
PAIRS_A_REQUEST = 1000


def peak_mb(process):
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def disk(folder):
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def serve_for(server, batch):
    """Resident MB after requests of so many images."""
    images = sorted((EXAMPLE / "google").glob("*.png"))
    with Load(server.url, [path.read_bytes() for path in images], batch, 4):
        time.sleep(SERVING_SECONDS)
        return resident_mb(server.process.pid)


def train_for(server, steps):
    """The peak in MB while so many steps are made."""
    connection, limit = server.connect(), time.monotonic() + LIMIT_SECONDS
    server.run("ingest", "--server", server.url, EXAMPLE / "pairs.csv")
    while connection.json("GET", "/v1/training")["step"] < steps:
        if time.monotonic() > limit:
            raise RuntimeError("training is too slow for this measurement")
        time.sleep(0.5)
    return peak_mb(server.process.pid)


def memory(kith, side, batch, steps):
    sets = [f"encoder.side={side}", f"training.batch={batch}"]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kith, folder, [*sets, "training.enabled=false"]).start()
        time.sleep(IDLE_SECONDS)
        row = {"side": side, "rest_mb": resident_mb(server.process.pid)}
        row["serving_mb"] = max(serve_for(server, 1), serve_for(server, 32))
        server.stop()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kith, folder, sets).start()
        row["training_mb"] = train_for(server, steps)
        server.connect().json("POST", "/v1/checkpoints?wait=true")
        checkpoints = sorted((Path(folder) / "blobs" / "checkpoints").iterdir())
        row["checkpoint_mb"] = max(disk(path) for path in checkpoints) / 1e6
        row["peak_with_snapshot_mb"] = peak_mb(server.process.pid)
        server.stop()
    return {name: round(value) for name, value in row.items()}


def pair_lines(count):
    """Pairs of images that nobody has seen, a group of two each."""
    choice = random.Random(1)
    for number in range(count):
        sides = [base64.b64encode(noise_png(choice, 8)).decode() for _ in range(2)]
        yield json.dumps({"anchor": {"image": sides[0]}, "positive": {"image": sides[1]}, "group": f"product-{number:08}"}).encode() + b"\n"


def post_pairs(server, count):
    connection, lines = server.connect(), pair_lines(count)
    while body := b"".join(itertools.islice(lines, PAIRS_A_REQUEST)):
        status, answer = connection.raw("POST", "/v1/pairs", body, "application/x-ndjson")
        if status != 200 or b'"error"' in answer:
            raise RuntimeError(f"pairs were refused: {answer[-300:]}")


def stored(kith, count):
    """Bytes of the database and of small images a pair, and of memory in a server that trains on them."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kith, folder, ["training.enabled=false", "encoder.width=8"]).start()
        empty = (Path(folder) / "kith.db").stat().st_size
        post_pairs(server, count)
        server.stop()
        database = (Path(folder) / "kith.db").stat().st_size - empty
        images = disk(Path(folder) / "blobs" / "images")
        sizes = {}
        for name, enabled in (("without", "false"), ("with", "true")):
            # It waits for more pairs than there are: the set is in memory, and nothing is computed.
            server = Server(kith, folder, [f"training.enabled={enabled}", f"training.min_pairs={10 * count}", "encoder.width=8"]).start()
            time.sleep(IDLE_SECONDS)
            sizes[name] = resident_mb(server.process.pid)
            server.stop()
    return {"pairs": count, "database_bytes_a_pair": round(database / count), "image_bytes_on_disk": round(images / count / 2),
            "training_set_bytes_a_pair": round((sizes["with"] - sizes["without"]) * 2**20 / count)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--sides", default="64,96,160,224")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = {"stored": stored(args.kith, args.pairs), "memory": []}
    note(results["stored"])
    for side in map(int, args.sides.split(",")):
        results["memory"].append(memory(args.kith, side, args.batch, args.steps))
        note(results["memory"][-1])
    print(table(results["memory"][0].keys(), [row.values() for row in results["memory"]]))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
