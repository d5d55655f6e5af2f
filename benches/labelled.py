#!/usr/bin/env python3
"""What training does to data sets with labels: nearest neighbours and a linear probe before training and after chosen steps of it.

    python3 benches/labelled.py MANIFEST --kith target/release/kith --out RESULTS [--label COLUMN] [--pairs itself|label] [--partners 2]
                                [--steps 0,50,200,400] [--set SECTION.KEY=VALUE ...]

MANIFEST is a CSV with the columns path (beside it), split (train, test) and `--label`. Images of the split train are posted, each with itself (their
labels are not used), or with `--partners` random others of its label. Judged are the images of the split test: told by the vectors of train, or where
they have labels of their own (Omniglot's held-out characters, split holdout) by four of five among themselves, and then recall@1 of one image of each
label among one other of each. Training is paused while pairs are posted. RESULTS gets labelled.csv and labelled.md.
"""

import argparse
import csv
import json
import random
import shutil
from pathlib import Path

from emoji_curve import snapshot, wait_for, write
from harness import Server, note, table

FIGURES = ("neighbour_accuracy", "probe_accuracy")


def images(manifest, column):
    """Split -> label -> absolute paths."""
    found = {}
    with open(manifest, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            split = "train" if row["split"] == "train" else "test"
            found.setdefault(split, {}).setdefault(row[column], []).append((manifest.parent / row["path"]).resolve())
    return found


def pairs_of(train, kind, partners):
    """Rows anchor, positive, group."""
    chance = random.Random(1)
    if kind == "itself":
        return [(path, path, "") for paths in train.values() for path in paths]
    rows = []
    for label, paths in train.items():
        seen = set()
        for path in paths:
            for other in chance.sample([other for other in paths if other != path], min(partners, len(paths) - 1)):
                # Both orders are one pair.
                if frozenset((path, other)) not in seen:
                    seen.add(frozenset((path, other)))
                    rows.append((path, other, label))
    return rows


def write_lists(found, out, args):
    rows = pairs_of(found["train"], args.pairs, args.partners)
    write(out / "pairs.csv", ("anchor", "positive", "group"), rows)
    for split, labels in found.items():
        write(out / f"{split}.csv", ("path", "key"), [(path, label) for label, paths in labels.items() for path in paths])
    for place, side in enumerate(("query", "gallery")):
        write(out / f"{side}.csv", ("path", "key"), [(paths[place], label) for label, paths in found["test"].items()])
    note(f"{len(rows)} pairs to post, {sum(map(len, found['test'].values()))} images of {len(found['test'])} labels to judge")


def judge(server, out, row, of_own_labels):
    """The row with its figures."""
    lists = ["--labels", out / "test.csv"] if of_own_labels else ["--labels", out / "train.csv", "--test", out / "test.csv"]
    about = ["evaluate", "--data-dir", server.data, "--checkpoint", row["checkpoint"], "--json", "--key", "key"]
    judged = json.loads(server.run(*about, *lists))
    figures = {name: round(judged[name], 4) for name in FIGURES}
    if of_own_labels:
        found = json.loads(server.run(*about, "--query", out / "query.csv", "--gallery", out / "gallery.csv"))
        figures["recall_at_1"] = round(found["anchor_to_positive"]["recall_at_1"], 4)
    return {"step": row["step"], "processor_seconds": row["processor_seconds"], **figures}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--label", default="label")
    parser.add_argument("--pairs", choices=("itself", "label"), default="itself")
    parser.add_argument("--partners", type=int, default=2)
    parser.add_argument("--steps", default="0,50,200,400")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args()
    found = images(args.manifest, args.label)
    args.out.mkdir(parents=True, exist_ok=True)
    write_lists(found, args.out, args)
    data = args.out / "data"
    shutil.rmtree(data, ignore_errors=True)
    server = Server(args.kith, data, ["retention.keep_latest=100", *args.set], args.out / "server.log").start()
    rows = []
    try:
        connection = server.connect()
        connection.json("PATCH", "/v1/training", {"state": "paused"})
        note(server.run("ingest", "--server", server.url, args.out / "pairs.csv").strip())
        used = server.processor_seconds()
        for step in sorted(int(step) for step in args.steps.split(",")):
            if step:
                connection.json("PATCH", "/v1/training", {"state": "running"})
            wait_for(server, connection, 0, 0, step)
            rows.append({**snapshot(connection, 0, False), "processor_seconds": round(server.processor_seconds() - used)})
            note({key: rows[-1][key] for key in ("step", "processor_seconds", "loss")})
    finally:
        note(f"the server ended with {server.stop()}")
    of_own_labels = not found["train"].keys() & found["test"].keys()
    judged = [judge(server, args.out, row, of_own_labels) for row in rows]
    write(args.out / "labelled.csv", list(judged[0]), [list(row.values()) for row in judged])
    text = table(list(judged[0]), [list(row.values()) for row in judged])
    (args.out / "labelled.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
