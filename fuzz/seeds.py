#!/usr/bin/env python3
"""Writes the first inputs of each fuzz target into corpus/TARGET. Needs Pillow.

    python3 fuzz/seeds.py

Inputs that fuzzing found lie beside them under the SHA-1 of their content; this script leaves those alone.
"""

import base64
import hashlib
import io
import json
import pathlib
import struct
import zipfile

from PIL import Image

CORPUS = pathlib.Path(__file__).parent / "corpus"
SIDE = 6
# A file of arrays without any, as src/checkpoint_files.rs has it.
NO_ARRAYS = struct.pack("<Q", 8) + b"{}      "
PARTS = ["model.safetensors", "optimizer.safetensors", "chains.safetensors", "trainer.json"]
ID = "01a2111d-5eb0-748a-aec6-a713e910f739"


def write(target: str, name: str, content: bytes | str) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def picture(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGBA", (SIDE, SIDE + 2))
    for x in range(image.width):
        for y in range(image.height):
            image.putpixel((x, y), (40 * x, 30 * y, 200 - 20 * x, 255 if x else 90))
    return image.convert(mode)


def encoded(kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    picture(mode).save(file, kind, **options)
    return file.getvalue()


def without_tables(jpeg: bytes) -> bytes:
    """Without its Huffman tables, as frames of a Motion JPEG are."""
    kept, at = jpeg[:2], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != 0xC4:
            kept += jpeg[at:end]
        at = end
    return kept + jpeg[at:]


def qoi() -> bytes:
    pixels = picture("RGBA")
    chunks = b"".join(b"\xff" + bytes(pixels.getpixel((x, y))) for y in range(pixels.height) for x in range(pixels.width))
    return b"qoif" + struct.pack(">IIBB", *pixels.size, 4, 0) + chunks + b"\0" * 7 + b"\1"


def images() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg, progressive = encoded("JPEG"), encoded("JPEG", progressive=True)
    palette = io.BytesIO()
    picture("RGB").quantize(8).save(palette, "PNG", transparency=0)
    frames = io.BytesIO()
    picture().save(frames, "GIF", save_all=True, append_images=[picture().transpose(Image.Transpose.ROTATE_180)])
    for name, content in {
        "rgb.png": encoded("PNG"),
        "rgba.png": encoded("PNG", "RGBA", exif=exif),
        "palette.png": palette.getvalue(),
        "grey.png": encoded("PNG", "L"),
        "bilevel.png": encoded("PNG", "1"),
        "baseline.jpg": jpeg,
        "grey.jpg": encoded("JPEG", "L"),
        "cmyk.jpg": encoded("JPEG", "CMYK"),
        "turned.jpg": encoded("JPEG", exif=exif),
        "progressive.jpg": progressive,
        "restarts.jpg": encoded("JPEG", restart_marker_blocks=1),
        "no_tables.jpg": without_tables(jpeg),
        "no_end.jpg": jpeg[:-2],
        "cut.jpg": progressive[:-40],
        "lossy.webp": encoded("WEBP", "RGBA", quality=30),
        "lossless.webp": encoded("WEBP", "RGBA", lossless=True),
        "frames.gif": frames.getvalue(),
        "rgb.bmp": encoded("BMP"),
        "palette.bmp": encoded("BMP", "P"),
        "lzw.tiff": encoded("TIFF", compression="tiff_lzw"),
        "deflate.tiff": encoded("TIFF", "RGBA", compression="tiff_adobe_deflate"),
        "packed.tiff": encoded("TIFF", "L", compression="packbits"),
        "fax.tiff": encoded("TIFF", "1", compression="group4"),
        "rgba.qoi": qoi(),
        "drawing.svg": "<?xml version='1.0'?><svg xmlns='x'/>",
        "photo.heic": b"\0\0\0\x18ftypheic\0\0",
    }.items():
        write("decode", name, content)


def bodies() -> None:
    png = encoded("PNG", "L", optimize=True)
    text = base64.b64encode(png).decode()
    uri = f"data:image/png;base64,{text}"
    write("embeddings_json", "uri.json", json.dumps({"input": uri}))
    write("embeddings_json", "options.json", json.dumps({
        "input": [text.rstrip("="), {"image": uri}], "model": "kith", "encoding_format": "base64", "dimensions": 8.0, "layer": "embedding",
        "input_type": "query", "normalized": True, "modality": "image", "user": None}))
    write("embeddings_json", "chat.json", json.dumps({
        "input": [{"type": "image_url", "image_url": {"url": uri, "detail": "low"}}], "layer": "hidden", "embedding_type": "ubinary"}))
    write("embeddings_json", "url.json", '{"input": "https://example.org/a.png"}')
    write("embeddings_json", "images.json", json.dumps({
        "model": "kith", "images": [uri], "input_type": "image", "embedding_types": ["float", "int8", "binary"], "output_dimension": 8, "texts": []}))
    write("embeddings_json", "inputs.json", json.dumps({
        "inputs": [{"content": [{"type": "image_url", "image_url": {"url": uri}}]}], "embedding_types": ["base64"], "truncate": "END"}))
    write("embeddings_json", "nested.json", '{"input": ' + "[" * 150 + "]" * 150 + "}")
    write("embeddings_json", "mark.json", b"\xef\xbb\xbf" + b'{"input": "\\ud800\\u0000", "dimensions": 1e999}')

    known = hashlib.sha256(png).hexdigest()
    lines = [
        {"anchor": {"image": uri}, "positive": {"image": text}, "group": "g"},
        {"anchor": {"image": {"image_url": uri}}},
        {"anchor": {"id": known}, "positive": {"id": known}, "group": None},
        {"anchor": {"image": uri, "id": known}},
        {"anchor": {"image": "AAAA"}, "group": ""},
    ]
    for number, line in enumerate(lines):
        write("pairs_ndjson", f"line{number}.ndjson", json.dumps(line))
    write("pairs_ndjson", "all.ndjson", "\r\n \n".join(json.dumps(line) for line in lines) + "\n{\nnull\n[]\n")

    def form(*parts: tuple[str, bytes], end: bytes = b"--edge--\r\n") -> bytes:
        head = b"--edge\r\ncontent-disposition: form-data; "
        return b"".join(head + name.encode() + b"\r\n\r\n" + content + b"\r\n" for name, content in parts) + end

    write("multipart", "files.form", form(('name="a"; filename="a.png"', png), ('name="b"; filename=""', b"")))
    write("multipart", "pair.form", form(('name="anchor"; filename="a.png"', png), ('name="positive"', png), ('name="group"', b"g")))
    write("multipart", "twice.form", form(('name="anchor"; filename=a', png), ('name="anchor"', b"x")))
    write("multipart", "cut.form", form(("name*=utf-8''anchor; filename=\"a\\\"b\"", png), end=b"--ed"))
    write("multipart", "types.form", b"--edge\r\ncontent-type: image/png\r\ncontent-disposition: form-data; name=group\r\n\r\n\xff\r\n--edge--")


def lists() -> None:
    write("pairs_csv", "pairs.csv", "anchor,positive,group\na.png,b.png,g\n\"c, 1.png\",,\n,d.png,\n")
    write("pairs_csv", "excel.csv", "\ufeffgroup,anchor\r\n g , a.png \r\n\r\n\"x\"\"y\",b\r\n")
    write("pairs_csv", "uneven.csv", "anchor\na,b\n\"open\nline\n")
    write("pairs_csv", "other.csv", "anchor,postive\na,b\n")
    write("pairs_csv", "text.csv", b"anchor\n\xff\xfe\n")


def safetensors(header: dict, values: bytes = b"") -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + values


def described(arrays: list[tuple[str, str, list[int], int]], **metadata) -> dict:
    header, start = {"__metadata__": metadata} if metadata else {}, 0
    for name, kind, shape, size in arrays:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    return header


def checkpoints() -> None:
    floats = struct.pack("<6f", 0, -0.0, 1e-40, float("nan"), float("inf"), 3.4e38)
    two = [("conv1.weight", "F32", [2, 2], 16), ("fc.bias", "F32", [2], 8)]
    write("safetensors", "two.safetensors", safetensors(described(two), floats))
    write("safetensors", "scalar.safetensors", safetensors(described([("a", "F32", [], 4), ("none", "F32", [0, 3], 0)], k="v"), floats[:4]))
    write("safetensors", "half.safetensors", safetensors(described([("a", "F16", [3, 2], 12)]), floats[:12]))
    write("safetensors", "empty.safetensors", NO_ARRAYS)
    columns = ["anchor", "negative", "log_score", "step", "visits", "still"]
    table = [(name, "F32" if name == "log_score" else "U32", [2], 8) for name in columns]
    values = struct.pack("<4I2f6I", 1, 4, 9, 2**32 - 1, -0.25, 9.5, 7, 8, 1, 2, 0, 3)
    write("chains", "chains.safetensors", safetensors(described(table, states="chains"), values))
    write("chains", "averages.safetensors", safetensors(described(table, states="averages"), values))
    write("chains", "old.safetensors", safetensors(described(table), values))
    none = [(name, kind, [0], 0) for name, kind, _, _ in table]
    write("chains", "none.safetensors", safetensors(described(none, states="chains")))
    uneven = [*table[:5], ("still", "U32", [1], 4)]
    write("chains", "uneven.safetensors", safetensors(described(uneven), values[:-4]))

    part = {"bytes": len(NO_ARRAYS), "sha256": hashlib.sha256(NO_ARRAYS).hexdigest()}
    manifest = {
        "version": 1, "id": ID, "step": 12, "encoder": {"width": 8, "side": 32, "dim": 16},
        "parts": [{"name": name, **part} for name in PARTS], "created_at": "2026-01-02T03:04:05.678Z", "note": None, "parent": None,
    }
    write("manifest", "old.json", json.dumps(manifest))
    preprocessing = {
        "side": 32, "crop": "centre_square", "filter": "antialiased_bilinear", "mean": [0.485, 0.456, 0.406],
        "deviation": [0.229, 0.224, 0.225], "background": "white",
    }
    manifest |= {"sequence": 3, "range": 0.5, "preprocessing": preprocessing, "note": "before", "parent": ID}
    manifest["origin"] = {"kind": "file", "file": "a.pth", "sha256": part["sha256"], "projection": "own", "dropped": ["fc.weight"]}
    write("manifest", "new.json", json.dumps(manifest))
    manifest["parts"][1]["bytes"] = 2**64 - 1
    write("manifest", "huge.json", json.dumps(manifest))


def network(norms: bool) -> list[tuple[str, list[int]]]:
    """The arrays of a ResNet-18 of width 8."""
    arrays = []

    def conv(name: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        arrays.append((f"{name}.weight", [outputs, inputs, kernel, kernel]))
        if norms:
            arrays.extend((f"{norm}.{one}", [outputs]) for one in ["weight", "bias", "running_mean", "running_var"])
        else:
            arrays.append((f"{name}.bias", [outputs]))

    conv("conv1", "bn1", 8, 3, 7)
    for stage in range(4):
        for block in range(2):
            outputs, at = 8 << stage, f"layer{stage + 1}.{block}."
            inputs = outputs // 2 if stage and not block else outputs
            conv(f"{at}conv1", f"{at}bn1", outputs, inputs, 3)
            conv(f"{at}conv2", f"{at}bn2", outputs, outputs, 3)
            if inputs != outputs:
                conv(f"{at}downsample.0", f"{at}downsample.1", outputs, inputs, 1)
    return arrays


SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1}


def typed(arrays: list[tuple[str, list[int]]], kinds: list[str]) -> dict:
    rows = []
    for number, (name, shape) in enumerate(arrays):
        kind, count = kinds[number % len(kinds)], 1
        for size in shape:
            count *= size
        rows.append((name, kind, shape, count * SIZES[kind]))
    return described(rows)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)


def tensor(kind: str, shape: list[int], strides: list[int], size: int) -> bytes:
    """A tensor of storage `0`."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text("0") + text("cpu") + number(size) + b"tQ"
    def numbers(all: list[int]) -> bytes:
        return b"(" + b"".join(map(number, all)) + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"


def state_dict(arrays: list[tuple[str, list[int]]]) -> bytes:
    items = b"".join(text(name) + tensor("FloatStorage", shape, [0] * len(shape), 1) for name, shape in arrays)
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u."


def weights() -> None:
    plain, normed = network(False), network(True)
    write("weights_safetensors", "plain.safetensors", safetensors(typed(plain, ["F32", "F16", "BF16", "F64", "U8", "I64"])))
    own = [*plain, ("fc.weight", [64, 64]), ("fc.bias", [64]), ("projection.weight", [16, 64]), ("projection.bias", [16])]
    write("weights_safetensors", "own.safetensors", safetensors(typed(own, ["U8"])))
    write("weights_safetensors", "normed.safetensors", safetensors(typed([(f"module.{name}", shape) for name, shape in normed], ["U8"])))
    write("weights_safetensors", "short.safetensors", safetensors(typed(plain[:3], ["F32"])))
    write("weights_safetensors", "lfs", "version https://git-lfs.github.com/spec/v1\n")
    write("weights_safetensors", "old.pth", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    write("weights_pickle", "plain.pkl", state_dict(plain))
    few = tensor("HalfStorage", [2, 3], [3, 1], 6)
    write("weights_pickle", "few.pkl", b"\x80\x02}(" + text("conv1.weight") + few + text("epoch") + number(300) + b"u.")
    write("weights_pickle", "nested.pkl", b"\x80\x02}q\x00(" + text("state_dict") + b"}" + text("a") + few + b"s" + text("lr") + b"G" + bytes(8) + b"u.")
    write("weights_pickle", "parameter.pkl", b"\x80\x02}" + text("p") + b"ctorch._utils\n_rebuild_parameter\n(" + few + b"\x88N" + b"tRs.")
    write("weights_pickle", "call.pkl", b"\x80\x02cos\nsystem\n(" + text("true") + b"tR.")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in [("data.pkl", state_dict([("a", [2])])), ("byteorder", b"little"), ("data/0", bytes(8))]:
            file.writestr(zipfile.ZipInfo(f"a/{name}", (1980, 1, 1, 0, 0, 0)), content)
    write("weights_pickle", "whole.pth", archive.getvalue())


if __name__ == "__main__":
    images()
    bodies()
    lists()
    checkpoints()
    weights()
