"""LangChain, LiteLLM and LlamaIndex, unchanged: each sends the data URIs of images as the texts of OpenAI's interface."""

import os

# LiteLLM otherwise asks another host for a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai
import pytest
from conftest import DIMENSIONS, TOO_LARGE, assert_same, plain, spend
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding


@pytest.fixture
def langchain(server):
    def make(**options):
        # Texts would be cut into tokens, which only the model's own server can read.
        return OpenAIEmbeddings(
            base_url=f"{server.url}/v1", model="kith", check_embedding_ctx_length=False, **{"api_key": server.key, "max_retries": 0, **options}
        )

    return make


def test_langchain_embeds_documents_and_a_query(langchain, images):
    embeddings = langchain()
    assert_same(embeddings.embed_documents(images), plain(images))
    assert_same([embeddings.embed_query(images[0])], plain(images[:1]))
    assert_same(langchain(dimensions=4).embed_documents(images), plain(images, dimensions=4))
    # Two requests.
    assert_same(langchain(chunk_size=2).embed_documents(images), plain(images))


def test_langchain_raises_the_errors_of_openais_client(langchain, images, slow_image):
    for options, inputs, error in [
        ({}, ["no image"], openai.BadRequestError),
        ({"api_key": "kith_wrong"}, images, openai.AuthenticationError),
        ({"dimensions": 1000}, images, openai.BadRequestError),
        ({"timeout": 1e-3}, [slow_image], openai.APITimeoutError),
    ]:
        with pytest.raises(error):
            langchain(**options).embed_documents(inputs)


@pytest.fixture
def lite(server):
    def embed(images, **options):
        asked = {"model": "openai/kith", "api_base": f"{server.url}/v1", "api_key": server.key, "max_retries": 0, **options}
        answer = litellm.embedding(input=images, **asked)
        return [item["embedding"] for item in answer.data]

    return embed


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"dimensions": 4}])
def test_litellm_gets_the_vectors_of_a_plain_call(lite, images, options):
    expected = {"dimensions": 4} if "dimensions" in options else {}
    allowed = {"allowed_openai_params": ["dimensions"]} if expected else {}
    assert_same(lite(images, **options, **allowed), plain(images, **expected))


def test_litellm_gives_base64_as_it_is(lite, images):
    assert lite(images, encoding_format="base64") == plain(images, encoding_format="base64")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"images": ["no image"]}, litellm.BadRequestError),
        ({"api_key": "kith_wrong"}, litellm.AuthenticationError),
        ({"model": "openai/nobody"}, litellm.NotFoundError),
    ],
)
def test_litellm_maps_errors_to_its_own_classes(lite, images, options, error):
    with pytest.raises(error):
        lite(**{"images": images, **options})


def test_litellm_gives_up_with_its_own_timeout(lite, slow_image):
    with pytest.raises(litellm.Timeout):
        lite([slow_image], timeout=1e-3)


def test_litellm_says_the_status_of_a_body_that_is_too_large(lite):
    with pytest.raises(litellm.APIError) as caught:
        lite([TOO_LARGE])
    assert caught.value.status_code == 413


def test_litellms_retry_waits_as_long_as_retry_after_says(lite, limited, images):
    key = limited.keys["litellm"]
    spend(key)
    # It hands no 0 on to OpenAI's client, which retries twice.
    assert_same(lite(images, api_base=f"{limited.url}/v1", api_key=key), plain(images))


def test_litellm_maps_a_limit_to_its_rate_limit_error(lite, limited):
    # The second is more than the day has left, which comes back so late that OpenAI's client does not wait for it.
    asked = {"images": [TOO_LARGE], "api_base": f"{limited.url}/v1", "api_key": limited.keys["litellm"]}
    with pytest.raises(litellm.BadRequestError):
        lite(**asked)
    with pytest.raises(litellm.RateLimitError) as caught:
        lite(**asked)
    assert caught.value.status_code == 429


def test_llamaindex_gets_the_vectors_of_a_plain_call(server, images):
    def model(**options):
        return OpenAIEmbedding(model_name="kith", api_base=f"{server.url}/v1", max_retries=0, **{"api_key": server.key, **options})

    assert_same(model().get_text_embedding_batch(images), plain(images))
    assert_same([model().get_query_embedding(images[0])], plain(images[:1]))
    assert_same(model(dimensions=4).get_text_embedding_batch(images), plain(images, dimensions=4))
    with pytest.raises(openai.BadRequestError):
        model().get_text_embedding("no image")
    with pytest.raises(openai.AuthenticationError):
        model(api_key="kith_wrong").get_text_embedding(images[0])


def test_the_encoder_has_the_dimensions_that_these_tests_cut(images):
    assert len(plain(images)[0]) == DIMENSIONS
