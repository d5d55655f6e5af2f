"""Makes resnet.safetensors: what PyTorch computes for the encoder that tests/all/support.rs builds from the same formulas.

Run: python crates/kith-nn/tests/golden/make_resnet.py (needs torch, numpy). Weights, pixels and the embedding's gradient come from
`values` and are not stored. Of each gradient and each trained weight only every k-th value is stored.

With `--full WIDTH SIDE BATCH` it writes all values of a large network to the folder --out instead.
"""

import argparse
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from golden import save, uniform

KEEP = 96  # values kept of an array


def values(stream, count):
    """Uniform in [-1, 1)."""
    return uniform(stream, count).astype(np.float32)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        halves = stride != 1
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if halves else nn.Identity()

    def forward(self, x):
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.downsample(x))


class Encoder(nn.Module):
    def __init__(self, width, dim):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        for stage in range(1, 5):
            first = Block(sizes[stage - 1], sizes[stage], 1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, Block(sizes[stage], sizes[stage], 1)))
        self.fc = nn.Linear(8 * width, 8 * width)
        self.projection = nn.Linear(8 * width, dim)
        self.places = nn.Conv2d(4 * width, dim, 2)
        self.fine_places = nn.Conv2d(width, dim, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2, 1)
        first = self.layer1(x)
        third = self.layer3(self.layer2(first))
        places, fine_places = F.adaptive_avg_pool2d(third, 2), F.adaptive_avg_pool2d(first, 4)
        hidden = F.relu(self.fc(self.layer4(third).mean((2, 3))))
        by_places = self.places(places).flatten(1) + self.fine_places(fine_places).flatten(1)
        embedding = F.normalize(self.projection(hidden) + by_places, dim=1)
        return embedding, hidden, *(means.permute(0, 2, 3, 1).flatten(1) for means in (places, fine_places))


def build(width, dim):
    encoder = Encoder(width, dim)
    with torch.no_grad():
        for stream, (name, array) in enumerate(encoder.named_parameters()):
            bound = 0.1 if name.endswith("bias") else (6 / (array.numel() / array.shape[0])) ** 0.5
            if name.endswith("conv2.weight"):
                bound *= 0.3
            array.copy_(torch.from_numpy(values(stream, array.numel()) * np.float32(bound)).reshape(array.shape))
    return encoder


def inputs(side, batch, dim):
    pixels = torch.from_numpy(values(1000, batch * side * side * 3)).reshape(batch, side, side, 3)
    gradient = torch.from_numpy(values(1001, batch * dim)).reshape(batch, dim)
    return pixels.permute(0, 3, 1, 2), gradient


def thin(array, keep):
    flat = array.detach().reshape(-1)
    return flat[:: -(-flat.numel() // keep)].numpy().copy()


def passes(encoder, pixels, gradient, keep):
    out = {}
    found = encoder(pixels)
    embedding = found[0]
    names = ("embedding", "hidden", "places", "fine_places")
    out |= {name: array.detach().numpy() for name, array in zip(names, found)}
    (embedding * gradient).sum().backward()
    for name, array in encoder.named_parameters():
        out[f"gradient.{name}"] = thin(array.grad, keep)
    return out


def trained(kind, side, batch, width, dim):
    encoder = build(width, dim)
    pixels, gradient = inputs(side, batch, dim)
    decayed = [p for n, p in encoder.named_parameters() if n.endswith("weight")]
    biases = [p for n, p in encoder.named_parameters() if n.endswith("bias")]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": biases, "weight_decay": 0.0}]
    if kind == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    else:
        of = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
        optimizer = of(groups, lr=0.001, betas=(0.9, 0.98), eps=1e-6)
    for _ in range(5):
        optimizer.zero_grad()
        (encoder(pixels)[0] * gradient).sum().backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    return {f"{kind}.{name}": thin(array, 24) for name, array in encoder.named_parameters()}


def pooled():
    """Max-pool with ties: whole numbers from few."""
    x = torch.from_numpy(np.floor(values(1002, 2 * 5 * 5 * 3) * 2)).reshape(2, 5, 5, 3)
    x = x.permute(0, 3, 1, 2).contiguous().requires_grad_()
    y = F.max_pool2d(x, 3, 2, 1)
    (y * torch.from_numpy(values(1003, y.numel())).reshape(2, 3, 3, 3).permute(0, 3, 1, 2)).sum().backward()
    return {"pool.output": y.detach().permute(0, 2, 3, 1), "pool.gradient": x.grad.permute(0, 2, 3, 1)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", type=int, nargs=3, metavar=("WIDTH", "SIDE", "BATCH"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()
    if arguments.full:
        width, side, batch = arguments.full
        arrays = passes(build(width, 128), *inputs(side, batch, 128), keep=1 << 14)
        save(arguments.out / f"resnet-{width}-{side}.safetensors", arrays)
        return
    arrays = passes(build(8, 16), *inputs(32, 3, 16), keep=KEEP)
    wide = passes(build(8, 16), *inputs(96, 2, 16), keep=24)
    arrays |= {f"side96.{name}": array for name, array in wide.items()}
    for kind in ["adamw", "adam", "sgd"]:
        arrays |= trained(kind, 32, 3, 8, 16)
    save(arguments.out / "resnet.safetensors", arrays | pooled())


main()
