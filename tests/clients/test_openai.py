"""OpenAI's client for Python, unchanged."""

import httpx
import openai
import pytest
from conftest import DIMENSIONS, TOO_LARGE, assert_same, plain, spend, statuses_of_retry


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)


def vectors(answer):
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return [item.embedding for item in answer.data]


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"dimensions": 4}, {"encoding_format": "float", "dimensions": 4}])
def test_vectors_are_those_of_a_plain_call(client, images, options):
    answer = client.embeddings.create(model="kith", input=images, **options)
    assert answer.object == "list"
    assert answer.model.startswith("kith@")
    assert answer.usage.total_tokens == 0
    dimensions = options.get("dimensions")
    assert len(answer.data[0].embedding) == (dimensions or DIMENSIONS)
    assert_same(vectors(answer), plain(images, **({"dimensions": dimensions} if dimensions else {})))


def test_base64_is_given_as_it_is_where_it_is_asked_for(client, images):
    answer = client.embeddings.create(model="kith", input=images[0], encoding_format="base64")
    assert answer.data[0].embedding == plain([images[0]], encoding_format="base64")[0]


def test_one_image_needs_no_list(client, images):
    assert_same(vectors(client.embeddings.create(model="kith", input=images[0])), plain(images[:1]))


def test_vectors_of_different_images_differ(client, images):
    found = vectors(client.embeddings.create(model="kith", input=images))
    assert len({tuple(vector) for vector in found}) == len(images) > 1


def test_the_async_client_gets_the_same(server, images):
    import asyncio

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
            return await client.embeddings.create(model="kith", input=images)

    assert_same(vectors(asyncio.run(ask())), plain(images))


def test_models_are_listed_and_found(client):
    listed = {model.id for model in client.models.list()}
    assert "kith" in listed
    assert client.models.retrieve("kith").object == "model"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "unknown_model"


@pytest.mark.parametrize(
    ("request_", "error", "status", "code", "param"),
    [
        ({"input": "no image"}, openai.BadRequestError, 400, "image_undecodable", "input[0]"),
        ({"input": "https://example.org/a.png"}, openai.BadRequestError, 400, "url_not_supported", "input[0]"),
        ({"dimensions": 1000}, openai.BadRequestError, 400, "invalid_dimensions", "dimensions"),
        ({"extra_body": {"colour": "red"}}, openai.BadRequestError, 400, "invalid_field", "colour"),
        ({"model": "nobody"}, openai.NotFoundError, 404, "unknown_model", "model"),
        ({"input": TOO_LARGE}, openai.APIStatusError, 413, "body_too_large", None),
    ],
)
def test_errors_are_the_clients_own_classes(client, images, request_, error, status, code, param):
    with pytest.raises(error) as caught:
        client.embeddings.create(**{"model": "kith", "input": images, **request_})
    found = caught.value
    assert (found.status_code, found.code, found.param) == (status, code, param)
    assert found.request_id
    assert found.type.endswith("_error")


def test_a_wrong_key_is_an_authentication_error(server, images):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="kith_wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        client.embeddings.create(model="kith", input=images)
    assert caught.value.code == "invalid_key"


def test_a_key_without_the_scope_is_a_permission_error(client):
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.get("/pairs", cast_to=httpx.Response)
    assert caught.value.code == "insufficient_scope"


def test_a_client_that_gives_up_gets_its_timeout_and_the_server_goes_on(client, images, slow_image):
    with pytest.raises(openai.APITimeoutError):
        client.embeddings.create(model="kith", input=slow_image, timeout=1e-3)
    assert_same(vectors(client.embeddings.create(model="kith", input=images)), plain(images))


def test_a_timeout_of_the_server_is_a_status_error(client, slow_image):
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model="kith", input=slow_image, extra_headers={"x-request-timeout": "0.001"})
    assert (caught.value.status_code, caught.value.code) == (408, "timeout")


def test_a_limit_is_a_rate_limit_error(limited, images):
    client = openai.OpenAI(base_url=f"{limited.url}/v1", api_key=limited.keys["openai"], max_retries=0)
    while True:
        spend(limited.keys["openai"])
        try:
            client.embeddings.create(model="kith", input=images)
        except openai.RateLimitError as error:
            assert error.code == "rate_limited"
            assert int(error.response.headers["retry-after"]) >= 1
            return


def test_the_clients_retry_waits_as_long_as_retry_after_says(limited, images):
    key = limited.keys["openai"]

    def call():
        statuses = []
        hooks = {"response": [lambda response: statuses.append(response.status_code)]}
        with httpx.Client(event_hooks=hooks) as http:
            client = openai.OpenAI(base_url=f"{limited.url}/v1", api_key=key, max_retries=5, http_client=http)
            client.embeddings.create(model="kith", input=images)
        return statuses

    # Its own back-off begins at half a second, so that several retries would fail.
    assert statuses_of_retry(key, call) == [429, 200]
