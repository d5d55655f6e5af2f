"""A request as data, and the reading of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
import msgspec

from .errors import ApiError, InvalidAnswer, class_of

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A request. `repeatable`: sent twice it does what it does once, so that it may be sent again when the connection breaks."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    files: list[tuple[str, tuple[str, bytes]]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    timeout: float | None = None


@dataclass(frozen=True)
class Data(Generic[T]):
    """A list in an answer."""

    data: list[T]


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list; `next` is `None` on the last one."""

    data: list[T]
    next: str | None = None


@dataclass(frozen=True)
class ErrorFields:
    """What an error of the server says."""

    message: str
    code: str
    param: str | None = None


@dataclass(frozen=True)
class ErrorDocument:
    """The shape of every error of the server."""

    error: ErrorFields


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not `None`."""
    return {name: value for name, value in fields.items() if value is not None}


def decode(content: bytes, answer: type[T]) -> T:
    """The answer's JSON as a dataclass. `InvalidAnswer` if it has another shape."""
    try:
        return msgspec.json.decode(content, type=answer)
    except msgspec.MsgspecError as error:
        raise InvalidAnswer(f"the answer is not as expected ({error}): is this a kith server of this version?") from error


def to_error(response: httpx.Response) -> ApiError:
    """The error of a response that has been read. A proxy's error has no document: its text is then the message."""
    try:
        fields = msgspec.json.decode(response.content, type=ErrorDocument).error
    except msgspec.MsgspecError:
        fields = ErrorFields(response.text[:500] or response.reason_phrase, code="unknown")
    return class_of(response.status_code)(
        fields.message,
        status=response.status_code,
        code=fields.code,
        param=fields.param,
        request_id=response.headers.get("x-request-id"),
        retry_after=_seconds(response.headers.get("retry-after")),
    )


def _seconds(text: str | None) -> float | None:
    # A date, which HTTP allows too, is what kith never sends.
    return float(text) if text and text.isdecimal() else None
