"""The servers that kith is measured beside: each answers embeddings of the same network with the same weights and preprocessing.

    python3 rivals.py fastapi-onnxruntime|fastapi-openvino|litserve --folder CHECKPOINT --port PORT [--threads 2]

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
from PIL import Image, ImageOps

MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def write_onnx(folder, path):
    """Writes the checkpoint in `folder` as an ONNX graph: `pixels` `[n, 3, side, side]` to `embedding` `[n, dim]`."""
    from onnx import TensorProto, checker, helper, numpy_helper, save
    from safetensors.numpy import load_file

    weights = load_file(folder / "model.safetensors")
    side = json.loads((folder / "manifest.json").read_text())["encoder"]["side"]
    nodes, seen = [], iter(range(10**6))

    def add(kind, *inputs, **attributes):
        output = f"v{next(seen)}"
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def conv(name, x, stride=1):
        edge = weights[f"{name}.weight"].shape[2] // 2
        return add("Conv", x, f"{name}.weight", f"{name}.bias", strides=[stride] * 2, pads=[edge] * 4)

    def linear(name, x):
        return add("Gemm", x, f"{name}.weight", f"{name}.bias", transB=1)

    x = add("Relu", conv("conv1", "pixels", 2))
    x = add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, half in ((stage, half) for stage in range(1, 5) for half in range(2)):
        name, stride = f"layer{stage}.{half}", 2 if stage > 1 and half == 0 else 1
        y = conv(f"{name}.conv2", add("Relu", conv(f"{name}.conv1", x, stride)))
        x = add("Relu", add("Add", y, conv(f"{name}.downsample.0", x, stride) if stride > 1 else x))
    x = linear("projection", add("Relu", linear("fc", add("Flatten", add("GlobalAveragePool", x)))))
    nodes.append(helper.make_node("LpNormalization", [x], ["embedding"], axis=1, p=2))
    arrays = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, side, side])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", None])
    model = helper.make_model(helper.make_graph(nodes, "encoder", [pixels], [embedding], arrays), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)


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
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


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
        return own.request.infer({0: pixels})[0].copy()

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
    if not path.exists():
        write_onnx(args.folder, path)
    side = json.loads((args.folder / "manifest.json").read_text())["encoder"]["side"]
    if args.server == "litserve":
        serve_litserve(path, side, args.port, args.threads)
    else:
        engine = {"fastapi-onnxruntime": onnxruntime_engine, "fastapi-openvino": openvino_engine}[args.server]
        serve_fastapi(engine(path, args.threads), side, args.port)


if __name__ == "__main__":
    main()
