"""Pairs as JSON, in one document or a line each, and the results of a stream. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from ._call import ErrorDocument, ErrorFields, decode, given
from ._images import ImageInput, to_base64
from ._retry import BUSY_CODES, QUOTA_CODE
from .errors import ApiError, class_of
from .types import Image, Pair, PairFailure

# Of one request of a stream. All results of so few lines fit into the connection's buffers, so that the server never waits for a client
# that sends the whole body before it reads.
_CHUNK_LINES = 64
_CHUNK_BYTES = 8 << 20
# The error of a line that says something about its pair, although it ends the stream.
_LINE_CODES = {"line_too_large"}
_STATUS_OF_CODE = {QUOTA_CODE: 429, "rate_limited": 429, "overloaded": 429, "stopping": 503, "not_ready": 503}


@dataclass(frozen=True)
class ImageId:
    """The id of a stored image, where its bytes need not be sent again."""

    id: str


Side = ImageInput | ImageId | Image


@dataclass(frozen=True)
class PairInput:
    """A pair to store. Without `positive` two views of the anchor are the pair; images of one `group` are never each other's negatives.

    `weight`: how much the pair counts in training, from 0.001 to 1000; 1 unless given.
    """

    anchor: Side
    positive: Side | None = None
    group: str | None = None
    weight: float | None = None

    def json(self) -> dict[str, Any]:
        """The pair as the server reads it; reads its files."""
        pair = {"anchor": _side(self.anchor)}
        if self.positive is not None:
            pair["positive"] = _side(self.positive)
        return {**pair, **given(group=self.group, weight=self.weight)}


def _side(side: Side) -> Any:
    return {"id": side.id} if isinstance(side, (Image, ImageId)) else {"image": to_base64(side)}


def chunks(pairs: Iterable[PairInput]) -> Iterator[list[bytes]]:
    """The lines of a stream in requests of bounded size; each pair's files are read when its chunk is asked for."""
    chunk: list[bytes] = []
    filled = 0
    for pair in pairs:
        line = msgspec.json.encode(pair.json()) + b"\n"
        if chunk and (len(chunk) == _CHUNK_LINES or filled + len(line) > _CHUNK_BYTES):
            yield chunk
            chunk, filled = [], 0
        chunk.append(line)
        filled += len(line)
    if chunk:
        yield chunk


@dataclass(frozen=True)
class Results:
    """The results of the first lines of a request, and the error that ended it before the others, if one did."""

    done: list[Pair | PairFailure]
    ended_by: ErrorFields | None = None

    def error(self) -> ApiError:
        """The end as an exception."""
        end = self.ended_by or ErrorFields("the stream ended without a result for each line", code="incomplete")
        status = _STATUS_OF_CODE.get(end.code, 400)
        return class_of(status)(end.message, status=status, code=end.code, param=end.param)

    def may_continue(self) -> bool:
        """Whether lines without a result are to be sent again."""
        return self.ended_by is None or self.ended_by.code in BUSY_CODES


def read_results(content: bytes, sent: int, first: int) -> Results:
    """The results of `sent` lines, of which the first is pair number `first` of the stream."""
    done: list[Pair | PairFailure] = []
    lines = [_read_line(line) for line in content.splitlines() if line.strip()]
    for number, result in enumerate(lines):
        if isinstance(result, Pair):
            done.append(result)
            continue
        last_of_fewer = number == len(lines) - 1 and len(lines) < sent
        if result.code in BUSY_CODES or (last_of_fewer and result.code not in _LINE_CODES):
            return Results(done, result)
        done.append(PairFailure(first + number, result.code, result.message, result.param))
    return Results(done)


def _read_line(line: bytes) -> Pair | ErrorFields:
    fields = decode(line, dict)
    return decode(line, ErrorDocument).error if "error" in fields else decode(line, Pair)
