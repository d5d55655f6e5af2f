// What the tests in JavaScript share: the two servers that `run.sh` started, images, and the answer of a plain HTTP call.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";

export const url = process.env.KITH_URL;
export const key = process.env.KITH_KEY;
// Each key has 20 requests here, and gets another every three seconds.
export const limitedUrl = process.env.KITH_LIMITED_URL;
export const limitedKeys = JSON.parse(process.env.KITH_LIMITED_KEYS);
export const DIMENSIONS = 16;
// More than `server.max_body_bytes` of the first server.
export const TOO_LARGE = "A".repeat(300_000);

const folder = process.env.KITH_IMAGES;
export const images = readdirSync(folder)
  .sort()
  .map((name) => "data:image/png;base64," + readFileSync(`${folder}/${name}`).toString("base64"));

// An image that takes many milliseconds, and that the server has not seen: bytes behind its end make it another.
export function slowImage() {
  const bytes = Buffer.concat([readFileSync(process.env.KITH_LARGE_IMAGE), randomBytes(8)]);
  return "data:image/png;base64," + bytes.toString("base64");
}

// The vectors of a plain HTTP call.
export async function plain(input, options = {}) {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const body = JSON.stringify({ model: "kith", input, ...options });
  const answer = await fetch(`${url}/v1/embeddings`, { method: "POST", headers, body });
  assert.equal(answer.status, 200);
  return (await answer.json()).data.map((item) => item.embedding);
}

// Compares as 32-bit floats: a decimal of JSON and a float of base64 that mean the same are then equal.
export function assertSame(vectors, expected) {
  const rounded = (rows) => rows.map((row) => Array.from(Float32Array.from(row)));
  assert.deepEqual(rounded(vectors), rounded(expected));
  assert.ok(vectors.length > 0 && vectors[0].length > 0);
}

// Uses up what `key` may ask of the limited server.
async function spend(key) {
  for (let n = 0; n < 1000; n++) {
    const answer = await fetch(`${limitedUrl}/v1/models`, { headers: { authorization: `Bearer ${key}` } });
    await answer.arrayBuffer();
    if (answer.status === 429) return;
  }
  assert.fail("the limit was never reached");
}

// The statuses that `call` gets with a spent key, until the first of them is 429. `call` gives the statuses of its answers.
export async function statusesOfRetry(key, call) {
  for (;;) {
    await spend(key);
    const statuses = await call();
    // A machine that is busy may take so long that the key has a request again.
    if (statuses[0] === 429) return statuses;
  }
}

// A `fetch` that notes the status of each answer.
export function noting(statuses) {
  return async (...request) => {
    const answer = await fetch(...request);
    statuses.push(answer.status);
    return answer;
  };
}
