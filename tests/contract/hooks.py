"""What Schemathesis cannot make up: images. A few valid ones stand for the format `image-base64`, for raw bodies and for files of forms."""

import base64
import struct
import zlib

import schemathesis
from hypothesis import strategies as st


def png(seed):
    """A PNG of 8 × 8 pixels with two colours."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = [b"\0" + bytes((seed * 40 + x * y * 25) % 256 for x in range(8) for _ in range(3)) for y in range(8)]
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


IMAGES = [png(seed) for seed in range(6)]
TEXTS = [base64.b64encode(image).decode() for image in IMAGES]
FILES = st.sampled_from(IMAGES)

schemathesis.openapi.format("image-base64", st.sampled_from(TEXTS + ["data:image/png;base64," + text for text in TEXTS]))
schemathesis.openapi.format("binary", FILES)
for media in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media, FILES)


FIELDS = {"file", "anchor", "positive", "group"}
UNKNOWN_HEADER = "x-schemathesis-unknown-property"


@schemathesis.hook
def filter_case(context, case):
    """Leaves out what a schema cannot say, or Schemathesis cannot send.

    An option in both body and query is refused. Headers that nobody declared are no error of HTTP. A file under a name that is not in the
    schema is sent as text."""
    body = case.body if isinstance(case.body, dict) else {}
    if case.media_type == "multipart/form-data" and set(body) - FIELDS:
        return False
    if UNKNOWN_HEADER in (case.headers or {}):
        return False
    options = {**body, **(case.query or {})}
    # The encoder of this test has 16 values, and hidden features have neither dimensions nor 8-bit formats.
    sizes = (options.get("dimensions"), options.get("output_dimension"))
    if any(isinstance(size, int) and size > 16 for size in sizes) or options.get("layer") == "hidden":
        return False
    return not set(body) & set(case.query or {})
