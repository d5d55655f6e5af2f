#!/usr/bin/env python3
"""Does a single image wait behind large requests? Its latency alone, beside one and beside four clients of many images a request.

    python3 benches/fairness.py --kith target/release/kith [--kith OLDER ...] [--rounds 3] [--seconds 8] [--images 64] [--training] \
[--set SECTION.KEY=VALUE ...] [--out FILE.json]

One thread sends single images without a pause; each large client is a process of its own, and all share the machine with the server. With several
--kith the programs take turns in each round. Figures are medians over the rounds. Training is paused unless --training is given.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from harness import Connection, Load, Server, note, percentile, table
from throughput import EXAMPLE, wait_for_steps

WARM_SECONDS = 2
CLIENTS = (0, 1, 4)
# Wanted, against alone: p50 and p99.
WANTED = {"p50_ms": 3.0, "p99_ms": 5.0}


def large(url, images, batch, seed, over, queue):
    """A client of large requests; puts (requests answered, requests refused) when told that it is over."""
    import base64
    import random
    choice, connection = random.Random(seed), Connection(url, timeout=60)
    bodies = [json.dumps({"model": "kith", "encoding_format": "base64",
                          "input": [base64.b64encode(image).decode() for image in choice.choices(images, k=batch)]}) for _ in range(8)]
    answered = refused = 0
    while not over.is_set():
        status, _ = connection.raw("POST", "/v1/embeddings", choice.choice(bodies), "application/json")
        answered, refused = answered + (status == 200), refused + (status != 200)
        if status != 200:
            time.sleep(0.05)
    queue.put((answered, refused))


def beside(server, images, clients, args):
    """The single client's latencies beside so many large clients, and what these got."""
    over, queue = multiprocessing.Event(), multiprocessing.Queue()
    crowd = [multiprocessing.Process(target=large, args=(server.url, images, args.images, number, over, queue)) for number in range(clients)]
    for process in crowd:
        process.start()
    began = time.monotonic()
    with Load(server.url, images) as load:
        time.sleep(WARM_SECONDS)
        load.take()
        time.sleep(args.seconds)
        taken, failed = load.take()
    over.set()
    large_counts = [queue.get(timeout=120) for _ in crowd]
    lasted = time.monotonic() - began
    for process in crowd:
        process.join()
    latencies = [taking for _, taking in taken]
    return {"p50_ms": 1000 * percentile(latencies, 0.5), "p99_ms": 1000 * percentile(latencies, 0.99), "refused": len(failed),
            "large_images_per_second": sum(answered for answered, _ in large_counts) * args.images / lasted,
            "large_refused": sum(refused for _, refused in large_counts)}


def round_of(kith, images, args, folder):
    """One row for each number of large clients, on a fresh server."""
    server = Server(kith, folder / "data", args.set, folder / "server.log").start()
    try:
        connection = server.connect()
        connection.json("PATCH", "/v1/training", {"state": "paused"})
        if args.training:
            server.run("ingest", "--server", server.url, EXAMPLE / "pairs.csv")
            connection.json("PATCH", "/v1/training", {"state": "running"})
            wait_for_steps(connection)
        return {clients: beside(server, images, clients, args) for clients in CLIENTS}
    finally:
        server.stop()


def medians(rounds):
    keys = rounds[0][CLIENTS[0]]
    return {clients: {key: round(statistics.median(one[clients][key] for one in rounds), 1) for key in keys} for clients in CLIENTS}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--images", type=int, default=64, help="images in a large request")
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    programs = args.kith or ["target/release/kith"]
    images = [path.read_bytes() for path in sorted(EXAMPLE.rglob("*.png"))]
    rounds = {kith: [] for kith in programs}
    for number in range(args.rounds):
        for kith in programs:
            folder = Path(tempfile.mkdtemp(prefix="kith-fairness-"))
            rounds[kith].append(round_of(kith, images, args, folder))
            note(f"round {number + 1} of {kith}: {rounds[kith][-1]}")
            shutil.rmtree(folder, ignore_errors=True)
    found = {kith: medians(of_program) for kith, of_program in rounds.items()}
    rows, held = [], True
    for kith, of_program in found.items():
        for clients, row in of_program.items():
            ratios = {key: row[key] / max(of_program[0][key], 0.001) for key in WANTED}
            held = held and all(ratios[key] <= most for key, most in WANTED.items()) and row["refused"] == 0
            rows.append([kith, clients, *row.values(), *(f"{ratio:.1f}" for ratio in ratios.values())])
    print(table(["program", "large clients", *found[programs[0]][0], "p50 / alone", "p99 / alone"], rows))
    print(f"wanted: p50 at most {WANTED['p50_ms']:.0f} times and p99 at most {WANTED['p99_ms']:.0f} times alone, none refused:", "holds" if held else "FAILS")
    if args.out:
        result = {"cores": len(os.sched_getaffinity(0)), "settings": args.set, "training": args.training, "images": args.images, "rounds": rounds}
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
