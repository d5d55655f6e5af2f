#!/usr/bin/env python3
"""POST /v1/search beside faiss (flat) and hnswlib: milliseconds a search at 10^4, 10^5 and 10^6 vectors, in one run on one machine.

    pip install faiss-cpu hnswlib numpy
    python3 benches/search.py --kith target/release/kith [--sizes 10000,100000,1000000] [--queries 200] [--threads 2] [--build-seconds 900] [--out FILE.json]

The vectors are unit vectors of 128 values in clusters, as embeddings of groups lie. kith gets them as rows of its database (the images are rows without files, which it
never reads since their vectors are there); they are queried by `vector`, one request after the other. `kith` is the time of kith_search_seconds, which the libraries'
times compare with; `HTTP` is what a client waits. Queries are vectors near stored ones. Recall is the share of faiss' ten nearest that the others find. At sizes above
search.max_scanned kith is measured twice: scanning, and once its graph is built. A graph that is not built after --build-seconds is not measured, and the row says how
much of it there is.
"""

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import faiss
import hnswlib
import numpy as np

from harness import Server, note, table

DIM = 128
K = 10
WARM = 20
# Vectors that are put into hnswlib's graph at a time.
PART = 20_000


def vectors(count, seed):
    """Unit vectors around one centre for each hundred."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(count // 100, 1), DIM), dtype=np.float32)
    rows = centres[random.integers(0, len(centres), count)]
    rows += 0.7 * random.standard_normal((count, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def median_ms(call, queries):
    times = []
    for at, query in enumerate(queries):
        start = time.perf_counter()
        call(query)
        if at >= WARM:
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def fill(data, checkpoint, rows):
    """Writes images and their vectors into the database of a stopped server."""
    database = sqlite3.connect(Path(data) / "kith.db")
    database.execute("INSERT OR IGNORE INTO vector_spaces (checkpoint) VALUES (?)", (checkpoint,))
    space = database.execute("SELECT number FROM vector_spaces WHERE checkpoint = ? AND dropped = 0", (checkpoint,)).fetchone()[0]
    images = ((key, key.to_bytes(32, "big"), 1, 1, 1, "png", "2026-01-01T00:00:00Z") for key in range(1, len(rows) + 1))
    database.executemany("INSERT INTO images (key, sha256, bytes, width, height, format, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)", images)
    values = ((space << 32 | key, row.astype("<f4").tobytes()) for key, row in enumerate(rows, 1))
    database.executemany("INSERT INTO vectors (key, embedding) VALUES (?, ?)", values)
    database.commit()
    database.close()


def search_seconds(connection):
    """Sum and count of kith_search_seconds."""
    text = connection.raw("GET", "/metrics")[1].decode()
    figure = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith("kith_search_seconds_") and "{" not in line}
    return figure["kith_search_seconds_sum"], figure["kith_search_seconds_count"]


def ask(connection, queries, found):
    """The mean of kith's own time, and the median of a client's, in ms."""
    def call(query):
        answer = connection.json("POST", "/v1/search", {"vector": query.tolist(), "k": K})
        found.append([int(one["id"], 16) - 1 for one in answer["data"]])

    for query in queries[:WARM]:
        call(query)
    found.clear()
    before = search_seconds(connection)
    times = []
    for query in queries[WARM:]:
        start = time.perf_counter()
        call(query)
        times.append(time.perf_counter() - start)
    after = search_seconds(connection)
    return 1e3 * (after[0] - before[0]) / (after[1] - before[1]), 1e3 * statistics.median(times)


def recall(found, right):
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, right)]))


def measure_kith(kith, rows, queries, right, build_seconds, cells):
    with tempfile.TemporaryDirectory() as data:
        sets = ["training.enabled=false", "history.every_seconds=0", "serving.cache_mb=64"]
        server = Server(kith, data, sets)
        server.start()
        checkpoint = server.connect().json("GET", "/v1/training")["checkpoint"]["live"]
        server.stop()
        fill(data, uuid.UUID(checkpoint).bytes, rows)
        for max_scanned, name in [(len(rows), "scan"), (100_000, "graph")]:
            if name == "graph" and len(rows) <= max_scanned:
                continue
            server = Server(kith, data, [*sets, f"search.max_scanned={max_scanned}", f"search.max_images={len(rows) + 1}"])
            server.start()
            connection = server.connect()
            began = time.monotonic()
            while True:
                state = connection.json("GET", "/v1/search")["data"][0]
                if state["indexed_share"] == 1 and (name == "scan" or state["graph_images"] == len(rows)):
                    break
                if name == "graph" and time.monotonic() - began > build_seconds:
                    break
                time.sleep(0.5)
            built = time.monotonic() - began
            if name == "graph" and state["graph_images"] < len(rows):
                cells.append(unfinished("kith, graph", len(rows), built, state["graph_images"]))
                server.stop()
                continue
            found = []
            own, client = ask(connection, queries, found)
            cells.append({"vectors": len(rows), "what": f"kith, {name}", "ms": own, "http_ms": client, "recall": recall(found, right), "build_s": built if name == "graph" else None, "mb": state["bytes"] / 1e6})
            note(f"{cells[-1]}")
            server.stop()


def unfinished(what, size, seconds, done):
    """The row of a graph that took too long."""
    cell = {"vectors": size, "what": f"{what}, {done / size:.0%} built", "build_s": seconds}
    note(str(cell))
    return cell


def measure_libraries(rows, queries, threads, build_seconds, cells):
    faiss.omp_set_num_threads(threads)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(rows)
    right = [list(flat.search(query[None], K)[1][0]) for query in queries[WARM:]]
    cells.append({"vectors": len(rows), "what": "faiss, flat", "ms": median_ms(lambda query: flat.search(query[None], K), queries), "recall": 1.0})
    note(f"{cells[-1]}")
    graph = hnswlib.Index(space="ip", dim=DIM)
    graph.init_index(max_elements=len(rows), ef_construction=128, M=32)
    graph.set_num_threads(threads)
    began = time.monotonic()
    for start in range(0, len(rows), PART):
        if time.monotonic() - began > build_seconds:
            cells.append(unfinished("hnswlib, M 32", len(rows), time.monotonic() - began, start))
            return right
        graph.add_items(rows[start:start + PART])
    built = time.monotonic() - began
    graph.set_ef(256)
    found = [list(graph.knn_query(query[None], K)[0][0]) for query in queries[WARM:]]
    cells.append({"vectors": len(rows), "what": "hnswlib, M 32, ef 256", "ms": median_ms(lambda query: graph.knn_query(query[None], K), queries), "recall": recall(found, right), "build_s": built})
    note(f"{cells[-1]}")
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build-seconds", type=float, default=900)
    parser.add_argument("--out")
    options = parser.parse_args()
    cells = []
    for size in map(int, options.sizes.split(",")):
        rows = vectors(size, 1)
        random = np.random.default_rng(2)
        queries = rows[random.integers(0, size, options.queries + WARM)] + 0.05 * random.standard_normal((options.queries + WARM, DIM), dtype=np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        right = measure_libraries(rows, queries, options.threads, options.build_seconds, cells)
        measure_kith(options.kith, rows, queries, right, options.build_seconds, cells)
    shown = lambda cell, name, form: form.format(cell[name]) if cell.get(name) is not None else ""
    print(table(["vectors", "what", "ms", "HTTP ms", "recall@10", "built in s"], [[f"{cell['vectors']:,}", cell["what"], shown(cell, "ms", "{:.2f}"), shown(cell, "http_ms", "{:.2f}"), shown(cell, "recall", "{:.3f}"), shown(cell, "build_s", "{:.0f}")] for cell in cells]))
    if options.out:
        Path(options.out).write_text(json.dumps(cells, indent=1))


if __name__ == "__main__":
    main()
