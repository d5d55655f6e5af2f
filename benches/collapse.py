#!/usr/bin/env python3
"""Whether fresh weights ever collapse: many short runs from random weights, each with a seed of its own, at several batch sizes.

    python3 benches/collapse.py examples/emoji/pairs.csv --kith target/release/kith --out RESULTS [--batches 4,8,16,32] [--seeds 25]
                                [--images 6400] [--side 32] [--set SECTION.KEY=VALUE ...]

Each run posts the pairs of the list, trains from `encoder.start = fresh` until about `--images` images of pairs were drawn, and takes a snapshot. All
other settings are the defaults. A run has collapsed if its embeddings meet the gate's own rule (`gate.collapse_spread`, `gate.collapse_cosine`). RESULTS
gets collapse.csv, a row a run.
"""

import argparse
import csv
import shutil
import time
from pathlib import Path

from harness import Server, note, table

# The gate's defaults (config/default.toml).
MIN_SPREAD, MAX_COSINE = 0.2, 0.95


def run(args, batch, seed, folder):
    """One run: its row."""
    steps = max(1, args.images // (2 * batch))
    sets = ["encoder.start=fresh", f"encoder.side={args.side}", f"training.batch={batch}", f"training.seed={seed}",
            f"training.max_steps={steps}", "snapshots.first_steps=0", "snapshots.every_steps=0", "snapshots.head_pairs=0", "search.enabled=false", *args.set]
    server = Server(args.kith, folder, sets, folder.with_suffix(".log")).start()
    try:
        connection = server.connect()
        connection.json("PATCH", "/v1/training", {"state": "paused"})
        server.run("ingest", "--server", server.url, args.pairs)
        connection.json("PATCH", "/v1/training", {"state": "running"})
        while connection.json("GET", "/v1/training")["step"] < steps:
            time.sleep(0.2)
        taken = connection.json("POST", "/v1/checkpoints?wait=true", {})["id"]
        while not (found := connection.json("GET", f"/v1/checkpoints/{taken}").get("evaluation")):
            time.sleep(0.2)
    finally:
        server.stop()
    spread, cosine = found["geometry"]["spread"], found["geometry"]["mean_cosine"]
    return {"batch": batch, "seed": seed, "steps": steps, "spread": spread, "mean_cosine": cosine,
            "recall_at_1": found["anchor_to_positive"]["recall_at_1"], "collapsed": spread < MIN_SPREAD and cosine > MAX_COSINE}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--kith", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batches", default="4,8,16,32")
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with open(args.out / "collapse.csv", "w", newline="", encoding="utf-8") as file:
        for batch in map(int, args.batches.split(",")):
            for seed in range(1, args.seeds + 1):
                folder = args.out / f"b{batch}-s{seed}"
                rows.append(run(args, batch, seed, folder))
                shutil.rmtree(folder)
                writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
                if len(rows) == 1:
                    writer.writeheader()
                writer.writerow(rows[-1])
                file.flush()
            of_batch = [row for row in rows if row["batch"] == batch]
            note(f"batch {batch}: {sum(row['collapsed'] for row in of_batch)} of {len(of_batch)} collapsed")
    lines = []
    for batch in sorted({row["batch"] for row in rows}):
        of_batch = [row for row in rows if row["batch"] == batch]
        span = lambda key: f"{min(row[key] for row in of_batch):.3f} to {max(row[key] for row in of_batch):.3f}"
        lines.append([batch, of_batch[0]["steps"], len(of_batch), sum(row["collapsed"] for row in of_batch),
                      span("spread"), span("mean_cosine"), span("recall_at_1")])
    print(table(["batch", "steps", "runs", "collapsed", "spread", "mean cosine", "recall@1"], lines))


if __name__ == "__main__":
    main()
