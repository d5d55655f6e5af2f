#!/usr/bin/env python3
"""A stream: a server that has learned from some pairs gets others of a new kind. How soon they show, and what becomes of the old ones.

    python3 benches/stream.py --first PAIRS.csv --then PAIRS.csv --judge NAME=QUERY.csv:GALLERY.csv ... --kith target/release/kith --out RESULTS
                              [--before 100] [--after 50,150,400] [--set SECTION.KEY=VALUE ...]
    python3 benches/stream.py --lists OUT --emoji FOLDER [--archive FOLDER] [--arriving 300]

The pairs of `--first` are posted and `--before` steps made; then those of `--then` are posted while training goes on, and snapshots taken after so many
further steps. Each is judged by recall@1 of each question (lists with the columns path and key). Twice, once with `--set training.recent_share=0`, shows
what the mix of recent pairs does.

With `--lists` the lists of two streams are written. Emoji: Google's and Twitter's drawings first, then pairs with OpenMoji's. Archive: all pairs of two
drawers of Omniglot's train characters first, then `--arriving` pairs of Google's and Twitter's emoji.
"""

import argparse
import itertools
import json
import random
import shutil
from pathlib import Path

from emoji_curve import PAIRS, VENDORS, pictures, snapshot, wait_for, write
from harness import Server, note, table
from labelled import images

HEADER = ("anchor", "positive", "group")
KEYED = ("path", "key")


def write_lists(args):
    out = args.lists
    out.mkdir(parents=True, exist_ok=True)
    train, holdout = pictures(args.emoji, "train"), pictures(args.emoji, "holdout")
    rows = {pair: [(v[pair[0]], v[pair[1]], point) for point, v in train.items() if v.keys() >= set(pair)] for pair in PAIRS}
    for pairs in rows.values():
        # In the order of code points the first would be of few kinds.
        random.Random(1).shuffle(pairs)
    write(out / "google-twitter.csv", HEADER, rows[PAIRS[0]])
    write(out / "with-openmoji.csv", HEADER, [*rows[PAIRS[1]], *rows[PAIRS[2]]])
    write(out / "some-google-twitter.csv", HEADER, rows[PAIRS[0]][: args.arriving])
    write(out / "some-openmoji.csv", HEADER, rows[PAIRS[1]][: args.arriving])
    for vendor in VENDORS:
        write(out / f"{vendor}.csv", KEYED, [(v[vendor], point) for point, v in holdout.items() if vendor in v])
    if args.archive:
        found = images(args.archive / "manifest.csv", "pair_key")
        pairs = [(*two, label) for label, paths in found["train"].items() for two in itertools.combinations(paths, 2)]
        write(out / "archive.csv", HEADER, pairs)
        for place, side in enumerate(("query", "gallery")):
            # Ten drawers ask for ten others.
            asked = [(path, label) for label, paths in found["test"].items() for path in paths[place::2]]
            write(out / f"archive-{side}.csv", KEYED, asked)


def row_now(connection, step_of):
    taken = snapshot(connection, 0, False)
    return {"steps_after": taken["step"] - step_of, "step": taken["step"], "checkpoint": taken["checkpoint"]}


def run(server, args):
    """Rows without their figures."""
    connection = server.connect()
    connection.json("PATCH", "/v1/training", {"state": "paused"})
    note(server.run("ingest", "--server", server.url, args.first).strip())
    rows = [row_now(connection, 0)]
    connection.json("PATCH", "/v1/training", {"state": "running"})
    wait_for(server, connection, 0, 0, args.before)
    rows.append(row_now(connection, 0))
    note(server.run("ingest", "--server", server.url, args.then).strip())
    began = connection.json("GET", "/v1/training")["step"]
    for mark in args.after.split(","):
        wait_for(server, connection, 0, 0, began + int(mark))
        rows.append(row_now(connection, began))
        note(rows[-1])
    return rows


def judge(server, row, questions):
    figures = {key: row.get(key, "") for key in ("step", "steps_after")}
    for question in questions:
        name, lists = question.split("=")
        query, gallery = lists.split(":")
        text = server.run("evaluate", "--data-dir", server.data, "--checkpoint", row["checkpoint"], "--json", "--key", "key", "--query", query, "--gallery", gallery)
        figures[name] = round(json.loads(text)["anchor_to_positive"]["recall_at_1"], 4)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=Path)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--arriving", type=int, default=300)
    parser.add_argument("--first", type=Path)
    parser.add_argument("--then", type=Path)
    parser.add_argument("--judge", action="append", default=[], metavar="NAME=QUERY.csv:GALLERY.csv")
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--before", type=int, default=100)
    parser.add_argument("--after", default="50,150,400")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args()
    if args.lists:
        write_lists(args)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.out / "data"
    shutil.rmtree(data, ignore_errors=True)
    server = Server(args.kith, data, ["encoder.side=64", "retention.keep_latest=100", *args.set], args.out / "server.log").start()
    try:
        rows = run(server, args)
    finally:
        note(f"the server ended with {server.stop()}")
    judged = [judge(server, row, args.judge) for row in rows]
    write(args.out / "stream.csv", list(judged[0]), [list(row.values()) for row in judged])
    text = table(list(judged[0]), [list(row.values()) for row in judged])
    (args.out / "stream.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
