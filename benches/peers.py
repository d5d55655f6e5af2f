#!/usr/bin/env python3
"""kith's encoder beside PyTorch and onnxruntime on this machine's CPU: embeddings, training steps, memory.

    pip install torch onnx onnxruntime numpy
    python3 benches/peers.py --kith target/release/kith [--threads 2] [--rounds 5] [--seconds 1] [--only forward|train] [--json FILE]

All run the same network (ResNet-18 without BatchNorm and its head) with the same number of threads. Each round measures all of them for each
cell, one after the other, so that a busy moment of the machine meets them alike. Rates are medians over rounds of medians over runs; a
ratio is the median of the rounds' ratios. PyTorch is taken in the memory format (NCHW or channels last) that is faster. Memory is the most
that training adds to a process: weights, moments, batch, maps, gradients (Linux).

Run it on an idle machine: threads of PyTorch and onnxruntime that wait for each other spin, so that other programs slow them far more than
kith. It says so if the machine is busy.
"""

import argparse
import functools
import io
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

from harness import note, table

SIDES = {"forward": (96, 224), "train": (64, 96)}
BATCHES = {"forward": (1, 8, 32), "train": (8, 32, 64)}
FORMATS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
TEMPERATURE = 0.1
PEAK_STEPS = 3


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()
        nn.init.zeros_(self.second.weight)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Encoder(nn.Module):
    """ResNet-18 without BatchNorm, fc + ReLU, a projection, unit length."""

    def __init__(self, width=64, dim=128):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, 3)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        blocks = [Block(sizes[stage + second], sizes[stage + 1], 2 if stage and not second else 1)
                  for stage in range(4) for second in (0, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.fc, self.projection = nn.Linear(8 * width, 8 * width), nn.Linear(8 * width, dim)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        hidden = F.relu(self.fc(self.blocks(x).mean((2, 3))))
        return F.normalize(self.projection(hidden), dim=1)


def images(count, side, layout):
    return torch.rand(count, 3, side, side).mul_(2).sub_(1).to(memory_format=FORMATS[layout])


@functools.cache
def in_training(layout, width=64):
    encoder = Encoder(width).to(memory_format=FORMATS[layout])
    return encoder, torch.optim.AdamW(encoder.parameters(), 1e-6)


@functools.cache
def session(side, threads):
    model, x, free = io.BytesIO(), torch.zeros(1, 3, side, side), {"x": {0: "batch"}, "y": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Encoder().eval(), (x,), model, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=free)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.getvalue(), options, providers=["CPUExecutionProvider"])


def torch_forward(side, batch, layout):
    (encoder, _), x = in_training(layout), images(batch, side, layout)

    def run():
        with torch.inference_mode():
            encoder(x)

    return run


def torch_train(side, pairs, layout, width=64):
    (encoder, optimizer), x = in_training(layout, width), images(2 * pairs, side, layout)
    partner = torch.arange(2 * pairs) ^ 1

    def run():
        optimizer.zero_grad()
        embedding = encoder(x)
        scores = (embedding @ embedding.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        F.cross_entropy(scores, partner).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()

    return run


def onnx_forward(side, batch, threads):
    x = images(batch, side, "NCHW").numpy()
    return lambda: session(side, threads).run(None, {"x": x})


def rate(run, count, seconds):
    """Images a second: the median run, after one to warm up."""
    run()
    times, began = [], time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return count / statistics.median(times)


def kith_row(args, what, side, batch):
    command = [args.kith, "bench", "--json", f"--only={what}", f"--side={side}", f"--batch={batch}",
               f"--threads={args.threads}", f"--seconds={args.seconds}", "--rounds=1"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout)[what][0]


def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def own_peak(side, pairs, layout):
    """The most that training adds to this process; a tiny network goes first, so that libraries are loaded."""
    torch_train(32, 2, layout, width=8)()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run = torch_train(side, pairs, layout)
    for _ in range(PEAK_STEPS):
        run()
    return status("VmHWM") - before


def torch_peak(args, side, pairs, layout):
    if not os.path.exists("/proc/self/clear_refs"):
        return None
    command = [sys.executable, __file__, "--threads", str(args.threads), "--peak", str(side), str(pairs), layout]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def measure(args, what, side, batch):
    """One cell in one round: rates by program, and kith's peak in training."""
    row, count = kith_row(args, what, side, batch), batch if what == "forward" else 2 * batch
    rates = {"kith": row["images_per_second"]}
    peer = torch_forward if what == "forward" else torch_train
    for layout in FORMATS:
        rates[layout] = rate(peer(side, batch, layout), count, args.seconds)
    if what == "forward":
        rates["onnxruntime"] = rate(onnx_forward(side, batch, args.threads), count, args.seconds)
    return rates, row.get("peak_bytes")


def summary(args, what, side, batch, rounds):
    rates = {name: statistics.median(one[name] for one, _ in rounds) for name in rounds[0][0]}
    layout = max(FORMATS, key=rates.get)
    ratio = {peer: round(statistics.median(one["kith"] / one[peer] for one, _ in rounds), 3)
             for peer in (layout, "onnxruntime") if peer in rates}
    row = {"what": what, "side": side, "batch" if what == "forward" else "pairs": batch, "kith": rates["kith"],
           "pytorch": rates[layout], "layout": layout, "kith_to_pytorch": ratio[layout]}
    if what == "forward":
        return row | {"onnxruntime": rates["onnxruntime"], "kith_to_onnxruntime": ratio["onnxruntime"]}
    kith_peaks = [peak for _, peak in rounds if peak]
    return row | {"kith_peak_bytes": max(kith_peaks, default=None), "pytorch_peak_bytes": torch_peak(args, side, batch, layout)}


def text(value):
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return f"{value / 1e6:.0f} MB" if isinstance(value, int) and value > 1e6 else str(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each program, cell and round")
    parser.add_argument("--only", choices=list(SIDES))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.peak:
        print(own_peak(int(args.peak[0]), int(args.peak[1]), args.peak[2]))
        return
    if os.getloadavg()[0] > 0.5:
        note("other programs are running: the ratios will flatter kith")
    wanted = [args.only] if args.only else list(SIDES)
    cells = {(what, side, batch): [] for what in wanted for side in SIDES[what] for batch in BATCHES[what]}
    for number in range(args.rounds):
        note(f"round {number + 1} of {args.rounds}")
        for cell, rounds in cells.items():
            rounds.append(measure(args, *cell))
    rows = [summary(args, *cell, rounds) for cell, rounds in cells.items()]
    result = {"threads": args.threads, "torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "rounds": args.rounds, "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    print(f"{args.threads} threads, PyTorch {torch.__version__}, onnxruntime {onnxruntime.__version__}; images a second")
    for what in wanted:
        of = [row for row in rows if row["what"] == what]
        print("\n" + table(list(of[0])[1:], [[text(value) for value in list(row.values())[1:]] for row in of]))


if __name__ == "__main__":
    main()
