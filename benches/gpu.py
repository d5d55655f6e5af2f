#!/usr/bin/env python3
"""kith on an NVIDIA GPU beside PyTorch on the same one: embeddings, and training steps of EMC².

    pip install torch onnxruntime numpy
    python3 benches/gpu.py --kith target/release/kith [--study target/release/kith-study] [--device cuda:0] [--rounds 5] [--seconds 1] [--steps 200] [--compile 96:1,96:64] [--json FILE]

Both start from float pixels in the host's memory and end with vectors there. PyTorch runs bf16, channels last, `cudnn.benchmark`, from pinned
memory: with weights in bf16 ("eager"), with weights in float and autocast, which casts them in each pass ("autocast"), and, for the cells that
`--compile` names, through `torch.compile` with CUDA graphs (`--compile-mode max-autotune` takes minutes to compile each). Its training step is EMC² written in two ways: the walk as a Python
loop over the proposals, each accepted or not for all anchors at once, as the method's authors wrote it; and the subset kernel, which needs no
loop. Negatives that are not in the batch are encoded with it, as kith does; both stand on noise made before, so that as many are carried.
Rounds are interleaved; a ratio is the median of the rounds' ratios. kith's steps are those of `kith-study cost`. Steps run without
`cudnn.benchmark`, since the number of distinct negatives changes.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from harness import note, table
from peers import Encoder

BETA = 14.28
DIM = 512
CHAINS = 10_000


class Peer:
    """The same network in PyTorch: with weights in float and autocast, or with weights in bf16."""

    def __init__(self, device, dim, weights=torch.float32, compiled=None):
        self.device, self.dtype, self.weights = torch.device(device), torch.bfloat16, weights
        self.encoder = Encoder(dim=dim).to(self.device, weights, memory_format=torch.channels_last)
        self.run = torch.compile(self.encoder, mode=compiled, dynamic=False) if compiled else self.encoder

    def host(self, count, side):
        pixels = torch.rand(count, 3, side, side).mul_(2).sub_(1).to(memory_format=torch.channels_last)
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def encode(self, pixels):
        pixels = pixels.to(self.device, non_blocking=True).to(self.weights)
        with torch.autocast(self.device.type, self.dtype, enabled=self.weights != self.dtype):
            return self.run(pixels).float()

    def forward(self, pixels):
        with torch.inference_mode():
            return self.encode(pixels).cpu()


class Steps(Peer):
    """Training steps of EMC² over noise: anchors and negatives are numbers of images."""

    def __init__(self, device, batch, side, vectorised):
        super().__init__(device, DIM)
        self.batch, self.side, self.vectorised = batch, side, vectorised
        self.optimizer = torch.optim.Adam(self.encoder.parameters(), 1.5e-4, fused=self.device.type == "cuda")
        self.state = torch.randint(CHAINS, (CHAINS,), device=self.device)
        # Made once: what a step takes is to be seen, not what noise takes.
        self.noise = self.host(4 * batch, side)

    def walk(self, scores, carried):
        """[anchors, retained] columns of `scores`, whose last ones are the carried negatives; a loop over proposals."""
        anchors = scores.shape[0]
        held, retained = scores.gather(1, carried[:, None])[:, 0], []
        place = carried.clone()
        order = torch.randperm(self.batch, device=self.device)
        for step, pair in enumerate(order.tolist()):
            proposal = 2 * pair + torch.randint(2, (anchors,), device=self.device)
            value = scores.gather(1, proposal[:, None])[:, 0]
            own = torch.arange(anchors, device=self.device) // 2 == pair
            accept = (torch.rand(anchors, device=self.device).log() < value - held) & ~own
            held, place = torch.where(accept, value, held), torch.where(accept, proposal, place)
            if step >= self.batch // 2:
                retained.append(place)
        return torch.stack(retained, 1), place

    def subset(self, scores, carried):
        """[anchors, candidates] weights over the batch and the state, and the next state."""
        anchors = scores.shape[0]
        batch = scores[:, :anchors].clone()
        own = torch.arange(anchors, device=self.device) // 2
        batch[own[:, None] == own[None]] = -torch.inf
        weights = torch.softmax(torch.cat([batch, scores.gather(1, carried[:, None])], 1), 1)
        drawn = torch.multinomial(weights, 1)[:, 0]
        return weights, torch.where(drawn == anchors, carried, drawn)

    def step(self):
        anchors = torch.randperm(CHAINS // 2)[: self.batch].repeat_interleave(2) * 2
        anchors = (anchors + torch.arange(2).repeat(self.batch)).to(self.device)
        distinct, inverse = torch.unique(self.state[anchors], return_inverse=True)
        count = 2 * self.batch
        vectors = self.encode(self.noise[: count + len(distinct)])
        scores = BETA * vectors[:count] @ vectors.T
        with torch.no_grad():
            carried = count + inverse
            if self.vectorised:
                weights, place = self.subset(scores.detach(), carried)
            else:
                retained, place = self.walk(scores.detach(), carried)
        if self.vectorised:
            columns = torch.cat([torch.arange(count, device=self.device).expand(count, -1), carried[:, None]], 1)
            negative = (weights * scores.gather(1, columns)).sum(1)
        else:
            negative = scores.gather(1, retained).mean(1)
        partner = torch.arange(count, device=self.device) ^ 1
        loss = (negative - scores.gather(1, partner[:, None])[:, 0]).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimizer.step()
        self.state[anchors] = torch.where(place < count, anchors[place.clamp(max=count - 1)], self.state[anchors])
        loss.item()
        return count + len(distinct)


def rate(run, seconds):
    """Images a second: the median run, after three to warm up; `run` gives its images."""
    for _ in range(3):
        run()
    rates, began = [], time.perf_counter()
    while not rates or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        images = run()
        rates.append(images / (time.perf_counter() - start))
    return statistics.median(rates)


def kith_forward(args):
    """Images a second by side and batch, all from one process."""
    sides, batches = (",".join(map(str, numbers)) for numbers in (args.sides, args.batches))
    command = [args.kith, "bench", "--json", "--only=forward", f"--side={sides}", f"--batch={batches}", f"--threads={os.cpu_count()}", "--rounds=1",
               f"--seconds={args.seconds}", "--set", f"encoder.device={args.device}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return {(row["side"], row["batch"]): row["images_per_second"] for row in json.loads(done.stdout)["forward"]}


def kith_steps(args, batch, side):
    """Milliseconds of a step and the visits' share of it, by estimator."""
    with tempfile.TemporaryDirectory() as out:
        sets = [f"batch={batch}", f"side={side}", f"dim={DIM}", f"steps={args.steps}", "small_steps=1", f"chains=[{CHAINS}]"]
        options = [part for one in sets for part in ("--set", one)]
        command = [args.study or Path(args.kith).with_name("kith-study"), "cost", "--out", out, "--scale", "laptop", "--seeds", "1", "--device", args.device, "--compute", "bf16", *options]
        # The study judges what it measures; here only the points matter.
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        lines = Path(out) / "points.jsonl"
        points = [json.loads(line) for line in lines.read_text().splitlines()[1:]] if lines.exists() else []
        if not any("walk_share" in point["values"] for point in points):
            raise RuntimeError(done.stderr.strip()[-500:])
    found = {point["series"].split(",")[0]: point["values"] for point in points if "walk_share" in point["values"]}
    return {name: {key: float(value) for key, value in values.items()} for name, values in found.items()}


