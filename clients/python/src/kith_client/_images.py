"""An image of the caller becomes the bytes of an image file."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Union

import numpy as np

if TYPE_CHECKING:
    import PIL.Image

# A path or a data URI, the bytes of a file, an open file, an image of Pillow, or an array `[height, width]` or
# `[height, width, 1 | 3 | 4]` of uint8.
ImageInput = Union[str, "os.PathLike[str]", bytes, IO[bytes], "PIL.Image.Image", "np.ndarray[Any, Any]"]

# What Pillow can write as PNG without a loss that embeddings could see.
_PNG_MODES = {"1", "L", "LA", "I;16", "P", "RGB", "RGBA"}


def to_bytes(image: ImageInput) -> bytes:
    """The bytes of an image file. `OSError` if a path cannot be read; `TypeError` and `ValueError` for what is no image."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str) and image.startswith("data:"):
        return _from_data_uri(image)
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _png(_from_array(image))
    if hasattr(image, "read"):
        return image.read()
    if hasattr(image, "getexif"):
        return _png(image)
    raise TypeError(f"{type(image).__name__} is no image: give a path, bytes, an open file, Pillow's image or a uint8 array")


def to_base64(image: ImageInput) -> str:
    """The bytes of the image file in base64, as JSON carries them."""
    return base64.b64encode(to_bytes(image)).decode()


def _from_data_uri(uri: str) -> bytes:
    head, comma, text = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ValueError("the data URI is not in base64")
    return base64.b64decode(text)


def _from_array(array: np.ndarray[Any, Any]) -> PIL.Image.Image:
    if array.dtype != np.uint8:
        raise TypeError(f"the array is of {array.dtype}: values from 0 to 255 as uint8 are expected")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ValueError(f"the array has the shape {array.shape}: [height, width] or [height, width, 1, 3 or 4] is expected")
    from PIL import Image

    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and channels == 1 else array)


def _png(image: PIL.Image.Image) -> bytes:
    from PIL import ImageOps

    # A PNG would lose the rotation that a camera left to the viewer.
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"Pillow's mode {image.mode} has no range of values that is black to white: convert it to L")
    if image.mode not in _PNG_MODES:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    file = io.BytesIO()
    # Fast rather than small: the bytes live for one request.
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
