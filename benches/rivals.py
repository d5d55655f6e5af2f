"""The servers that kith is measured beside: each answers embeddings of the same network with the same weights and preprocessing.

    kith checkpoint export live --format onnx --out EXPORT --data-dir DIR
    python3 rivals.py fastapi-onnxruntime|fastapi-openvino|litserve --folder EXPORT --port PORT [--threads 2]

`POST /batch` takes `{"images": [base64, ...]}`; the answer is `{"embeddings": [[...], ...]}`. The first two also take one image's bytes at
`POST /embed`; LitServe takes JSON. It gathers up to eight requests into a pass, the others compute each by itself in a thread of FastAPI's pool. Used by servers.py.
"""

import argparse
import base64
import io
import json
from pathlib import Path

import litserve
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def preprocess(data, side):
    """As docs/checkpoints.md: `[3, side, side]`."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode != "RGB":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    image = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + edge, top + edge))
    return ((np.asarray(image, np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)


def onnxruntime_engine(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["embedding"], {"pixels": pixels})[0]


def openvino_engine(path, threads):
    import threading

    import openvino

    core = openvino.Core()
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
    # An infer request serves one thread at a time.
    own = threading.local()

    def run(pixels):
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return own.request.infer({"pixels": pixels})["embedding"].copy()

    return run


def serve_fastapi(engine, side, port):
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool

    app = FastAPI()

    def embed(images):
        pixels = np.stack([preprocess(image, side) for image in images])
        return {"embeddings": engine(pixels).tolist()}

    @app.post("/embed")
    async def single(request: Request):
        return await run_in_threadpool(embed, [await request.body()])

    @app.post("/batch")
    async def batch(request: Request):
        images = json.loads(await request.body())["images"]
        return await run_in_threadpool(embed, [base64.b64decode(image) for image in images])

    uvicorn.run(app, port=port, log_level="warning")


class Api(litserve.LitAPI):
    """LitServe starts its worker from a copy of this, so it is no local class, and opens the model there."""

    def setup(self, device):
        self.engine = onnxruntime_engine(self.path, self.threads)

    def decode_request(self, request):
        return [preprocess(base64.b64decode(image), self.side) for image in request["images"]]

    def batch(self, inputs):
        return inputs

    def predict(self, inputs):
        rows = self.engine(np.stack([image for images in inputs for image in images]))
        return np.split(rows, np.cumsum([len(images) for images in inputs])[:-1])

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"embeddings": output.tolist()}


def serve_litserve(path, side, port, threads):
    api = Api(max_batch_size=8, batch_timeout=0.002, api_path="/batch")
    api.path, api.side, api.threads = path, side, threads
    litserve.LitServer(api, accelerator="cpu").run(port=port, log_level="warning", generate_client_file=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", choices=["fastapi-onnxruntime", "fastapi-openvino", "litserve"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    path = args.folder / "model.onnx"
    side = onnxruntime.InferenceSession(str(path)).get_inputs()[0].shape[2]
    if args.server == "litserve":
        serve_litserve(path, side, args.port, args.threads)
    else:
        engine = {"fastapi-onnxruntime": onnxruntime_engine, "fastapi-openvino": openvino_engine}[args.server]
        serve_fastapi(engine(path, args.threads), side, args.port)


if __name__ == "__main__":
    main()
