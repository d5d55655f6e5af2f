#!/usr/bin/env python3
"""Training that takes a bad turn: what serves meanwhile, and does learning find its way back?

    python3 benches/bad_turns.py --kith target/release/kith [--only sinking|dying] [--minutes 4] [--set SECTION.KEY=VALUE ...] [--out FILE.json]

`sinking`: the example's pairs are learned for a while, a share of them held out. Then every trained pair is deleted and wrong ones take their place: each
anchor with another's positive. A snapshot is taken every five steps. The table shows each checkpoint that went live, with its recall@1 on the same
held-out pairs. A server that lets its model sink shows a falling column.

`dying`: the example's pairs at five times the default rate with a warm-up of 20 steps, which collapses. The table shows the rate and its factor over time.
A server whose recovery ends well keeps a rate that can learn, or says that it gave up.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from harness import Refused, Server, note, table
from throughput import EXAMPLE

SMALL = ["encoder.width=16", "encoder.side=32", "snapshots.every_minutes=0.0"]


def recall(checkpoint):
    evaluation = checkpoint["evaluation"] or {}
    both = [evaluation.get(side, {}).get("recall_at_1") for side in ("anchor_to_positive", "positive_to_anchor")]
    return None if None in both else round(sum(both) / 2, 3)


def live(connection):
    rows = connection.json("GET", "/v1/checkpoints")["data"]
    return next(row for row in rows if row["role"] == "live"), rows


def wrong_pairs(connection, seed):
    """Deletes every trained pair; posts each anchor with the next one's positive, in a shuffled order. How many."""
    trained, after = [], ""
    while after is not None:
        page = connection.json("GET", f"/v1/pairs?limit=1000{after and '&after=' + after}")
        trained += [pair for pair in page["data"] if pair["split"] == "train"]
        after = page["next"]
    for pair in trained:
        connection.json("DELETE", f"/v1/pairs/{pair['id']}")
    random.Random(seed).shuffle(trained)
    others = trained[1:] + trained[:1]
    wrong = [{"anchor": {"id": a["anchor"]}, "positive": {"id": b["positive"]}} for a, b in zip(trained, others)]
    for start in range(0, len(wrong), 32):
        connection.json("POST", "/v1/pairs", {"pairs": wrong[start:start + 32]})
    return len(wrong)


def sinking(args):
    folder = Path(tempfile.mkdtemp(prefix="kith-sinking-"))
    learn = [*SMALL, "pairs.holdout_share=0.22", "snapshots.every_steps=100", "training.max_steps=400", *args.set]
    server = Server(args.kith, folder / "data", learn, folder / "server.log").start()
    note(server.run("ingest", "--server", server.url, EXAMPLE / "pairs.csv").strip())
    connection = server.connect()
    while connection.json("GET", "/v1/training")["step"] < 400:
        time.sleep(0.5)
    connection.json("POST", "/v1/checkpoints?wait=true", {})
    server.stop()
    spoil = [*SMALL, "pairs.holdout_share=0.0", "snapshots.every_steps=5", "schedule.learning_rate=1e-3", *args.set]
    server = Server(args.kith, folder / "data", spoil, folder / "server.log").start()
    connection = server.connect()
    count = wrong_pairs(connection, 1)
    first, _ = live(connection)
    note(f"{count} wrong pairs; {first['id']} is live with recall@1 {recall(first)}")
    seen, until = [], time.monotonic() + 60 * args.minutes
    judged = {}
    while time.monotonic() < until:
        now, rows = live(connection)
        judged.update({row["id"]: recall(row) for row in rows if recall(row) is not None})
        if not seen or seen[-1]["id"] != now["id"] or seen[-1]["recall"] is None:
            seen = [one for one in seen if one["id"] != now["id"]]
            seen.append({"id": now["id"], "step": now["step"], "recall": recall(now), "reason": now["reason"]})
        time.sleep(0.1)
    status = connection.json("GET", "/v1/training")
    server.stop()
    print(table(["live at step", "recall@1", "why"], [[one["step"], one["recall"], one["reason"]] for one in seen]))
    print(f"{len(judged)} checkpoints judged, the best {max(judged.values()):.3f}, the worst {min(judged.values()):.3f}; "
          f"{status['recoveries']} recoveries; {status['last_error']}")
    return {"live": seen, "judged": list(judged.values()), "recoveries": status["recoveries"]}


def dying(args):
    folder = Path(tempfile.mkdtemp(prefix="kith-dying-"))
    sets = [*SMALL, "schedule.learning_rate=1e-3", "schedule.warmup_steps=20", "gate.collapse_spread=0.95",
            "gate.collapse_cosine=-0.5", "snapshots.every_steps=30", *args.set]
    server = Server(args.kith, folder / "data", sets, folder / "server.log").start()
    note(server.run("ingest", "--server", server.url, EXAMPLE / "pairs.csv").strip())
    connection = server.connect()
    began, rows = time.monotonic(), []
    while time.monotonic() < began + 60 * args.minutes:
        status = connection.json("GET", "/v1/training")
        row = [status["recoveries"], status["state"], f"{status['learning_rate']:.3g}"]
        if not rows or rows[-1][1:] != row:
            rows.append([round(time.monotonic() - began, 1), *row])
        time.sleep(0.05)
    kept = rows if len(rows) <= 30 else rows[:15] + rows[-15:]
    print(table(["seconds", "recoveries", "state", "learning rate"], kept))
    print(f"at the end: {status['state']}, {status['last_error']}")
    try:
        connection.json("PATCH", "/v1/training", {"learning_rate": 1e-4, "state": "running"})
        time.sleep(2)
        status = connection.json("GET", "/v1/training")
        print(f"after a caller set the rate to 1e-4: {status['state']}, rate {status['learning_rate']:.3g}")
    except Refused as error:
        print(f"a caller's rate was refused: {error}")
    server.stop()
    return {"rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--only", choices=["sinking", "dying"])
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {}
    for name, scenario in (("sinking", sinking), ("dying", dying)):
        if args.only in (None, name):
            print(f"\n## {name}\n")
            found[name] = scenario(args)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
