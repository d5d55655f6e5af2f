"""What a server gives before it has learned anything: held-out figures of first weights.

    python3 tools/starter/day0.py --kith target/release/kith --data FOLDER [--side 64,96,128,224] [--start starter,fresh] [--pixels] [--module FILE]

FOLDER holds the unpacked images: emoji (`manifest.csv` with codepoint, split, vendor, path), omniglot (`omniglot/manifest.csv` with pair_key, split,
drawer, path), flowers and imagenette (`flowers96_manifest.csv`, `imagenette96_manifest.csv` with path, split, label). Figures are recall@1: emoji and
omniglot by `kith evaluate` on held-out images, one drawing against all of another vendor or of ten other drawers; flowers and imagenette the share of test images
whose nearest training image has the same label. `--pixels` adds a row for raw pixels, 16 x 16 less their mean, by cosine, `--module` one for the features of
a TorchScript file, from [batch, 3, 128, 128] (pip install numpy pillow torch).
"""

import argparse
import csv
import json
import pathlib
import re
import signal
import subprocess
import tempfile


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def questions(data, out):
    """Name -> (query CSV, gallery CSV)."""
    def write(name, pairs):
        path = out / f"{name}.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "key"), *((data / path, key) for path, key in pairs)])
        return path

    emoji = [row for row in rows(data / "manifest.csv") if row["split"] == "holdout"]
    vendor = {v: write(v, [(r["path"], r["codepoint"]) for r in emoji if r["vendor"] == v]) for v in ("google", "twitter", "openmoji")}
    found = {"emoji G>T": (vendor["google"], vendor["twitter"]), "emoji G>O": (vendor["google"], vendor["openmoji"])}
    drawn = [row for row in rows(data / "omniglot/manifest.csv") if row["split"] != "train"]
    halves = [[r for r in drawn if (int(r["drawer"]) > 10) == late] for late in (False, True)]
    found["omniglot"] = tuple(write(f"drawers{n}", [(f"omniglot/{r['path']}", r["pair_key"]) for r in half]) for n, half in enumerate(halves))
    for name in ("flowers96", "imagenette96"):
        all_rows = rows(data / f"{name}_manifest.csv")
        split = {s: write(f"{name}-{s}", [(r["path"], r["label"]) for r in all_rows if r["split"] == s]) for s in ("train", "test")}
        found[name] = (split["test"], split["train"])
    return found


def first_checkpoint(kith, start, side, folder):
    """A data folder with checkpoint 0."""
    sets = {"encoder.start": start, "encoder.side": side, "training.enabled": "false", "log.filter": "warn"}
    sets = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    command = [kith, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder, *sets]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert re.search("http://", process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    process.wait(120)


def square(path, side):
    """The largest square in the middle over white, scaled: `[side, side, 3]` in 0..1."""
    import numpy as np
    from PIL import Image

    image = Image.open(path).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    return np.asarray(image.resize((side, side), Image.BILINEAR, box=(left, top, left + edge, top + edge)), np.float32) / 255


def pixels(paths):
    """Raw pixels, less their mean: a row for each path."""
    import numpy as np

    small = np.stack([square(path, 16).ravel() for path in paths])
    return small - small.mean(1, keepdims=True)


def features_of(module):
    """The features that a TorchScript module computes of ImageNet-normalised pictures of 128 px: a function from paths to rows."""
    import numpy as np
    import torch

    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    module = torch.jit.load(module).eval()

    def describe(path):
        return ((square(path, 128) - mean) / deviation).transpose(2, 0, 1)

    def encode(paths):
        found = []
        for start in range(0, len(paths), 64):
            batch = np.stack([describe(path) for path in paths[start : start + 64]])
            with torch.inference_mode():
                found.append(module(torch.from_numpy(batch)).numpy())
        return np.concatenate(found)

    return encode


def recall(encode, query, gallery):
    """Recall@1 by the cosine of what `encode` makes of each picture."""
    import numpy as np

    def load(path):
        found = rows(path)
        vectors = encode([row["path"] for row in found])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.array([row["key"] for row in found])

    (asked, wanted), (known, keys) = load(query), load(gallery)
    return (keys[(asked @ known.T).argmax(1)] == wanted).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kith", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--side", default="64,96,128,224")
    parser.add_argument("--start", default="starter,fresh")
    parser.add_argument("--pixels", action="store_true")
    parser.add_argument("--module", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        out = pathlib.Path(out)
        asked = questions(args.data.resolve(), out)
        print("| weights | side | " + " | ".join(asked) + " |")
        print("|---|---|" + "---|" * len(asked))
        others = [("raw pixels", 16, pixels)] if args.pixels else []
        if args.module:
            others.append((args.module.stem, 128, features_of(str(args.module))))
        for name, side, encode in others:
            cells = [f"{recall(encode, *question):.3f}" for question in asked.values()]
            print(f"| {name} | {side} | " + " | ".join(cells) + " |", flush=True)
        for start, side in ((start, side) for start in filter(None, args.start.split(",")) for side in args.side.split(",")):
            folder = str(out / f"{pathlib.Path(start).name}-{side}")
            first_checkpoint(args.kith, start, side, folder)
            cells = []
            for query, gallery in asked.values():
                command = [args.kith, "evaluate", "--data-dir", folder, "--query", query, "--gallery", gallery, "--json"]
                answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                cells.append(f"{answer['anchor_to_positive']['recall_at_1']:.3f}")
            print(f"| {start} | {side} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
