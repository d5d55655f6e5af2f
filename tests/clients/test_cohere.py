"""Cohere's client for Python, unchanged."""

import base64
import struct

import cohere
import httpx
import pytest
from conftest import DIMENSIONS, TOO_LARGE, assert_same, plain, statuses_of_retry


@pytest.fixture
def client(server):
    return cohere.ClientV2(base_url=server.url, api_key=server.key)


# One request and no retry.
ONCE = {"max_retries": 0}


def embed(client, images, **options):
    return client.embed(model="kith", images=images, input_type="image", **{"embedding_types": ["float"], **options})


def test_vectors_are_those_of_a_plain_call(client, images):
    answer = embed(client, images)
    assert len(answer.embeddings.float_[0]) == DIMENSIONS
    assert_same(answer.embeddings.float_, plain(images))
    assert answer.meta.billed_units.images == len(images)


def test_fewer_dimensions_are_those_of_a_plain_call(client, images):
    assert_same(embed(client, images, output_dimension=4).embeddings.float_, plain(images, dimensions=4))


def test_every_type_is_where_the_client_looks_for_it(client, images):
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    found = embed(client, images, embedding_types=types).embeddings
    assert_same(found.float_, plain(images))
    for name in ["int8", "uint8", "binary", "ubinary"]:
        assert getattr(found, name) == plain(images, encoding_format=name)
    unpacked = [struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(text)) for text in found.base64]
    assert_same(unpacked, plain(images))


def test_options_of_texts_and_of_cohere_have_no_effect(client, images):
    answer = embed(client, images, truncate="END", max_tokens=5, priority=3)
    assert_same(answer.embeddings.float_, plain(images))


def test_mixed_inputs_with_one_image_each_are_read(client, images):
    inputs = [{"content": [{"type": "image_url", "image_url": {"url": image}}]} for image in images]
    answer = client.embed(model="kith", inputs=inputs, input_type="search_document", embedding_types=["float"])
    assert_same(answer.embeddings.float_, plain(images))


@pytest.mark.parametrize(
    ("options", "error", "status", "code"),
    [
        ({"images": ["no image"]}, cohere.BadRequestError, 400, "image_undecodable"),
        ({"output_dimension": 1000}, cohere.BadRequestError, 400, "invalid_dimensions"),
        ({"texts": ["a word"]}, cohere.BadRequestError, 400, "invalid_field"),
        ({"model": "nobody"}, cohere.NotFoundError, 404, "unknown_model"),
        ({"images": [TOO_LARGE]}, cohere.core.ApiError, 413, "body_too_large"),
    ],
)
def test_errors_are_the_clients_own_classes(client, images, options, error, status, code):
    asked = {"model": "kith", "images": images, "input_type": "image", "embedding_types": ["float"], "request_options": ONCE, **options}
    with pytest.raises(error) as caught:
        client.embed(**asked)
    assert (caught.value.status_code, caught.value.body["error"]["code"]) == (status, code)


def test_a_wrong_key_is_an_unauthorized_error(server, images):
    client = cohere.ClientV2(base_url=server.url, api_key="kith_wrong")
    with pytest.raises(cohere.UnauthorizedError) as caught:
        embed(client, images)
    assert caught.value.body["error"]["code"] == "invalid_key"


def test_a_client_that_gives_up_gets_its_timeout_and_the_server_goes_on(client, images, slow_image):
    with pytest.raises(httpx.TimeoutException):
        embed(client, [slow_image], request_options={**ONCE, "timeout_in_seconds": 1e-3})
    assert_same(embed(client, images).embeddings.float_, plain(images))


def test_a_timeout_of_the_server_is_an_api_error(client, slow_image):
    with pytest.raises(cohere.core.ApiError) as caught:
        embed(client, [slow_image], request_options={**ONCE, "additional_headers": {"x-request-timeout": "0.001"}})
    assert (caught.value.status_code, caught.value.body["error"]["code"]) == (408, "timeout")


def test_the_clients_retry_waits_as_long_as_retry_after_says(limited, images):
    key = limited.keys["cohere"]

    def call():
        statuses = []
        hooks = {"response": [lambda response: statuses.append(response.status_code)]}
        with httpx.Client(event_hooks=hooks) as http:
            client = cohere.ClientV2(base_url=limited.url, api_key=key, httpx_client=http)
            embed(client, images, request_options={"max_retries": 5})
        return statuses

    assert statuses_of_retry(key, call) == [429, 200]


def test_a_limit_is_a_too_many_requests_error(limited, images):
    key = limited.keys["cohere"]
    client = cohere.ClientV2(base_url=limited.url, api_key=key)

    def call():
        try:
            embed(client, images, request_options=ONCE)
        except cohere.TooManyRequestsError as error:
            assert error.body["error"]["code"] == "rate_limited"
            return [error.status_code]
        return [200]

    assert statuses_of_retry(key, call) == [429]
