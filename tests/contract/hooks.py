"""What Schemathesis cannot make up: images. A few valid ones stand for the format `image-base64`, for raw bodies and for files of forms."""

import base64
import json

import schemathesis
from hypothesis import strategies as st
from images import png
from schemathesis.core.parameters import ParameterLocation

IMAGES = [png(seed) for seed in range(6)]
# The encoder of this test has as many values.
DIM = 16
TEXTS = [base64.b64encode(image).decode() for image in IMAGES]
FILES = st.sampled_from(IMAGES)

schemathesis.openapi.format("image-base64", st.sampled_from(TEXTS + ["data:image/png;base64," + text for text in TEXTS]))
schemathesis.openapi.format("binary", FILES)
for media in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media, FILES)


NDJSON = "application/x-ndjson"


@schemathesis.serializer(NDJSON)
def write_line(context, pair):
    return json.dumps(pair).encode() + b"\n"


@schemathesis.deserializer(NDJSON)
def read_line(context, response):
    """The result of the one line that `write_line` sends."""
    (line,) = response.content.decode().splitlines()
    return json.loads(line)


@schemathesis.hook
def map_body(context, body):
    return with_known_model(with_fitting_vector(body))


@schemathesis.hook
def map_query(context, query):
    return with_known_model(query)


def numbers(body):
    """The vector of a search, if that is what it is."""
    vector = body.get("vector") if isinstance(body, dict) else None
    return vector if isinstance(vector, list) and all(type(value) in (int, float) for value in vector) else None


def with_fitting_vector(body):
    """A vector that is searched for is as long as the encoder's, of values that an f32 holds, and has a direction."""
    vector = numbers(body)
    if vector is None:
        return body
    small = [min(max(value, -1.0), 1.0) for value in vector]
    return {**body, "vector": [1.0, *small, *[0.0] * DIM][:DIM]}


def with_known_model(options):
    """Names made up are unknown: those of an even length become that of the model."""
    if isinstance(options, dict) and isinstance(options.get("model"), str) and len(options["model"]) % 2 == 0:
        return {**options, "model": "kith"}
    return options


FIELDS = {"file", "anchor", "positive", "group"}
UNKNOWN_HEADER = "x-schemathesis-unknown-property"


@schemathesis.hook
def filter_case(context, case):
    """Leaves out what a schema cannot say, or Schemathesis cannot send.

    An option in both body and query is refused. Headers that nobody declared are no error of HTTP. A file under a name that is not in the
    schema is sent as text. A stream is answered 200 whatever its lines hold, since their errors are lines, and it takes no idempotency key."""
    body = case.body if isinstance(case.body, dict) else {}
    vector = numbers(body)
    if vector is not None and len(vector) != DIM:
        return False
    if case.media_type == "multipart/form-data" and set(body) - FIELDS:
        return False
    if UNKNOWN_HEADER in (case.headers or {}):
        return False
    if case.media_type == NDJSON and (case.meta.is_negative_at(ParameterLocation.BODY) or "idempotency-key" in (case.headers or {})):
        return False
    options = {**body, **(case.query or {})}
    # Hidden features have neither dimensions nor 8-bit formats.
    sizes = (options.get("dimensions"), options.get("output_dimension"))
    if any(isinstance(size, (int, float)) and size > DIM for size in sizes) or options.get("layer") == "hidden":
        return False
    return not set(body) & set(case.query or {})
