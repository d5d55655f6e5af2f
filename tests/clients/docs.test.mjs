// The page /docs in a real browser: it asks its own server only, shows every operation, has no error, and can be used without a mouse.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright";
import { images, key, url } from "./support.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
// More than the page takes on a machine that is busy.
const CEILING = 30_000;

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || undefined, args: ["--no-sandbox"] });
});
after(() => browser?.close());

// The page, loaded; `asked` has the URL of every request, `complaints` what the console and the page's errors say.
async function open() {
  // The page lets no script run but its own; the tests' scripts are let through.
  const context = await browser.newContext({ bypassCSP: true });
  const page = await context.newPage();
  page.setDefaultTimeout(CEILING);
  const asked = [];
  const complaints = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(`${url}/docs`);
  await page.waitForSelector("details.operation");
  return { page, asked, complaints, close: () => context.close() };
}

async function documented() {
  const document = await (await fetch(`${url}/openapi.json`)).json();
  return Object.entries(document.paths).flatMap(([path, item]) => Object.keys(item).map((method) => `${method} ${path}`));
}

async function openAll(page) {
  await page.evaluate(() => document.querySelectorAll("details.operation").forEach((part) => (part.open = true)));
  await page.waitForFunction(() => [...document.querySelectorAll("details.operation")].every((part) => part.querySelector("button")));
}

test("every operation is listed, and no request leaves the server", async () => {
  const { page, asked, complaints, close } = await open();
  const expected = await documented();
  const listed = await page.$$eval("details.operation > summary", (all) =>
    all.map((one) => one.querySelector(".method").textContent + " " + one.querySelector("code").textContent),
  );
  assert.deepEqual(listed.toSorted(), expected.toSorted());
  await openAll(page);
  assert.ok(asked.length >= 2);
  for (const request of asked) assert.ok(request.startsWith(url) || request.startsWith("data:"), request);
  assert.deepEqual(complaints, []);
  await close();
});

test("the page's own policy lets it work", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await page.goto(`${url}/docs`);
  await page.waitForSelector("details.operation", { timeout: CEILING });
  assert.deepEqual(complaints, []);
  await context.close();
});

test("no rule of accessibility is broken, in light and in dark", async () => {
  const { page, close } = await open();
  await openAll(page);
  await page.evaluate(AXE);
  // What dark changes is the contrast.
  for (const [colorScheme, options] of [["light", {}], ["dark", { runOnly: ["color-contrast"] }]]) {
    await page.emulateMedia({ colorScheme });
    const { violations } = await page.evaluate((options) => axe.run(options), options);
    const serious = violations.filter((one) => ["serious", "critical"].includes(one.impact));
    const shown = serious.map((one) => `${one.id}: ${one.nodes.length} × ${one.nodes[0].html.slice(0, 200)}`);
    assert.deepEqual(shown, [], colorScheme);
  }
  await close();
});

test("the keyboard reaches every control", async () => {
  const { page, close } = await open();
  const first = page.locator("details.operation").first();
  await first.locator("summary").focus();
  await page.keyboard.press("Enter");
  await first.locator("button").waitFor();
  // Every control has a number; each that Tab reaches is noted.
  const count = await page.evaluate(() => {
    const visible = [...document.querySelectorAll("a, button, input, select, textarea, summary")].filter((one) => one.checkVisibility());
    visible.forEach((one, at) => (one.dataset.control = at));
    document.activeElement.blur();
    return visible.length;
  });
  const reached = new Set();
  for (let pressed = 0; pressed < 2 * count && reached.size < count; pressed++) {
    await page.keyboard.press("Tab");
    const control = await page.evaluate(() => document.activeElement.dataset.control);
    if (control !== undefined) reached.add(control);
  }
  const missed = await page.$$eval("[data-control]", (all) => all.map((one) => [one.dataset.control, one.outerHTML.slice(0, 200)]));
  assert.deepEqual(
    missed.filter(([number]) => !reached.has(number)),
    [],
  );
  await close();
});

test("a request is sent with the key and the example, by keyboard alone, and its answer is shown", async () => {
  const { page, close } = await open();
  await page.locator("#key").focus();
  await page.keyboard.type(key);
  const part = page.locator("details.operation", { hasText: "/v1/embeddings" }).first();
  await part.locator("summary").focus();
  await page.keyboard.press("Enter");
  await part.locator("textarea").focus();
  await page.keyboard.press("Control+A");
  await page.keyboard.insertText(JSON.stringify({ model: "kith", input: images.slice(0, 2) }));
  await part.locator("button").focus();
  await page.keyboard.press("Enter");
  const output = part.locator("pre").last();
  await output.filter({ hasText: /^200/ }).waitFor();
  const text = await output.textContent();
  const answer = JSON.parse(text.slice(text.indexOf("{")));
  assert.equal(answer.data.length, 2);
  await close();
});
