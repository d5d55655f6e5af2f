// What the tests of the dashboard share: its server, images, a browser, and a page that is logged in.
import assert from "node:assert/strict";
import { after, before } from "node:test";
import { readFileSync, readdirSync } from "node:fs";
import { chromium } from "playwright";

export const url = process.env.KITH_DASHBOARD_URL;
export const keys = JSON.parse(process.env.KITH_DASHBOARD_KEYS);
export const VIEWS = ["overview", "checkpoints", "playground", "map", "alarms"];
// More than the page takes on a machine that is busy.
const CEILING = 60_000;

const folder = process.env.KITH_IMAGES;
export const files = readdirSync(folder).sort().map((name) => `${folder}/${name}`);
export const base64 = (file) => readFileSync(file).toString("base64");
const headers = { authorization: `Bearer ${keys.admin}`, "content-type": "application/json" };

export async function ask(method, path, body) {
  const answer = await fetch(`${url}${path}`, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.status === 204 ? undefined : answer.json();
}

let browser;
before(async () => {
  const args = ["--no-sandbox", "--enable-unsafe-swiftshader"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || undefined, args });
});
after(() => browser?.close());

export async function until(holds) {
  while (!(await holds())) await new Promise((done) => setTimeout(done, 50));
}

// A page that is logged in. `complaints` has what the console and the page's errors say, `asked` every request.
export async function open(view, { key = keys.admin, prepare, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(CEILING);
  await prepare?.(page);
  const [complaints, asked] = [[], []];
  page.on("request", (request) => asked.push(request.url()));
  page.on("console", (message) => {
    // How the software renderer works is no complaint about the page.
    if (["error", "warning"].includes(message.type()) && !message.text().includes("GL Driver Message")) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(`${url}/#${view}`);
  if (key) {
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Enter" }).click();
    await page.locator("main h1").waitFor();
  }
  // The refusal that asked for the key.
  complaints.length = 0;
  return { page, complaints, asked, close: () => context.close() };
}

export async function settled(page, view) {
  const sign = {
    overview: () => page.locator(".sentence").waitFor(),
    checkpoints: () => page.locator("tbody tr").first().waitFor(),
    playground: () => page.getByLabel("Image to search for").waitFor(),
    map: async () => {
      await page.frameLocator("iframe").locator("canvas").waitFor();
      await page.getByText("The map is being made").waitFor({ state: "detached" });
    },
    alarms: () => page.locator(".events li, .hint").first().waitFor(),
  };
  await sign[view]();
}
