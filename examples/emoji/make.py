#!/usr/bin/env python3
"""Cuts this example from a folder that holds `manifest.csv`, `google/` and `twitter/`.

    python3 examples/emoji/make.py FOLDER

The manifest's columns are codepoint, family, split, vendor and path. Train and held-out code points are drawn evenly over
the sorted list, so the same folder gives the same cut. Nothing but the standard library is needed.
"""

import csv
import shutil
import sys
from pathlib import Path

TRAIN, HOLDOUT = 400, 100
VENDORS = ("google", "twitter")


def evenly(items, count):
    return [items[i * len(items) // count] for i in range(count)]


def code_points(manifest, split):
    """Code point -> vendor -> path, for the chosen code points of one split."""
    paths = {}
    with open(manifest, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split and row["vendor"] in VENDORS:
                paths.setdefault(row["codepoint"], {})[row["vendor"]] = row["path"]
    whole = sorted(point for point, vendors in paths.items() if len(vendors) == len(VENDORS))
    chosen = evenly(whole, TRAIN if split == "train" else HOLDOUT)
    return {point: paths[point] for point in chosen}


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main():
    source, here = Path(sys.argv[1]), Path(__file__).resolve().parent
    train = code_points(source / "manifest.csv", "train")
    holdout = code_points(source / "manifest.csv", "holdout")
    for vendor in VENDORS:
        shutil.rmtree(here / vendor, ignore_errors=True)
        (here / vendor).mkdir()
        for vendors in (*train.values(), *holdout.values()):
            shutil.copyfile(source / vendors[vendor], here / vendors[vendor])
    write(here / "pairs.csv", ("anchor", "positive", "group"),
          [(v["google"], v["twitter"], point) for point, v in train.items()])
    write(here / "holdout-query.csv", ("path", "key"), [(v["google"], point) for point, v in holdout.items()])
    write(here / "holdout-gallery.csv", ("path", "key"), [(v["twitter"], point) for point, v in holdout.items()])
    size = sum(path.stat().st_size for path in here.rglob("*.png"))
    print(f"{len(train)} pairs to learn from, {len(holdout)} held out, {size / 1e6:.1f} MB of images")


if __name__ == "__main__":
    main()