def embeddings(args, keep):
    cells = [(side, batch) for side in args.sides for batch in args.batches]
    peers = {"eager": Peer(args.device, 128, torch.bfloat16), "autocast": Peer(args.device, 128)}
    rounds = []
    for _ in range(args.rounds):
        kith = kith_forward(args)
        rounds.append({cell: {"kith": kith[cell], **{name: peer_rate(peer, cell, args.seconds) for name, peer in peers.items()}} for cell in cells})
        keep(rows := [row(cell, [one[cell] for one in rounds]) for cell in cells])
    for line in rows:
        note(str(line))
    return rows


def peer_rate(peer, cell, seconds):
    side, batch = cell
    pixels = peer.host(batch, side)
    return rate(lambda: len(peer.forward(pixels)), seconds)


def row(cell, rounds):
    """Medians over `rounds`, and kith's rate over each other one."""
    median = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    ratios = {f"kith / {name}": statistics.median(one["kith"] / one[name] for one in rounds) for name in median if name != "kith"}
    return {"side": cell[0], "batch": cell[1]} | median | ratios


def compiled(args, keep):
    """Compiling takes long: each cell is measured, beside kith, as soon as it is there."""
    rows = []
    for cell in args.compile:
        one = argparse.Namespace(**vars(args) | {"sides": [cell[0]], "batches": [cell[1]]})
        start = time.perf_counter()
        peer = Peer(args.device, 128, torch.bfloat16, args.compile_mode)
        peer.forward(peer.host(cell[1], cell[0]))
        taken = time.perf_counter() - start
        rounds = [{"kith": kith_forward(one)[cell], "compiled": peer_rate(peer, cell, args.seconds)} for _ in range(args.rounds)]
        rows.append(row(cell, rounds) | {"seconds to compile": taken})
        keep(rows)
        note(str(rows[-1]))
        torch.compiler.reset()
    return rows


