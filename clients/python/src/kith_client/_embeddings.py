"""Requests for embeddings, and what their answers mean. Sends nothing."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ._call import Call, decode, given
from ._images import ImageInput, to_bytes
from .errors import ApiError
from .types import Embeddings, EncodingFormat, InputType, Layer, Priority

# Most bytes of a request's images; a larger image goes alone.
_MAX_BYTES = 16 << 20
_DTYPES: dict[str, type[np.generic]] = {
    "int8": np.int8,
    "binary": np.int8,
    "uint8": np.uint8,
    "ubinary": np.uint8,
}


@dataclass(frozen=True)
class EmbedOptions:
    """What is asked for besides the images."""

    format: EncodingFormat = "float"
    dimensions: int | None = None
    layer: Layer | None = None
    input_type: InputType | None = None
    priority: Priority | None = None

    def call(self, model: str, files: list[bytes]) -> Call:
        """The request for the vectors of some image files."""
        # Floats in base64 keep their bits and are a third of the decimals' size.
        wire = "base64" if self.format == "float" else self.format
        return Call(
            "POST",
            "/v1/embeddings",
            params=given(
                model=model,
                encoding_format=wire,
                dimensions=self.dimensions,
                layer=self.layer,
                input_type=self.input_type,
            ),
            files=[("image", (str(index), file)) for index, file in enumerate(files)],
            headers=given(**{"x-kith-priority": self.priority}),
        )

    def read(self, content: bytes) -> Embeddings:
        """The vectors of an answer."""
        answer = decode(content, _Answer)
        rows = [item.embedding for item in answer.data]
        if self.format == "float":
            floats = [np.frombuffer(base64.b64decode(cast(str, row)), "<f4") for row in rows]
            return Embeddings(answer.model, np.stack(floats).astype(np.float32, copy=False))
        return Embeddings(answer.model, np.array(rows, _DTYPES[self.format]), answer.scale)


@dataclass(frozen=True)
class _Item:
    # Base64 of floats, or whole numbers.
    embedding: str | list[int]


@dataclass(frozen=True)
class _Answer:
    model: str
    data: list[_Item]
    scale: float | None = None


def as_list(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
    """One image as a list of one. An array of four dimensions is a list of images."""
    single = isinstance(images, (str, bytes, os.PathLike)) or hasattr(images, "read") or hasattr(images, "getexif")
    if single or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [cast(ImageInput, images)]
    return cast("Iterable[ImageInput]", images)


def batches(images: Iterable[ImageInput], size: int) -> Iterator[list[bytes]]:
    """The image files, at most `size` in a request; each is read when its batch is asked for."""
    if size < 1:
        raise ValueError("a batch has at least one image")
    batch: list[bytes] = []
    filled = 0
    for image in images:
        file = to_bytes(image)
        if batch and (len(batch) == size or filled + len(file) > _MAX_BYTES):
            yield batch
            batch, filled = [], 0
        batch.append(file)
        filled += len(file)
    if batch:
        yield batch


def shift_param(error: ApiError, offset: int) -> None:
    """Lets `input[3]` of a batch name the image among all images of the call."""
    found = re.fullmatch(r"input\[(\d+)\](.*)", error.param or "")
    if found:
        error.param = f"input[{int(found[1]) + offset}]{found[2]}"


def join(parts: list[Embeddings]) -> Embeddings:
    """The vectors of several answers of one checkpoint. `ValueError` if there are none."""
    if not parts:
        raise ValueError("there is no image")
    vectors: np.ndarray[Any, Any] = np.concatenate([part.vectors for part in parts])
    return Embeddings(parts[0].model, vectors, parts[0].scale)
