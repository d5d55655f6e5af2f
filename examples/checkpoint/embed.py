"""Embeds an image with a checkpoint's model.safetensors, without kith: what docs/checkpoints.md describes, as a program.

    python embed.py FOLDER IMAGE...                         # prints one JSON line an image
    python embed.py FOLDER IMAGE --server http://127.0.0.1:7700   # also asks kith and prints the cosine of the two

FOLDER holds manifest.json and model.safetensors. Needs NumPy and Pillow. It is written to be read, not to be fast.
"""

import argparse
import base64
import json
import pathlib
import struct
import urllib.request

import numpy as np
from PIL import Image, ImageOps

MEAN = np.float32([0.485, 0.456, 0.406])
DEVIATION = np.float32([0.229, 0.224, 0.225])
# Stages whose means over a grid of places the embedding reads too: the arrays' name, and places along one direction.
GRIDS = {1: ("fine_places", 4), 3: ("places", 2)}


def read_weights(path):
    """Name to array: eight bytes of length, a JSON header, then little-endian 32-bit floats."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    weights = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        raw = data[8 + length + start : 8 + length + end]
        weights[name] = np.frombuffer(raw, "<f4").reshape(entry["shape"])
    return weights


def preprocess(path, side):
    """The first frame, upright, over white; the centre square at `side`; normalised. [3, side, side]."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image).convert("RGB")
    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    box = (left, top, left + edge, top + edge)
    # A triangle filter whose support grows with the scale: what Pillow calls BILINEAR. Bytes in, bytes out.
    image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image, np.float32) / 255
    return ((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)


def windows(x, size, stride, pad, fill):
    """[channels, rows, columns, size, size]."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return view[:, ::stride, ::stride]


def convolve(weights, name, x, stride=1):
    """A cross-correlation with bias, as PyTorch's Conv2d; padded so that only the stride shrinks the map."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    size = weight.shape[2]
    found = windows(x, size, stride, size // 2, 0)
    return np.einsum("ihwkl,oikl->ohw", found, weight, optimize=True) + bias[:, None, None]


def relu(x):
    return np.maximum(x, 0)


def block(weights, name, x, stride):
    y = relu(convolve(weights, f"{name}.conv1", x, stride))
    y = convolve(weights, f"{name}.conv2", y)
    if stride != 1:
        x = convolve(weights, f"{name}.downsample.0", x, stride)
    return relu(y + x)


def forward(weights, pixels):
    """The embedding, of length 1, and the hidden features below it."""
    x = relu(convolve(weights, "conv1", pixels, 2))
    x = windows(x, 3, 2, 1, -np.inf).max((3, 4))
    places = {}
    for stage in range(1, 5):
        x = block(weights, f"layer{stage}.0", x, 1 if stage == 1 else 2)
        x = block(weights, f"layer{stage}.1", x, 1)
        if stage in GRIDS:
            name, grid = GRIDS[stage]
            part = x.shape[1] // grid
            places[name] = x.reshape(-1, grid, part, grid, part).mean((2, 4))
    x = x.mean((1, 2))
    hidden = relu(weights["fc.weight"] @ x + weights["fc.bias"])
    embedding = weights["projection.weight"] @ hidden + weights["projection.bias"]
    for name, means in places.items():
        if f"{name}.weight" in weights:  # older checkpoints do not read all of them
            embedding += np.einsum("ihw,oihw->o", means, weights[f"{name}.weight"]) + weights[f"{name}.bias"]
    return embedding / np.linalg.norm(embedding), hidden


def ask(server, checkpoint, side, path):
    """kith's own embedding by that checkpoint."""
    image = base64.b64encode(pathlib.Path(path).read_bytes()).decode()
    body = json.dumps({"model": f"kith@{checkpoint}", "input": image, "input_type": side}).encode()
    request = urllib.request.Request(f"{server}/v1/embeddings", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return np.float32(json.load(answer)["data"][0]["embedding"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--server")
    parser.add_argument("--side", choices=["anchor", "positive"], default="anchor", help="of a checkpoint with an encoder for each")
    arguments = parser.parse_args()
    manifest = json.loads((arguments.folder / "manifest.json").read_text())
    weights = read_weights(arguments.folder / "model.safetensors")
    if arguments.side == "positive" and manifest["encoder"].get("towers", 1) == 2:
        weights = {name.removeprefix("positive."): weights[name] for name in weights if name.startswith("positive.")}
    for path in arguments.images:
        embedding, _ = forward(weights, preprocess(path, manifest["encoder"]["side"]))
        line = {"path": path, "model": f"kith@{manifest['id']}", "embedding": [round(float(x), 6) for x in embedding]}
        if arguments.server:
            served = ask(arguments.server, manifest["id"], arguments.side, path)
            line["cosine"] = round(float(embedding @ served), 6)
        print(json.dumps(line))


if __name__ == "__main__":
    main()
