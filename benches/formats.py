#!/usr/bin/env python3
"""What smaller vectors cost: held-out retrieval with each format of embeddings, from one server and one checkpoint.

    pip install numpy
    python3 benches/formats.py FOLDER DATA --kith target/release/kith [--model kith] [--out FILE.json]

FOLDER holds the emoji of `benches/emoji_curve.py`, DATA is a data folder that was trained on them (`RESULTS/data` there). The question is the one of
that script: one vendor's held-out picture among all held-out pictures of another. Vectors are compared as an index would compare them: floats and 8
bits by their dot product, bits by the number that is equal. Of two formats that answer the same queries the difference is given in queries
won and lost, with the exact two-sided sign test.
"""

import argparse
import base64
import json
import math
from pathlib import Path

import numpy

from emoji_curve import QUESTIONS, pictures
from harness import Server, table

FORMATS = ("float", "int8", "uint8", "binary", "ubinary")
BATCH = 32


def vectors(connection, files, model, encoding, dimensions):
    rows = []
    for start in range(0, len(files), BATCH):
        images = [base64.b64encode(file.read_bytes()).decode() for file in files[start:start + BATCH]]
        asked = {"model": model, "input": images, "encoding_format": encoding, "dimensions": dimensions}
        rows += [item["embedding"] for item in connection.json("POST", "/v1/embeddings", asked)["data"]]
    rows = numpy.array(rows)
    if encoding == "uint8":
        return rows - 128.0
    if encoding in ("binary", "ubinary"):
        packed = (rows + 128 if encoding == "binary" else rows).astype(numpy.uint8)
        return numpy.unpackbits(packed, axis=1)[:, :dimensions] * 2.0 - 1.0
    return rows.astype(float)


def hits(queries, gallery):
    """Whether each query's own picture is the first; a tie counts as a miss."""
    scores = queries @ gallery.T
    own = scores.diagonal().copy()
    numpy.fill_diagonal(scores, -numpy.inf)
    return own > scores.max(axis=1)


def sign_test(won, lost):
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2 ** n
    return min(1.0, 2 * tail)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--model", default="kith")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    held_out = pictures(args.folder, "holdout")
    server = Server(args.kith, args.data, ["encoder.side=64", "training.enabled=false"]).start()
    results = []
    try:
        connection = server.connect()
        dim = connection.json("GET", f"/v1/models/{args.model}")["dimensions"]
        for dimensions in (dim, dim // 2):
            for query, gallery in QUESTIONS:
                both = [v for v in held_out.values() if query in v and gallery in v]
                base = None
                for encoding in FORMATS:
                    found = hits(*(vectors(connection, [v[side] for v in both], args.model, encoding, dimensions) for side in (query, gallery)))
                    base = found if base is None else base
                    won, lost = int((found & ~base).sum()), int((base & ~found).sum())
                    results.append({"dimensions": dimensions, "question": f"{query}→{gallery}", "format": encoding,
                                    "recall_at_1": round(float(found.mean()), 4), "won": won, "lost": lost,
                                    "p": round(sign_test(won, lost), 4), "queries": len(both)})
    finally:
        server.stop()
    columns = list(results[0])
    print(table(columns, [[row[column] for column in columns] for row in results]))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
