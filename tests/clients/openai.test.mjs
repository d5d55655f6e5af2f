// OpenAI's client for JavaScript, unchanged.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { DIMENSIONS, TOO_LARGE, assertSame, images, key, limitedKeys, limitedUrl, noting, plain, slowImage, statusesOfRetry, url } from "./support.mjs";

const make = (options = {}) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, ...options });
const client = make();
const embed = (options = {}, client_ = client) => client_.embeddings.create({ model: "kith", input: images, ...options });
const vectors = (answer) => answer.data.map((item) => item.embedding);

test("vectors are those of a plain call, in either encoding and with fewer dimensions", async () => {
  for (const options of [{}, { encoding_format: "float" }, { dimensions: 4 }, { dimensions: 4, encoding_format: "float" }]) {
    const answer = await embed(options);
    assert.ok(answer.model.startsWith("kith@"));
    assert.equal(answer.data[0].embedding.length, options.dimensions ?? DIMENSIONS);
    assert.deepEqual(
      answer.data.map((item) => item.index),
      images.map((_, at) => at),
    );
    assertSame(vectors(answer), await plain(images, options.dimensions ? { dimensions: options.dimensions } : {}));
  }
});

test("base64 is given as it is where it is asked for, and one image needs no list", async () => {
  const answer = await embed({ input: images[0], encoding_format: "base64" });
  assert.deepEqual(vectors(answer), await plain(images[0], { encoding_format: "base64" }));
  assertSame(vectors(await embed({ input: images[0] })), await plain([images[0]]));
});

test("models are listed and found", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("kith"), names.join());
  assert.equal((await client.models.retrieve("kith")).object, "model");
  await assert.rejects(client.models.retrieve("nobody"), OpenAI.NotFoundError);
});

test("errors are the client's own classes, with kith's codes", async () => {
  const wrong = make({ apiKey: "kith_wrong" });
  for (const [call, kind, status, code, param] of [
    [() => embed({ input: "no image" }), OpenAI.BadRequestError, 400, "image_undecodable", "input[0]"],
    [() => embed({ dimensions: 1000 }), OpenAI.BadRequestError, 400, "invalid_dimensions", "dimensions"],
    [() => embed({ model: "nobody" }), OpenAI.NotFoundError, 404, "unknown_model", "model"],
    [() => embed({ input: TOO_LARGE }), OpenAI.APIError, 413, "body_too_large", null],
    [() => embed({ input: slowImage() }, make({ defaultHeaders: { "x-request-timeout": "0.001" } })), OpenAI.APIError, 408, "timeout", null],
    [() => embed({}, wrong), OpenAI.AuthenticationError, 401, "invalid_key", null],
    [() => client.get("/pairs"), OpenAI.PermissionDeniedError, 403, "insufficient_scope", null],
  ]) {
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof kind, `${code}: ${error.constructor.name}`);
      assert.deepEqual([error.status, error.code, error.param], [status, code, param]);
      assert.ok(error.requestID);
      return true;
    });
  }
});

test("a client that gives up gets its timeout, and the server goes on", async () => {
  await assert.rejects(client.embeddings.create({ model: "kith", input: slowImage() }, { timeout: 1 }), OpenAI.APIConnectionTimeoutError);
  const left = new AbortController();
  const asked = client.embeddings.create({ model: "kith", input: images }, { signal: left.signal });
  left.abort();
  await assert.rejects(asked, OpenAI.APIUserAbortError);
  assertSame(vectors(await embed()), await plain(images));
});

test("a limit is a rate limit error", async () => {
  const limited = make({ baseURL: `${limitedUrl}/v1`, apiKey: limitedKeys["openai-js"] });
  const statuses = await statusesOfRetry(limitedKeys["openai-js"], async () => {
    try {
      await embed({}, limited);
      return [200];
    } catch (error) {
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.equal(error.code, "rate_limited");
      assert.ok(Number(error.headers.get("retry-after")) >= 1);
      return [error.status];
    }
  });
  assert.deepEqual(statuses, [429]);
});

test("the client's retry waits as long as retry-after says", async () => {
  const apiKey = limitedKeys["openai-js"];
  const found = await statusesOfRetry(apiKey, async () => {
    const statuses = [];
    await embed({}, make({ baseURL: `${limitedUrl}/v1`, apiKey, maxRetries: 5, fetch: noting(statuses) }));
    return statuses;
  });
  // Its own back-off begins at half a second, so that several retries would fail.
  assert.deepEqual(found, [429, 200]);
});
