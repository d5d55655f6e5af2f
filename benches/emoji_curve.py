#!/usr/bin/env python3
"""How well the server learns emoji: held-out retrieval before training and after chosen minutes of it.

    python3 benches/emoji_curve.py FOLDER --kith target/release/kith --out RESULTS [--minutes 0,5,10,20,40]
                                   [--steps 0,50,200,400] [--leave-out VENDOR] [--set SECTION.KEY=VALUE ...] [--control]

FOLDER holds `manifest.csv` (codepoint, family, split, vendor, path) and the pictures of the vendors google, twitter and openmoji. The three
vendor pairs of each train code point are posted. Their group is the code point: the manifest's family is the code point without its variation
selector, one to one, so that grouping by either is the same. Pictures that look alike under different code points (clock faces, keycaps) are
different things here as they are in the held-out question, so they may be each other's negatives.

Training is paused while pairs are posted, so minute 0 is the untrained model. Meanwhile one embedding request a second shows that the server
answers. Snapshots are judged after the run, so that judging takes no time from training, and so is the checkpoint that served when each was taken: what
callers had. `--control` is the same with training off. With `--steps` a snapshot
is taken once so many steps are made, whatever time they take; the table has the step at which it was.
Each row has the processor seconds of the server since training began, which other work on the machine hardly changes. With `--leave-out` none of a vendor's pictures are
posted, and the questions are those from either other vendor to it.

Question (query → gallery): one vendor's held-out picture among all held-out pictures of another; RESULTS gets curve.csv, curve.json, curve.md.
"""

import argparse
import csv
import json
import shutil
import time
from pathlib import Path

from harness import Load, Refused, Server, note, percentile, table

PAIRS = (("google", "twitter"), ("google", "openmoji"), ("twitter", "openmoji"))
QUESTIONS = PAIRS[:2]
VENDORS = ("google", "twitter", "openmoji")
SETS = ("encoder.side=64", "retention.keep_latest=100")


def pictures(folder, split):
    """Code point -> vendor -> absolute path."""
    found = {}
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                found.setdefault(row["codepoint"], {})[row["vendor"]] = (folder / row["path"]).resolve()
    return dict(sorted(found.items()))


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def write_lists(folder, out, vendor_pairs=PAIRS):
    train, holdout = pictures(folder, "train"), pictures(folder, "holdout")
    rows = [(v[a], v[b], point) for a, b in vendor_pairs for point, v in train.items() if a in v and b in v]
    write(out / "pairs.csv", ("anchor", "positive", "group"), rows)
    for vendor in VENDORS:
        write(out / f"{vendor}.csv", ("path", "key"), [(v[vendor], point) for point, v in holdout.items() if vendor in v])
    note(f"{len(rows)} pairs of {len(train)} code points to post, {len(holdout)} code points held out")
    return [v["google"].read_bytes() for v in holdout.values()]


def snapshot(connection, minute, control):
    """One row of the curve, its evaluation still to come."""
    try:
        taken = connection.json("POST", "/v1/checkpoints?wait=true", {"note": f"minute {minute}"})
        identity = taken["id"]
    except Refused:
        if not control:
            raise
        identity = "live"
    state = connection.json("GET", "/v1/training")
    row = {"minute": minute, "checkpoint": identity, "served": state["checkpoint"]["live"]}
    for name in ("step", "epoch", "loss", "global_loss_estimate", "acceptance_rate", "chains", "steps_per_second", "recoveries", "last_error"):
        row[name] = state.get(name)
    if identity != "live":
        row["step"] = taken["step"]
    return row


def answers(load, row):
    taken, failed = load.take()
    seconds = [seconds for _, seconds in taken]
    row.update(requests=len(taken), failures=len(failed), p50_ms=round(1000 * percentile(seconds, 0.5), 1),
               p99_ms=round(1000 * percentile(seconds, 0.99), 1))
    if failed:
        note(f"{len(failed)} embedding requests failed, the first with {failed[0]}")
    return row


def wait_for(server, connection, began, minute, step):
    """Until so much of the run has passed: minutes, or steps if there are any."""
    while True:
        if server.process.poll() is not None:
            raise RuntimeError("the server is gone: see server.log")
        if step is not None:
            if connection.json("GET", "/v1/training")["step"] >= step:
                return
            time.sleep(0.5)
        else:
            left = began + 60 * minute - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 30))


