#!/usr/bin/env python3
"""Where the time on an NVIDIA GPU goes: runs a program with `gpu_trace.cpp` loaded and sums up its kernels and copies.

    python3 benches/gpu_trace.py [--library libtrace.so] [--cupti FOLDER] [--tail 0.4] [--events 0] [--raw FILE] -- program arguments...

The last part of the run (`--tail`, a share of the time from the first event to the last) is summed up: by then passes are recorded. A share
is of that time; where nothing runs, the GPU waits for the processor. `--events` prints so many of the last events one by one. Without
`--library` the library is compiled here (`CUDA_HOME`; CUPTI's include and lib lie in `--cupti`, by default where pip puts them). Tracing
makes each pass some per cent slower.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path

from harness import table

HERE = Path(__file__).resolve().parent
SITE = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13"


def compiled(folder, cupti):
    library = Path(folder) / "libtrace.so"
    cuda = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    command = ["g++", "-O2", "-shared", "-fPIC", f"-I{cuda}/include", f"-I{cupti}/include", "-o", library, HERE / "gpu_trace.cpp",
               f"-L{cupti}/lib", "-l:libcupti.so.13"]
    subprocess.run(command, check=True)
    return library


def events(path):
    """(what, stream, start, end, name) in the order of their starts; nanoseconds from the first on."""
    lines = (line.rstrip("\n").split("\t", 4) for line in path.read_text().splitlines())
    found = sorted((int(start), int(end), what, int(stream), name) for what, stream, start, end, name in lines)
    first = found[0][0] if found else 0
    return [(what, stream, start - first, end - first, name) for start, end, what, stream, name in found]


def busy(found):
    """Nanoseconds in which anything runs."""
    total, until = 0, 0
    for _, _, start, end, _ in found:
        total += max(0, end - max(start, until))
        until = max(until, end)
    return total


def short(name):
    return name if len(name) <= 110 else name[:70] + " … " + name[-37:]


def summary(found):
    span = found[-1][3] - found[0][2]
    by_name = defaultdict(list)
    for what, _, start, end, name in found:
        by_name[what, name].append(end - start)
    rows = [[what, short(name), len(times), f"{sum(times) / len(times) / 1e3:.2f}", f"{100 * sum(times) / span:.1f}"]
            for (what, name), times in sorted(by_name.items(), key=lambda one: -sum(one[1]))]
    print(f"{len(found)} events in {span / 1e6:.2f} ms, of which something runs in {100 * busy(found) / span:.1f} %\n")
    print(table(["what", "name", "times", "mean µs", "share %"], rows[:40]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path)
    parser.add_argument("--cupti", type=Path, default=SITE)
    parser.add_argument("--tail", type=float, default=0.4)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--raw", type=Path, help="keep the events here")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[args.command[:1] == ["--"]:]
    with tempfile.TemporaryDirectory() as folder:
        library = args.library.resolve() if args.library else compiled(folder, args.cupti)
        raw = args.raw or Path(folder) / "trace.tsv"
        path = f"{args.cupti / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        done = subprocess.run(command, env=os.environ | {"GPU_TRACE": str(raw), "CUDA_INJECTION64_PATH": str(library), "LD_LIBRARY_PATH": path},
                              stdout=subprocess.DEVNULL, check=False)
        found = events(raw) if raw.exists() else []
    if not found:
        sys.exit(f"nothing ran on the GPU; the program ended with {done.returncode}")
    last = found[-1][3]
    summary([one for one in found if one[2] >= last * (1 - args.tail)])
    for what, stream, start, end, name in found[-args.events:] if args.events else []:
        print(f"{start / 1e3:12.1f} +{(end - start) / 1e3:8.1f} µs  stream {stream}  {what} {short(name)}")


if __name__ == "__main__":
    main()
