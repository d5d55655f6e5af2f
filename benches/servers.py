#!/usr/bin/env python3
"""kith beside FastAPI + onnxruntime, FastAPI + OpenVINO and LitServe: requests a second, p50 and p99, same weights, same images, same machine.

    apt install wrk; pip install fastapi uvicorn litserve onnxruntime openvino pillow numpy
    python3 benches/servers.py --kith target/release/kith [--sides 96,224] [--rounds 3] [--seconds 6] [--threads 2] [--out FILE.json]

The images are the example's pictures, enlarged to 160 (320) pixels and saved as JPEG, for an encoder of 96 (224) px. Before anything is measured, the vectors of
kith and of each other server are compared: they may differ by decoding and the order of sums. `wrk` sends single images as raw bodies (LitServe: base64 in JSON)
and batches of 16 as base64 in JSON, over 1, 8 and 32 connections without a pause. All servers run at once and wait while one is measured; cells are measured in
turn, so that a busy moment of the machine meets all. A cell takes --seconds, and one more for every 16 images that are asked for at once. kith does not train and keeps no vectors. A ratio is the median of the rounds' ratios.
"""

import argparse
import base64
import io
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from harness import Server, note, table
from throughput import EXAMPLE

RIVALS = ["fastapi-onnxruntime", "fastapi-openvino", "litserve"]
BATCH = 16
WARM_SECONDS = 2
CLIENTS = [1, 8, 32]
SCRIPT = """
local bodies, at = {}, 0
for number = 0, %d do
  local file = io.open("%s/" .. number, "rb")
  bodies[number] = file:read("*a")
  file:close()
end
request = function()
  at = (at + 1) %% (#bodies + 1)
  return wrk.format("POST", "%s", {["content-type"] = "%s"}, bodies[at])
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('JSON{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "failed": %%d}\\n', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def pictures(edge):
    for path in sorted((EXAMPLE / "google").glob("*.png"))[:48]:
        with Image.open(path) as image:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC)
        data = io.BytesIO()
        image.save(data, "JPEG", quality=90)
        yield data.getvalue()


def post(url, body, kind):
    with urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": kind}), timeout=60) as answer:
        return json.load(answer)


class Target:
    """A server with the requests it is sent: `{batch: (path, content type, bodies)}`."""

    def __init__(self, name, url, requests, folder):
        self.name, self.url, self.scripts = name, url, {}
        self.first = {batch: (path, kind, bodies[0]) for batch, (path, kind, bodies) in requests.items()}
        for batch, (path, kind, bodies) in requests.items():
            place = folder / name / str(batch)
            place.mkdir(parents=True)
            for number, body in enumerate(bodies):
                (place / str(number)).write_bytes(body)
            script = place / "script.lua"
            script.write_text(SCRIPT % (len(bodies) - 1, place, path, kind))
            self.scripts[batch] = script

    def vector(self):
        path, kind, body = self.first[1]
        answer = post(self.url + path, body, kind)
        return np.array(answer["data"][0]["embedding"] if "data" in answer else answer["embeddings"][0])

    def measure(self, batch, clients, seconds):
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout=60s", "-s", self.scripts[batch], self.url]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(done.split("JSON")[1])
        if found["failed"]:
            raise RuntimeError(f"{self.name}: {found}")
        return {"images_per_second": found["requests"] * batch / found["seconds"], "p50_ms": found["p50"], "p99_ms": found["p99"]}


def free_port():
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        return link.getsockname()[1]


def start_rival(name, folder, threads):
    """The process and its URL, once it answers."""
    port = free_port()
    command = [sys.executable, Path(__file__).with_name("rivals.py"), name, "--folder", folder, "--port", str(port), "--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/docs", timeout=5).read()
            return process, f"http://127.0.0.1:{port}"
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    raise RuntimeError(f"{name} did not start")


def requests_of(name, images):
    encoded = [base64.b64encode(image).decode() for image in images]
    batches = [[encoded[(start + i) % len(encoded)] for i in range(BATCH)] for start in range(0, len(encoded), 4)]
    if name == "kith":
        many = [json.dumps({"input": [f"data:image/jpeg;base64,{image}" for image in batch]}).encode() for batch in batches]
        return {1: ("/v1/embeddings", "image/jpeg", images), BATCH: ("/v1/embeddings", "application/json", many)}
    many = [json.dumps({"images": batch}).encode() for batch in batches]
    one = ("/embed", "image/jpeg", images)
    if name == "litserve":
        one = ("/batch", "application/json", [json.dumps({"images": [image]}).encode() for image in encoded])
    return {1: one, BATCH: ("/batch", "application/json", many)}


def compare(side, args):
    """Rows of one side: one a server, batch and number of clients."""
    folder = Path(tempfile.mkdtemp(prefix="kith-servers-"))
    images = list(pictures(160 if side < 128 else 320))
    # The others queue without a bound.
    sets = [f"encoder.side={side}", "training.enabled=false", "serving.queue_images=2048", "serving.max_wait_ms=0", f"serving.threads={args.threads}", *args.set]
    server = Server(args.kith, folder / "data", sets, folder / "log").start()
    processes = []
    try:
        export = folder / "onnx"
        server.run("checkpoint", "export", "live", "--format", "onnx", "--out", export, "--data-dir", folder / "data")
        targets = [Target("kith", server.url, requests_of("kith", images), folder)]
        for name in RIVALS:
            process, url = start_rival(name, export, args.threads)
            processes.append(process)
            targets.append(Target(name, url, requests_of(name, images), folder))
        own = targets[0].vector()
        for target in targets[1:]:
            cosine = float(own @ target.vector())
            note(f"{side} px, {target.name}: cosine to kith's vector {cosine:.7f}")
            if cosine < 0.999:
                raise RuntimeError("not the same network, or not the same preprocessing")
        rounds = []
        for number in range(args.rounds):
            found = {}
            for batch in (1, BATCH):
                for clients in CLIENTS:
                    for target in targets:
                        target.measure(batch, clients, WARM_SECONDS)
                        # All clients' requests are answered at about the same moment: there must be several such moments.
                        seconds = args.seconds + batch * clients // 16
                        cell = found[target.name, batch, clients] = target.measure(batch, clients, seconds)
                        note(f"{target.name}, {batch} images, {clients} clients: {cell['images_per_second']:.0f} a second, p99 {cell['p99_ms']:.0f} ms")
            rounds.append(found)
            note(f"{side} px: round {number + 1} of {args.rounds}")
    finally:
        for process in processes:
            # With its workers. LitServe does not end by itself after SIGTERM.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        server.stop()
        shutil.rmtree(folder)
    rows = []
    for name, batch, clients in rounds[0]:
        cells = [one[name, batch, clients] for one in rounds]
        row = {"side": side, "images": batch, "clients": clients, "server": name}
        row |= {key: round(statistics.median(cell[key] for cell in cells), 1) for key in cells[0]}
        ratios = [ahead(one["kith", batch, clients], one[name, batch, clients]) for one in rounds]
        row |= {"kith_ahead": round(statistics.median(ratios), 2), "least": round(min(ratios), 2)}
        row["p99_ahead"] = round(statistics.median(one[name, batch, clients]["p99_ms"] / one["kith", batch, clients]["p99_ms"] for one in rounds), 2)
        rows.append(row)
    return rows


def ahead(own, other):
    """Infinite where the other answered nothing in time."""
    if not own["images_per_second"]:
        raise RuntimeError("kith answered no request in time: raise --seconds (32 times 16 images of 224 px take some six)")
    return own["images_per_second"] / other["images_per_second"] if other["images_per_second"] else float("inf")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kith", default="target/release/kith")
    parser.add_argument("--sides", default="96,224")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [row for side in args.sides.split(",") for row in compare(int(side), args)]
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
