#!/usr/bin/env python3
"""What people run today, on the same emoji: a ResNet-18 with BatchNorm in PyTorch, InfoNCE over large batches, from random weights.

    pip install torch torchvision pillow numpy
    python3 benches/torch_curve.py FOLDER --out RESULTS [--batch 96] [--rate 1e-3] [--steps 50,100,200,400] [--seed 1] [--threads 2]

FOLDER as for emoji_curve.py; the same pairs, questions and side (64). Temperature 0.1, AdamW, a warm-up of 20 steps and then a constant rate, views by
torchvision's crop (half of the area at least) and colour jitter, no mirror images. After each number of steps the embedding (in eval mode, so with the
running means) and the features below it are judged. RESULTS gets torch.csv with the processor seconds of training alone.
"""

import argparse
import random
import resource
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import models, transforms

from emoji_curve import PAIRS, QUESTIONS, VENDORS, pictures, write
from harness import note, table

SIDE, DIM, TEMPERATURE, WARMUP = 64, 128, 0.1, 20
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def opened(path):
    image = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB").resize((SIDE, SIDE))


def seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = models.resnet18(weights=None)
        self.trunk.fc = torch.nn.Identity()
        self.head = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, DIM))

    def forward(self, pixels):
        features = self.trunk(pixels)
        return F.normalize(self.head(features), dim=1), F.normalize(features, dim=1)


def recalls(encoder, holdout, as_input):
    """recall@1 by question, of the embedding and of the features below it."""
    encoder.eval()
    with torch.no_grad():
        found = {v: encoder(torch.stack([as_input(images[v]) for images in holdout.values()])) for v in VENDORS}
    encoder.train()
    figures = {}
    for place, name in enumerate(("embedding", "features")):
        for query, gallery in QUESTIONS:
            nearest = (found[query][place] @ found[gallery][place].T).argmax(1)
            figures[f"{name} {query}→{gallery}"] = round((nearest == torch.arange(len(nearest))).float().mean().item(), 4)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--steps", default="50,100,200,400")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    for seed in (torch.manual_seed, numpy.random.seed, random.seed):
        seed(args.seed)
    train, holdout = ({point: {v: opened(path) for v, path in paths.items()} for point, paths in pictures(args.folder, split).items()} for split in ("train", "holdout"))
    as_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
    jitter = transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)
    view = transforms.Compose([transforms.RandomResizedCrop(SIDE, (0.5, 1.0)), jitter, transforms.RandomGrayscale(0.2), as_input])
    pairs = [(point, pair) for pair in PAIRS for point in train]
    encoder = Encoder()
    optimizer = torch.optim.AdamW(encoder.parameters(), args.rate, weight_decay=1e-4)
    marks, rows, used = [int(mark) for mark in args.steps.split(",")], [], 0.0
    for step in range(1, marks[-1] + 1):
        began = seconds()
        # A code point stands once in a batch: its other pairs would be false negatives.
        drawn = {point: pair for point, pair in random.sample(pairs, 2 * args.batch)}
        drawn = list(drawn.items())[: args.batch]
        sides = [torch.stack([view(train[point][pair[side]]) for point, pair in drawn]) for side in (0, 1)]
        first, second = encoder(torch.cat(sides))[0].chunk(2)
        scores = first @ second.T / TEMPERATURE
        target = torch.arange(len(scores))
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        optimizer.param_groups[0]["lr"] = args.rate * min(1.0, step / WARMUP)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        used += seconds() - began
        if step in marks:
            rows.append({"step": step, "processor_seconds": round(used), "loss": round(loss.item(), 3), **recalls(encoder, holdout, as_input)})
            note(rows[-1])
    write(args.out / "torch.csv", list(rows[0]), [list(row.values()) for row in rows])
    print(table(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main()
