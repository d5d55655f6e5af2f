#!/usr/bin/env python3
"""Serving and training at once for a long time: does memory stay flat, does every request get its answer?

    python3 benches/soak.py --kith target/release/kith [--minutes 10] [--threads 2] [--every 0.05] [--mixed] [--set SECTION.KEY=VALUE ...] [--out FILE.json]

Random ones of the example's pictures are sent as raw bodies, while training steps, takes snapshots and swaps models as the settings say. Each
window of ten seconds gives the process's resident memory, on an NVIDIA GPU its memory there (`nvidia-smi`), latencies, failures and steps.
The first third is for caches to fill, which are bounded; memory is flat if the median of the last third is at most a twentieth above that
of the middle one: windows differ by that much. With --mixed all else that callers do goes on beside it (mixed.py; take at least three minutes, so that each of its acts has its turn). Exits 1 if memory grew, a request failed
(of the mixed ones: none but with a status of 4xx), or nothing was trained.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Load, Server, note, table
from mixed import Mixed
from throughput import EXAMPLE, wait_for_steps, watch

WINDOW = 10
MOST_GROWTH = 1.05


def resident_mb(process):
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def gpu_mb(process):
    """Of this process; of all processes where they cannot be told apart (containers); `None` without a GPU."""
    if shutil.which("nvidia-smi") is None:
        return None

    def ask(what):
        command = ["nvidia-smi", f"--query-{what}", "--format=csv,noheader,nounits"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        return [line.split(", ") for line in done.stdout.splitlines()]

    own = [float(used) for number, used in ask("compute-apps=pid,used_memory") if number == str(process)]
    return sum(own) if own else sum(float(used) for [used] in ask("gpu=memory.used"))


def window(server, connection, load):
    seen = watch(connection, load, WINDOW)
    return {"rss_mb": round(resident_mb(server.process.pid)), "gpu_mb": gpu_mb(server.process.pid), **seen}


def growth(windows, name):
    """The last third's median over the middle one's; `None` of what was not measured."""
    values = [one[name] for one in windows if one[name] is not None]
    third = len(values) // 3
    return round(statistics.median(values[-third:]) / statistics.median(values[third:2 * third]), 3) if third else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2, help="requests in flight")
    parser.add_argument("--every", type=float, default=0.05, help="seconds between a thread's requests; 0: no pause")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    images = [path.read_bytes() for path in sorted(EXAMPLE.rglob("*.png"))]
    folder = Path(tempfile.mkdtemp(prefix="kith-soak-"))
    server = Server(args.kith, folder / "data", args.set, folder / "server.log").start()
    windows = []
    try:
        connection = server.connect()
        note(server.run("ingest", "--server", server.url, EXAMPLE / "pairs.csv").strip())
        wait_for_steps(connection)
        until = time.monotonic() + 60 * args.minutes
        mixed = Mixed(server.url, images)
        with Load(server.url, images, 1, args.threads, args.every, overloaded=args.mixed) as load, mixed if args.mixed else contextlib.nullcontext():
            while time.monotonic() < until:
                windows.append(window(server, connection, load))
                note(str(windows[-1]))
    finally:
        code = server.stop()
    thirds = [windows[i * len(windows) // 3:(i + 1) * len(windows) // 3] for i in range(3)]
    names = [name for name in windows[0] if windows[0][name] is not None]
    rows = [[label, *(round(statistics.median(one[name] for one in part), 2) for name in names)] for label, part in zip(["first", "middle", "last"], thirds)]
    print(table(["third", *names], rows))
    grown = {name: growth(windows, name) for name in ("rss_mb", "gpu_mb")}
    failures, steps = sum(one["failures"] for one in windows), sum(one["steps_per_second"] for one in windows)
    for (what, status), count in sorted(mixed.statuses.items()):
        print(f"{what}: {status}: {count}")
    failures += mixed.failures()
    flat = all(factor is None or factor <= MOST_GROWTH for factor in grown.values())
    print(f"last third over middle third: {grown}; {failures} failures; the server ended with {code}")
    if args.out:
        args.out.write_text(json.dumps({"settings": args.set, "grown": grown, "windows": windows}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if flat and not failures and steps and code == 0 else 1)


if __name__ == "__main__":
    main()
