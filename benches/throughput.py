#!/usr/bin/env python3
"""Embeddings and training steps a second: serving alone, training alone, both at once.

    python3 benches/throughput.py --kith target/release/kith [--seconds 20] [--threads 4] [--set SECTION.KEY=VALUE ...] [--out FILE.json]

Serving alone is measured with training paused. Requests carry random ones of the example's pictures, one as a raw body or 32 as JSON; the
numbers include decoding and HTTP on the same machine, the sender too. Steps are counted by the difference of the step over the window.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from harness import Load, Server, note, percentile, table

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "emoji"
WARM_SECONDS = 5
BATCHES = (1, 32)


def wait_for_steps(connection, seconds=120):
    limit = time.monotonic() + seconds
    first = connection.json("GET", "/v1/training")["step"]
    while connection.json("GET", "/v1/training")["step"] < first + 3:
        if time.monotonic() > limit:
            raise RuntimeError(f"training does not step: {connection.json('GET', '/v1/training')}")
        time.sleep(0.2)


def watch(connection, load, seconds):
    """What `load` got answered in so many seconds (and since it was last asked: no failure is lost), and the steps made meanwhile."""
    began, before = time.monotonic(), connection.json("GET", "/v1/training")["step"]
    time.sleep(seconds)
    taken, failed = load.take()
    # A recovery sets the step back.
    lasted, steps = time.monotonic() - began, max(0, connection.json("GET", "/v1/training")["step"] - before)
    if failed:
        note(f"{len(failed)} requests failed, the first with {failed[0]}")
    latencies = [taking for _, taking in taken]
    return {"embeddings_per_second": round(len(taken) * load.batch / lasted, 1), "failures": len(failed),
            "p50_ms": round(1000 * percentile(latencies, 0.5), 1), "p99_ms": round(1000 * percentile(latencies, 0.99), 1),
            "steps_per_second": round(steps / lasted, 3)}


def measure(server, connection, images, batch, args):
    """One row: `batch` 0 sends nothing."""
    load = Load(server.url, images, batch or 1, args.threads if batch else 0)
    with load:
        time.sleep(WARM_SECONDS)
        load.take()
        return {"batch": batch, **watch(connection, load, args.seconds)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=4, help="requests in flight")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    images = [path.read_bytes() for path in sorted(EXAMPLE.rglob("*.png"))]
    folder = Path(tempfile.mkdtemp(prefix="kith-throughput-"))
    server = Server(args.kith, folder / "data", args.set, folder / "server.log").start()
    rows = []
    try:
        connection = server.connect()
        connection.json("PATCH", "/v1/training", {"state": "paused"})
        note(server.run("ingest", "--server", server.url, EXAMPLE / "pairs.csv").strip())
        for batch in BATCHES:
            rows.append({"what": "serving alone", **measure(server, connection, images, batch, args)})
        connection.json("PATCH", "/v1/training", {"state": "running"})
        wait_for_steps(connection)
        rows.append({"what": "training alone", **measure(server, connection, images, 0, args)})
        for batch in BATCHES:
            rows.append({"what": "both at once", **measure(server, connection, images, batch, args)})
    finally:
        server.stop()
    result = {"cores": len(os.sched_getaffinity(0)), "settings": args.set, "threads": args.threads, "seconds": args.seconds, "rows": rows}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
