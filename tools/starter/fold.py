"""Folds the BatchNorms of a starter encoder into its convolutions and stores them in 16 bits: the file that kith embeds.

    pip install numpy safetensors
    python3 tools/starter/fold.py distilled.safetensors crates/kith-weights/starter.safetensors

The input is what distil.py writes: torchvision's ResNet-18 without `fc`, and `projection.weight`, `projection.bias`.
"""

import sys

import numpy as np
from safetensors.numpy import load_file, save_file

EPSILON = 1e-5  # torchvision's


def norm_of(conv):
    """The name of the BatchNorm after a convolution."""
    if "downsample.0" in conv:
        return conv.replace("downsample.0", "downsample.1")
    head, _, number = conv.rpartition("conv")
    return f"{head}bn{number}"


def fold(arrays):
    """Weights and biases of the convolutions, with their BatchNorms folded in, and the projection."""
    arrays = {name: array.astype(np.float64) for name, array in arrays.items() if array.dtype.kind == "f"}
    folded = {}
    for name, weight in arrays.items():
        if weight.ndim != 4:
            continue
        conv = name.removesuffix(".weight")
        norm = norm_of(conv)
        scale = arrays[f"{norm}.weight"] / np.sqrt(arrays[f"{norm}.running_var"] + EPSILON)
        folded[name] = weight * scale[:, None, None, None]
        folded[f"{conv}.bias"] = arrays[f"{norm}.bias"] - arrays[f"{norm}.running_mean"] * scale
    for part in ("weight", "bias"):
        folded[f"projection.{part}"] = arrays[f"projection.{part}"]
    return folded


def stored(name, array):
    """Convolutions in 16 bits; biases and the projection, which are small, in 32."""
    largest = np.abs(array).max()
    if array.ndim == 4:
        assert largest < 65504, f"{name} reaches {largest}, beyond 16 bits"
        return array.astype(np.float16)
    return array.astype(np.float32)


def main():
    source, target = sys.argv[1:]
    folded = fold(load_file(source))
    save_file({name: stored(name, array) for name, array in folded.items()}, target)
    print(f"{target}: {sum(array.size for array in folded.values()):,} values")


if __name__ == "__main__":
    main()
