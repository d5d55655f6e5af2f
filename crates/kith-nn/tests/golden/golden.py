"""What the scripts of this folder share: a hash that Rust computes as well, and the file that the tests read."""

import json
import struct

import numpy as np


def hashes(stream, count):
    """A hash of (stream, index) for each index below `count`, the same in Rust."""
    z = np.arange(count, dtype=np.uint32) + np.uint32((stream * 0x9E3779B9) & 0xFFFFFFFF)
    with np.errstate(over="ignore"):
        z ^= z >> np.uint32(16)
        z *= np.uint32(0x7FEB352D)
        z ^= z >> np.uint32(15)
        z *= np.uint32(0x846CA68B)
        z ^= z >> np.uint32(16)
    return z


def uniform(stream, count):
    """Uniform in [-1, 1), in float64; exact in float32."""
    return (hashes(stream, count) >> np.uint32(8)).astype(np.float64) / 2**23 - 1.0


def save(path, arrays):
    """Writes named arrays as a safetensors file of float32."""
    header, blobs, at = {}, [], 0
    for name, array in arrays.items():
        blob = np.ascontiguousarray(np.asarray(array, dtype=np.float32)).tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
