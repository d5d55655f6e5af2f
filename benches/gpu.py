#!/usr/bin/env python3
"""kith on an NVIDIA GPU beside PyTorch on the same one: embeddings, and training steps of EMC².

    pip install torch onnxruntime numpy
    python3 benches/gpu.py --kith target/release/kith [--device cuda:0] [--rounds 5] [--seconds 1] [--steps 30] [--no-compile] [--json FILE]

Both start from float pixels in the host's memory and end with vectors there. PyTorch runs bf16, channels last, `cudnn.benchmark`, from pinned
memory, and for embeddings also through `torch.compile` where that works. Its training step is EMC² written in two ways: the walk as a Python
loop over the proposals, each accepted or not for all anchors at once, as the method's authors wrote it; and the subset kernel, which needs no
loop. Negatives that are not in the batch are encoded with it, as kith does; both stand on noise made before, so that as many are carried.
Rounds are interleaved; a ratio is the median of the rounds' ratios. kith's steps are those of `kith study cost`. Steps run without
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
    """The same network in PyTorch."""

    def __init__(self, device, dim, compiled=False):
        self.device, self.dtype = torch.device(device), torch.bfloat16
        self.encoder = Encoder(dim=dim).to(self.device, memory_format=torch.channels_last)
        self.run = torch.compile(self.encoder, mode="max-autotune") if compiled else self.encoder

    def host(self, count, side):
        pixels = torch.rand(count, 3, side, side).mul_(2).sub_(1).to(memory_format=torch.channels_last)
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def encode(self, pixels):
        with torch.autocast(self.device.type, self.dtype):
            return self.run(pixels.to(self.device, non_blocking=True)).float()

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


def kith_forward(args, side, batch):
    command = [args.kith, "bench", "--json", "--only=forward", f"--side={side}", f"--batch={batch}", f"--threads={os.cpu_count()}", "--rounds=1",
               f"--seconds={args.seconds}", "--set", f"encoder.device={args.device}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout)["forward"][0]["images_per_second"]


def kith_steps(args, batch, side):
    """Milliseconds of a step and the visits' share of it, by estimator."""
    with tempfile.TemporaryDirectory() as out:
        sets = [f"batch={batch}", f"side={side}", f"dim={DIM}", f"steps={args.steps}", "small_steps=1", f"chains=[{CHAINS}]"]
        options = [part for one in sets for part in ("--set", one)]
        command = [args.kith, "study", "cost", "--out", out, "--scale", "laptop", "--seeds", "1", "--device", args.device, *options]
        # The study judges what it measures; here only the points matter.
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        lines = Path(out) / "points.jsonl"
        points = [json.loads(line) for line in lines.read_text().splitlines()[1:]] if lines.exists() else []
        if not any("walk_share" in point["values"] for point in points):
            raise RuntimeError(done.stderr.strip()[-500:])
    found = {point["series"].split(",")[0]: point["values"] for point in points if "walk_share" in point["values"]}
    return {name: {key: float(value) for key, value in values.items()} for name, values in found.items()}


def embeddings(args):
    rows, peers = [], {"pytorch": Peer(args.device, 128)}
    if args.compile:
        peers["compiled"] = Peer(args.device, 128, compiled=True)
    for side in args.sides:
        for batch in args.batches:
            rounds = []
            for _ in range(args.rounds):
                one = {"kith": kith_forward(args, side, batch)}
                for name, peer in peers.items():
                    pixels = peer.host(batch, side)
                    one[name] = rate(lambda: len(peer.forward(pixels)), args.seconds)
                rounds.append(one)
            row = {"side": side, "batch": batch} | {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
            rows.append(row | {f"kith / {name}": statistics.median(one["kith"] / one[name] for one in rounds) for name in peers})
            note(str(rows[-1]))
    return rows


def steps(args):
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
        note(str(rows[-1]))
    return rows


def numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith", help="a build with --features cuda")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each program, cell and round")
    parser.add_argument("--steps", type=int, default=30, help="of kith in each round")
    parser.add_argument("--sides", type=numbers, default=[96, 224])
    parser.add_argument("--batches", type=numbers, default=[1, 8, 64, 256, 1024])
    parser.add_argument("--pairs", type=numbers, default=[32, 128, 256])
    parser.add_argument("--train-side", type=int, default=96)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--only", choices=["forward", "train"])
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    result = {"torch": torch.__version__, "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}
    if args.only != "train":
        result["embeddings, images a second"] = embeddings(args)
    if args.only != "forward":
        result["training steps"] = steps(args)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    print(f"{result['device']}, PyTorch {result['torch']}")
    for name, rows in list(result.items())[2:]:
        shown = [[f"{value:.3g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
        print(f"\n{name}\n\n{table(list(rows[0]), shown)}")


if __name__ == "__main__":
    main()
