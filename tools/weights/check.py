"""Checks weights in and out against PyTorch and onnxruntime, at full width.

    pip install torch torchvision onnxruntime onnx safetensors numpy pillow
    python3 tools/weights/check.py --kith target/release/kith IMAGES [--file FILE.pth ...] [--side 64,96,224]

IMAGES is a folder of images; those that have a side's size are not resized, so that the input is the same everywhere. For the starter encoder and for each FILE (ResNet-18 as torchvision saves it, with prefixes and a head or without), the
checkpoint that kith makes of it is exported as torchvision's weights and as ONNX. Printed are the largest differences of

- the features that kith's network computes from those of the file in PyTorch (for files with BatchNorm), relative to the largest feature;
- the embeddings in PyTorch (strict load) and in onnxruntime from those that a running kith answers;

and the share of images whose nearest neighbour by kith's embedding of 512 values is that by the file's bare features. Exit status 1 if a difference
is above 1e-4 or the share below 0.99.
"""

import argparse
import base64
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision
from safetensors.torch import load_file

# The program that the documentation shows.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "checkpoint"))
from embed import preprocess  # noqa: E402


class Kith:
    """A server on a new data folder that starts from given weights and does not train."""

    def __init__(self, program, start, dim, side):
        self.program, self.folder = program, tempfile.TemporaryDirectory()
        self.data = f"{self.folder.name}/data"
        sets = {"encoder.start": start, "encoder.dim": dim, "encoder.side": side, "training.enabled": "false", "log.filter": "warn"}
        sets = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
        command = [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", self.data, *sets]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = re.search(r"http://\S+", self.process.stdout.readline())[0]

    def embeddings(self, paths):
        found = []
        for start in range(0, len(paths), 32):
            uris = ["data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() for path in paths[start : start + 32]]
            body = json.dumps({"model": "kith", "input": uris}).encode()
            request = urllib.request.Request(f"{self.url}/v1/embeddings", body, {"content-type": "application/json"})
            answer = json.load(urllib.request.urlopen(request))
            found += [row["embedding"] for row in answer["data"]]
        return np.float32(found)

    def export(self, form):
        out = pathlib.Path(self.folder.name, form)
        command = [self.program, "checkpoint", "export", "live", "--format", form, "--out", str(out), "--data-dir", self.data]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.folder.cleanup()


@torch.no_grad()
def by_torch(folder, pixels):
    """Embeddings as the README of torchvision's export computes them."""
    network = torchvision.models.resnet18()
    network.load_state_dict(load_file(folder / "resnet18.safetensors"), strict=True)
    network.fc = torch.nn.Identity()
    network.eval()
    head = load_file(folder / "head.safetensors")
    kept, pool = {}, torch.nn.functional.adaptive_avg_pool2d
    network.layer1.register_forward_hook(lambda layer, inputs, output: kept.update(fine_places=pool(output, 4)))
    network.layer3.register_forward_hook(lambda layer, inputs, output: kept.update(places=pool(output, 2)))
    hidden = torch.relu(network(torch.from_numpy(pixels)) @ head["fc.weight"].T + head["fc.bias"])
    embedding = hidden @ head["projection.weight"].T + head["projection.bias"]
    for name, means in kept.items():
        embedding += torch.nn.functional.conv2d(means, head[f"{name}.weight"], head[f"{name}.bias"]).flatten(1)
    return torch.nn.functional.normalize(embedding).numpy(), hidden.numpy()


def by_onnx(folder, pixels):
    file = str(folder / "model.onnx")
    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(file)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["kith.preprocessing"])["side"] == pixels.shape[2], facts
    return session.run(["embedding"], {"pixels": pixels})[0]


@torch.no_grad()
def bare_features(file, pixels):
    """Features of a file of PyTorch, with its BatchNorms as they are."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model"):
        state = state[key] if isinstance(state.get(key), dict) else state
    state = {re.sub(r"^((module|backbone|model)\.)+", "", name): value for name, value in state.items()}
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    names = network.state_dict().keys()
    network.load_state_dict({name: value for name, value in state.items() if name in names}, strict=True)
    return network.eval()(torch.from_numpy(pixels)).numpy()


def nearest(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -1)
    return scores.argmax(1)


def check(args, paths, start, dim, side):
    """One row of differences."""
    pixels = np.stack([preprocess(path, side) for path in paths])
    with Kith(args.kith, start, dim, side) as kith:
        served = kith.embeddings(paths)
        torched, hidden = by_torch(kith.export("torchvision"), pixels)
        graphed = by_onnx(kith.export("onnx"), pixels)
    # Where a decoder or a filter rounds otherwise the input differs, not the network: the two exports are compared with each other, too.
    differences = {
        "torchvision": np.abs(torched - served).max(),
        "onnx": np.abs(graphed - served).max(),
        "onnx from torchvision": np.abs(graphed - torched).max(),
    }
    same = None
    if start.endswith(".pth"):
        bare = bare_features(start, pixels)
        differences["features"] = np.abs(hidden - bare).max() / bare.max()
        same = (nearest(served) == nearest(bare)).mean()
    shown = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    print(f"{pathlib.Path(start).name} dim {dim} side {side}: {shown}" + ("" if same is None else f", same neighbour {same:.3f}"), flush=True)
    return max(differences.values()) <= 1e-4 and (same is None or dim < 512 or same >= 0.99)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=pathlib.Path)
    parser.add_argument("--kith", required=True)
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--side", default="64")
    args = parser.parse_args()
    paths = sorted(path for path in args.images.rglob("*.png"))[: args.count]
    sides = [int(side) for side in args.side.split(",")]
    rows = [("starter", dim, side) for side in sides for dim in (128, 64)]
    rows += [(file, dim, side) for side in sides for file in args.file for dim in (512, 128)]
    good = [check(args, paths, *row) for row in rows]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