def train(server, out, marks, images, args):
    """The curve's rows at the `marks`: minutes, or steps with `--steps`."""
    connection, rows, control = server.connect(), [], args.control
    with Load(server.url, images, every=1.0) as load:
        if not control:
            connection.json("PATCH", "/v1/training", {"state": "paused"})
        note(server.run("ingest", "--server", server.url, out / "pairs.csv").strip())
        load.take()
        if 0 in marks:
            rows.append({**answers(load, snapshot(connection, 0, control)), "processor_seconds": 0})
        if not control:
            connection.json("PATCH", "/v1/training", {"state": "running"})
        began, used = time.monotonic(), server.processor_seconds()
        for mark in filter(None, marks):
            wait_for(server, connection, began, mark, mark if args.steps else None)
            minute = round((time.monotonic() - began) / 60, 1) if args.steps else mark
            rows.append(answers(load, snapshot(connection, minute, control)))
            rows[-1]["processor_seconds"] = round(server.processor_seconds() - used)
            note({key: rows[-1][key] for key in ("minute", "step", "processor_seconds", "loss", "steps_per_second", "requests", "p99_ms")})
    return rows


def judge(server, out, row, questions):
    for query, gallery in questions:
        for checkpoint, name in ((row["checkpoint"], f"{query}-{gallery}"), (row["served"], f"served {query}-{gallery}")):
            text = server.run("evaluate", "--data-dir", server.data, "--checkpoint", checkpoint, "--json", "--key", "key",
                              "--query", out / f"{query}.csv", "--gallery", out / f"{gallery}.csv")
            row[name] = json.loads(text)


def flat(row, questions):
    """One line of the table."""
    cells = {key: value for key, value in row.items() if not isinstance(value, dict)}
    for query, gallery in questions:
        judged = row[f"{query}-{gallery}"]
        for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr"):
            cells[f"{query}→{gallery} {name}"] = round(judged["anchor_to_positive"][name], 4)
        cells[f"served {query}→{gallery} recall_at_1"] = round(row[f"served {query}-{gallery}"]["anchor_to_positive"]["recall_at_1"], 4)
        cells[f"{query}→{gallery} spread"] = round(judged["geometry"]["spread"], 4)
        cells[f"{query}→{gallery} effective_rank"] = round(judged["geometry"]["effective_rank"], 2)
    return cells


def report(out, rows, settings, questions):
    (out / "curve.json").write_text(json.dumps({"settings": settings, "rows": rows}, indent=1))
    lines = [flat(row, questions) for row in rows]
    write(out / "curve.csv", list(lines[0]), [list(line.values()) for line in lines])
    columns = ["minute", "step", "processor_seconds"]
    columns += [f"{q}→{g} recall_at_{k}" for q, g in questions for k in (1, 5, 10)]
    columns += [f"served {q}→{g} recall_at_1" for q, g in questions] + ["requests", "failures", "p50_ms", "p99_ms"]
    text = table(columns, [[line[column] for column in columns] for line in lines])
    (out / "curve.md").write_text(text + "\n")
    print(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", default="0,5,10,20,40")
    parser.add_argument("--steps")
    parser.add_argument("--leave-out", choices=VENDORS)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--control", action="store_true")
    args = parser.parse_args()
    marks = sorted(float(mark) for mark in (args.steps or args.minutes).split(","))
    pairs = [pair for pair in PAIRS if args.leave_out not in pair]
    questions = [(vendor, args.leave_out) for vendor in VENDORS if vendor != args.leave_out] if args.leave_out else QUESTIONS
    settings = [*SETS, *args.set, *(["training.enabled=false"] if args.control else [])]
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.out / "data"
    shutil.rmtree(data, ignore_errors=True)
    images = write_lists(args.folder, args.out, pairs)
    server = Server(args.kith, data, settings, args.out / "server.log").start()
    try:
        rows = train(server, args.out, marks, images, args)
    finally:
        note(f"the server ended with {server.stop()}")
    for row in rows:
        judge(server, args.out, row, questions)
    report(args.out, rows, settings, questions)


if __name__ == "__main__":
    main()