def steps(args, keep):
    # Each step has another number of distinct negatives: measuring algorithms anew for each would take most of it.
    torch.backends.cudnn.benchmark = False
    rows = []
    for pairs in args.pairs:
        peers = {"loop": Steps(args.device, pairs, args.train_side, False), "vectorised": Steps(args.device, pairs, args.train_side, True)}
        rounds = []
        for _ in range(args.rounds):
            kith = kith_steps(args, pairs, args.train_side)
            one = {"walk": kith["emc2-walk"], "subset": kith["emc2-subset"]}
            for name, peer in peers.items():
                began, taken = time.perf_counter(), []
                while not taken or time.perf_counter() - began < args.seconds:
                    start = time.perf_counter()
                    peer.step()
                    taken.append(time.perf_counter() - start)
                one[name] = 1e3 * statistics.median(taken[min(3, len(taken) - 1):])
            rounds.append(one)
        middle = lambda of: statistics.median(of(one) for one in rounds)
        rows.append({
            "pairs": pairs, "kith walk ms": middle(lambda one: one["walk"]["step_milliseconds"]),
            "kith subset ms": middle(lambda one: one["subset"]["step_milliseconds"]),
            "loop ms": middle(lambda one: one["loop"]), "vectorised ms": middle(lambda one: one["vectorised"]),
            "loop / walk": middle(lambda one: one["loop"] / one["walk"]["step_milliseconds"]),
            "vectorised / subset": middle(lambda one: one["vectorised"] / one["subset"]["step_milliseconds"]),
            **{f"share of {what}": middle(lambda one, share=share: max(one[name][share] for name in ("walk", "subset")))
               for what, share in (("visits", "walk_share"), ("masks and scores", "score_share"))}})
        keep(rows)
        note(str(rows[-1]))
    return rows


def numbers(text):
    return [int(part) for part in text.split(",")]


def keep(args, result):
    """What there is so far is there if the time runs out."""
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


def cells(text):
    return [tuple(map(int, part.split(":"))) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith", help="a build with --features cuda")
    parser.add_argument("--study", help="kith-study, built with --features cuda; by default beside --kith")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each program, cell and round")
    parser.add_argument("--steps", type=int, default=200, help="of kith in each round: in the first ones passes are recorded")
    parser.add_argument("--sides", type=numbers, default=[96, 224])
    parser.add_argument("--batches", type=numbers, default=[1, 8, 64, 256, 1024])
    parser.add_argument("--pairs", type=numbers, default=[32, 128, 256])
    parser.add_argument("--train-side", type=int, default=96)
    parser.add_argument("--compile", type=cells, default=[], metavar="SIDE:BATCH,...")
    parser.add_argument("--compile-mode", choices=["reduce-overhead", "max-autotune"], default="max-autotune")
    parser.add_argument("--only", choices=["forward", "train", "compile"])
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    result = {"torch": torch.__version__, "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}
    parts = {"forward": ("embeddings, images a second", embeddings), "train": ("training steps", steps),
             "compile": ("embeddings beside torch.compile", compiled)}
    for part, (name, measure) in parts.items():
        if args.only in (None, part) and (part != "compile" or args.compile):
            result[name] = measure(args, lambda rows, name=name: keep(args, result | {name: rows}))
    print(f"{result['device']}, PyTorch {result['torch']}")
    for name, rows in list(result.items())[2:]:
        shown = [[f"{value:.3g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
        print(f"\n{name}\n\n{table(list(rows[0]), shown)}")


if __name__ == "__main__":
    main()
