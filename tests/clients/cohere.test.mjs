// Cohere's client for JavaScript, unchanged.
import assert from "node:assert/strict";
import { test } from "node:test";
import { CohereClientV2, CohereError, CohereTimeoutError, Cohere } from "cohere-ai";
import { TOO_LARGE, assertSame, images, key, limitedKeys, limitedUrl, noting, plain, slowImage, statusesOfRetry, url } from "./support.mjs";

const client = new CohereClientV2({ environment: url, token: key });
const once = { maxRetries: 0 };

function embed(options = {}, client_ = client, request = once) {
  return client_.embed({ model: "kith", images, inputType: "image", embeddingTypes: ["float"], ...options }, request);
}

test("vectors are those of a plain call, in every type and with fewer dimensions", async () => {
  const types = ["float", "int8", "uint8", "binary", "ubinary"];
  const answer = await embed({ embeddingTypes: types });
  assertSame(answer.embeddings.float, await plain(images));
  for (const type of types.slice(1)) assert.deepEqual(answer.embeddings[type], await plain(images, { encoding_format: type }));
  const fewer = await embed({ outputDimension: 4 });
  assertSame(fewer.embeddings.float, await plain(images, { dimensions: 4 }));
});

test("errors are the client's own classes, with kith's codes", async () => {
  const wrong = new CohereClientV2({ environment: url, token: "kith_wrong" });
  for (const [call, kind, status, code] of [
    [() => embed({ images: ["no image"] }), Cohere.BadRequestError, 400, "image_undecodable"],
    [() => embed({ model: "nobody" }), Cohere.NotFoundError, 404, "unknown_model"],
    [() => embed({ images: [TOO_LARGE] }), CohereError, 413, "body_too_large"],
    [() => embed({}, wrong), Cohere.UnauthorizedError, 401, "invalid_key"],
  ]) {
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof kind, `${code}: ${error.constructor.name}`);
      assert.deepEqual([error.statusCode, error.body.error.code], [status, code]);
      return true;
    });
  }
});

test("a client that gives up gets its timeout, and the server goes on", async () => {
  await assert.rejects(embed({ images: [slowImage()] }, client, { ...once, timeoutInSeconds: 1e-3 }), (error) => {
    assert.ok(error instanceof CohereError || error instanceof CohereTimeoutError, error.constructor.name);
    assert.match(error.message, /timeout/i);
    assert.equal(error.statusCode, undefined);
    return true;
  });
  assertSame((await embed()).embeddings.float, await plain(images));
});

test("the client's retry waits as long as retry-after says", async () => {
  const token = limitedKeys["cohere-js"];
  const found = await statusesOfRetry(token, async () => {
    const statuses = [];
    const limited = new CohereClientV2({ environment: limitedUrl, token, fetch: noting(statuses) });
    await embed({}, limited, { maxRetries: 5 });
    return statuses;
  });
  assert.deepEqual(found, [429, 200]);
});
