"""Makes layers.safetensors: what PyTorch computes in float64 for each layer shape of ResNet-18, as fingerprints.

Run: python crates/kith-nn/tests/golden/make_layers.py (needs torch, numpy). crates/kith-nn/src/tests/layers.rs reads the file
and builds the same inputs from the same hash. An array of millions of values is stored as its norm, SIGNS sums with random signs
(one wrong value changes each of them) and SAMPLES of its values (they show where an error is).
"""

import pathlib

import numpy as np
import torch
import torch.nn.functional as F

from golden import hashes, save, uniform

# Batches at each side of the input: odd, and small enough for tests.
BATCHES = {32: [1, 3, 9], 64: [1, 5, 9], 96: [1, 3], 224: [1]}
HEAD_BATCHES = [1, 5, 33]
SIGNS, SAMPLES = 4, 16
WIDTH, DIM = 64, 128


def random(stream, shape, steps=None):
    """Uniform in [-1, 1); with `steps`, whole numbers from -steps to steps - 1."""
    values = uniform(stream, int(np.prod(shape)))
    return torch.from_numpy(np.floor(values * steps) if steps else values).reshape(*shape)


def fingerprint(array):
    flat = array.detach().contiguous().numpy().ravel()
    bits = hashes(10, flat.size)
    sums = [np.where(bits >> np.uint32(8 + k) & np.uint32(1), -flat, flat).sum() for k in range(SIGNS)]
    return [np.linalg.norm(flat), *sums, *flat[hashes(11, SAMPLES) % np.uint32(flat.size)]]


def layer_fingerprints(shape, side, batch, stem=False):
    """Of the output and of the gradients of input, weight and bias; as the stem, with ReLU and max-pool and on whole
    numbers: float32 has no rounding there, so that both see the same ties."""
    inputs, outputs, kernel, stride = shape
    x = random(3, (batch, side, side, inputs), 4 if stem else None).permute(0, 3, 1, 2).requires_grad_()
    weight = random(1, (kernel, kernel, inputs, outputs), 2 if stem else None).requires_grad_()
    bias = random(2, (outputs,), 4 if stem else None).requires_grad_()
    y = F.conv2d(x, weight.permute(3, 2, 0, 1), bias, stride, kernel // 2)
    if stem:
        y = F.max_pool2d(F.relu(y), 3, 2, 1)
    gradient = random(4, (batch, y.shape[2], y.shape[2], outputs), 4 if stem else None).permute(0, 3, 1, 2)
    gradients = torch.autograd.grad(y, (x, weight, bias), gradient)
    inside = [y.permute(0, 2, 3, 1), gradients[0].permute(0, 2, 3, 1), *gradients[1:]]
    return np.array([fingerprint(array) for array in inside], dtype=np.float32)


def backbone(side):
    """Each distinct (name, shape, side of its input)."""
    yield "conv1", (3, WIDTH, 7, 2), side
    yield "layer1.0.conv1", (WIDTH, WIDTH, 3, 1), side // 4
    for stage in (1, 2, 3):
        inputs, outputs, at = WIDTH << stage - 1, WIDTH << stage, side // 4 >> stage
        yield f"layer{stage + 1}.0.conv1", (inputs, outputs, 3, 2), 2 * at
        yield f"layer{stage + 1}.0.conv2", (outputs, outputs, 3, 1), at
        yield f"layer{stage + 1}.0.downsample.0", (inputs, outputs, 1, 2), 2 * at


def main():
    arrays = {}
    for side, batches in BATCHES.items():
        for batch in batches:
            for name, shape, at in backbone(side):
                arrays[f"{name} {side} {batch}"] = layer_fingerprints(shape, at, batch)
            arrays[f"stem {side} {batch}"] = layer_fingerprints((3, WIDTH, 7, 2), side, batch, stem=True)
    for batch in HEAD_BATCHES:
        of_places = [(name, 16 * WIDTH, DIM) for name in ("places", "fine_places")]
        for name, inputs, outputs in [("fc", 8 * WIDTH, 8 * WIDTH), ("projection", 8 * WIDTH, DIM), *of_places]:
            arrays[f"{name} {batch}"] = layer_fingerprints((inputs, outputs, 1, 1), 1, batch)
    save(pathlib.Path(__file__).parent / "layers.safetensors", arrays)


main()
