// The dashboard in a real browser against a real server: every view and every act, with keys of each scope, by keyboard, in dark, on a phone.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright";

const url = process.env.KITH_DASHBOARD_URL;
const keys = JSON.parse(process.env.KITH_DASHBOARD_KEYS);
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
const FONT = readFileSync(createRequire(import.meta.url).resolve("@fontsource/inter/files/inter-latin-400-normal.woff2"), "base64");
const BASELINES = new URL("dashboard.json", import.meta.url);
const VIEWS = ["overview", "checkpoints", "playground", "map", "alarms"];
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
// More than the page takes on a machine that is busy.
const CEILING = 60_000;

const folder = process.env.KITH_IMAGES;
const files = readdirSync(folder).sort().map((name) => `${folder}/${name}`);
const headers = { authorization: `Bearer ${keys.admin}`, "content-type": "application/json" };
const base64 = (file) => readFileSync(file).toString("base64");

async function ask(method, path, body) {
  const answer = await fetch(`${url}${path}`, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  return answer.status === 204 ? undefined : answer.json();
}

let browser;
before(async () => {
  const args = ["--no-sandbox", "--enable-unsafe-swiftshader"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM || undefined, args });
  for (const file of files) await ask("POST", "/v1/images", { image: base64(file) });
  // Checkpoints of several steps, and then nothing changes by itself.
  await ask("POST", "/v1/pairs", { pairs: files.map((file) => ({ anchor: { image: base64(file) } })) });
  let step = 0;
  for (let round = 0; round < 3; round++) {
    await until(async () => (await ask("GET", "/v1/training")).step > step);
    step = (await ask("POST", "/v1/checkpoints?wait=true", {})).step;
  }
  await ask("PATCH", "/v1/training", { state: "paused" });
  await until(async () => (await ask("GET", "/v1/training")).state === "paused");
  await until(async () => {
    const { data } = await ask("GET", "/v1/search");
    return data[0]?.images === files.length && !data.some((one) => one.role === "next");
  });
});
after(() => browser?.close());

async function until(holds) {
  while (!(await holds())) await new Promise((done) => setTimeout(done, 50));
}

// A page that is logged in. `complaints` has what the console and the page's errors say, `asked` every request.
async function open(view, { key = keys.admin, prepare, ...options } = {}) {
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

async function settled(page, view) {
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

test("nothing is shown without a key, and a wrong one is refused in words", async () => {
  const { page, close } = await open("overview", { key: "" });
  await page.getByLabel("API key").waitFor();
  assert.equal(await page.locator("main h1").innerText(), "kith");
  await page.getByLabel("API key").fill("kith_wrong");
  await page.getByRole("button", { name: "Enter" }).click();
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /key/);
  await page.getByLabel("API key").fill(keys.admin);
  await page.getByRole("button", { name: "Enter" }).click();
  await page.locator(".sentence").waitFor();
  await page.getByRole("button", { name: "Leave" }).click();
  await page.getByLabel("API key").waitFor();
  await close();
});

test("every view loads from its own server only, and complains of nothing", async () => {
  for (const view of VIEWS) {
    const { page, complaints, asked, close } = await open(view);
    await settled(page, view);
    for (const request of asked) assert.ok(request.startsWith(url) || /^(data|blob):/.test(request), request);
    assert.deepEqual(complaints, [], view);
    await close();
  }
});

test("no rule of accessibility is broken in any view, in light and in dark, and none is wider than a phone", async () => {
  for (const [colorScheme, width] of [["light", 1280], ["dark", 1280], ["light", 375]]) {
    for (const view of VIEWS) {
      // The page lets no script run but its own; the tests' script is let through.
      const { page, close } = await open(view, { colorScheme, viewport: { width, height: 800 }, bypassCSP: true });
      await settled(page, view);
      await page.evaluate(AXE);
      const { violations } = await page.evaluate((values) => axe.run({ runOnly: values }), RULES);
      const shown = violations.map((one) => `${one.id}: ${one.nodes[0].html.slice(0, 200)}`);
      assert.deepEqual(shown, [], `${view} ${colorScheme} ${width}`);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(over <= 0, `${view} is ${over} pixels wider than ${width}`);
      await close();
    }
  }
});

test("the overview says how the server is in one sentence, and pauses and resumes", async () => {
  const { page, complaints, close } = await open("overview");
  await settled(page, "overview");
  assert.match(await page.locator(".sentence").innerText(), /^(Learning|Not learning|Training)/);
  await page.locator("figure.chart").nth(11).waitFor();
  assert.equal(await page.locator("figure.chart").count(), 12);
  await page.getByRole("button", { name: "Resume training" }).click();
  await page.getByRole("button", { name: "Pause training" }).click();
  await page.getByRole("button", { name: "Resume training" }).waitFor();
  await until(async () => (await ask("GET", "/v1/training")).state === "paused");
  assert.deepEqual(complaints, []);
  await close();
});

test("a checkpoint is noted, pinned, promoted, rolled back and deleted, and the last two ask first", async () => {
  const copies = (await ask("GET", "/v1/checkpoints")).data.map((one) => one.id);
  const { page, close } = await open("checkpoints");
  await settled(page, "checkpoints");
  const live = (await ask("GET", "/v1/training")).checkpoint.live;
  const other = copies.find((id) => id !== live);
  const name = other.slice(-6);
  await page.getByRole("button", { name: `Note of ${name}` }).click();
  await page.getByLabel(`Note of checkpoint ${name}`).fill("for the test");
  await page.keyboard.press("Enter");
  await page.getByText("The note is kept.").waitFor();
  assert.equal((await ask("GET", `/v1/checkpoints/${other}`)).note, "for the test");

  await page.getByRole("button", { name: `Note of ${name}` }).click();
  await page.getByLabel(`Note of checkpoint ${name}`).fill("");
  await page.keyboard.press("Enter");
  await page.getByRole("cell", { name: "for the test" }).waitFor({ state: "detached" });
  const pinned = (await ask("GET", `/v1/checkpoints/${other}`)).keep;
  await page.getByRole("button", { name: pinned ? `Unpin ${name}` : `Pin ${name}`, exact: true }).click();
  await page.getByRole("button", { name: pinned ? `Pin ${name}` : `Unpin ${name}`, exact: true }).waitFor();
  assert.equal((await ask("GET", `/v1/checkpoints/${other}`)).keep, !pinned);

  const promote = page.getByRole("button", { name: new RegExp(`(Promote|Roll back to) ${name}`) });
  await promote.click();
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  assert.equal((await ask("GET", "/v1/training")).checkpoint.live, live, "a question that is not answered does nothing");
  await promote.click();
  await dialog.getByRole("button", { name: /Promote it|Roll back/ }).click();
  await page.getByText(`Checkpoint ${name} serves.`).waitFor();
  assert.equal((await ask("GET", "/v1/training")).checkpoint.live, other);
  await page.getByRole("button", { name: "Give the choice back to the gate" }).click();
  await page.getByText("The gate chooses again.").waitFor();
  assert.equal((await ask("GET", "/v1/training")).checkpoint.held, false);

  const third = copies.find((id) => id !== live && id !== other);
  await page.getByRole("button", { name: `Delete ${third.slice(-6)}` }).click();
  await dialog.getByRole("button", { name: "Delete it" }).click();
  await page.getByText(`Checkpoint ${third.slice(-6)} is deleted.`).waitFor();
  const left = await ask("GET", "/v1/checkpoints");
  assert.ok(left.data.every((one) => one.id !== third));
  await close();
});

test("the playground finds the nearest under two checkpoints, marks what changed, and posts a pair", async () => {
  const { page, complaints, close } = await open("playground");
  await page.getByLabel("Image to search for").setInputFiles(files[0]);
  const found = page.locator(".found").first().locator("li");
  await found.first().waitFor();
  assert.equal(await found.count(), Math.min(files.length, 12));
  // The image itself is stored.
  assert.match(await found.first().innerText(), /^1\b/);
  await page.locator(".found img.thumbnail").nth(2).waitFor();
  await page.getByLabel("Compare with").selectOption({ index: 1 });
  await page.locator(".sides section").nth(1).locator("li").first().waitFor();
  await page.getByText("are embedded under it so far").waitFor({ state: "detached" });
  const marks = await page.locator(".change").allInnerTexts();
  assert.ok(marks.every((mark) => /^(only here|\d+ (higher|lower))$/.test(mark)), marks.join());
  const post = page.getByRole("button", { name: "Post as a pair" });
  assert.ok(await post.isDisabled());
  await found.nth(1).getByRole("button").focus();
  await page.keyboard.press("Enter");
  await page.getByLabel("Group (optional)").fill("from-the-page");
  await post.click();
  await page.getByText("The pair is stored").waitFor();
  const { data } = await ask("GET", "/v1/pairs?group=from-the-page");
  assert.equal(data.length, 1);
  assert.deepEqual(complaints, []);
  await close();
});

test("an image is pasted and dropped as well", async () => {
  const { page, close } = await open("playground");
  await page.getByLabel("Image to search for").waitFor();
  for (const act of ["paste", "drop"]) {
    await page.evaluate(
      ([act, data]) => {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], `${act}.png`, { type: "image/png" }));
        const event = act === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }) : new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
        (act === "paste" ? document.body : document.querySelector(".drop")).dispatchEvent(event);
      },
      [act, base64(files[1])],
    );
    await page.getByAltText(`The image that is searched for, ${act}.png`).waitFor();
    await page.locator(".found li").first().waitFor();
  }
  await close();
});

test("the map shows every image, one under the pointer, and finds an image", async () => {
  const { page, complaints, close } = await open("map");
  await settled(page, "map");
  const map = await ask("GET", "/v1/map");
  assert.equal(map.ids.length, files.length);
  const frame = page.frames().find((one) => one.url().endsWith("/dashboard/map"));
  // What draws has no way out: no network, nothing of the page.
  const reached = await frame.evaluate(async () => {
    const results = [];
    results.push(await fetch("/v1/models").then(() => "fetched", () => "refused"));
    try {
      results.push(String(parent.document.title));
    } catch {
      results.push("refused");
    }
    try {
      results.push(String(sessionStorage.length));
    } catch {
      results.push("refused");
    }
    return results;
  });
  assert.deepEqual(reached, ["refused", "refused", "refused"]);
  complaints.splice(0);
  await page.getByLabel("Find an image").setInputFiles(files[2]);
  await page.getByRole("heading", { name: /chosen$/ }).waitFor();
  await page.locator(".found img.thumbnail").first().waitFor();
  // By keyboard the map moves.
  await frame.locator("canvas").focus();
  await page.keyboard.press("+");
  await page.keyboard.press("ArrowLeft");
  assert.deepEqual(complaints, []);
  await close();
});

test("alarms have a remedy each", async () => {
  const { page, close } = await open("alarms");
  await settled(page, "alarms");
  for (const alarm of await page.locator(".alarms li").all()) assert.ok((await alarm.locator("p").innerText()).length > 20);
  await close();
});

test("a key of a narrow scope sees what it may and is told what it may not", async () => {
  const { page, close } = await open("playground", { key: keys.embed });
  await page.getByLabel("Image to search for").setInputFiles(files[0]);
  await page.locator(".found li").first().waitFor();
  await page.getByRole("link", { name: "Overview" }).click();
  await page.getByRole("alert").first().waitFor();
  assert.match(await page.getByRole("alert").first().innerText(), /scope/);
  await close();
});

test("all of it can be reached by keyboard", async () => {
  const { page, close } = await open("overview");
  await settled(page, "overview");
  await page.locator("body").press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent.trim()), "To the content");
  for (const title of ["Overview", "Checkpoints"]) {
    await page.keyboard.press("Tab");
    if (title === "Overview") assert.match(await page.evaluate(() => document.activeElement.textContent), /Overview/);
  }
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Checkpoints" }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1");
  await close();
});

// A picture of the view as 16 × 10 mean colours, in the same font on every machine.
async function colours(page) {
  await page.evaluate(async (data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    document.fonts.add(await new FontFace("look", bytes).load());
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("* { font-family: look !important }");
    document.adoptedStyleSheets = [sheet];
  }, FONT);
  const shot = await page.screenshot();
  return page.evaluate(async (data) => {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: 16, height: 10 });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, 16, 10);
    const { data: pixels } = context.getImageData(0, 0, 16, 10);
    return [...pixels].filter((_, at) => at % 4 !== 3);
  }, shot.toString("base64"));
}

// The pictures are of recorded answers at the time they were recorded: they show the page, not what the server has learned by now.
// With KITH_NEW_BASELINES both are taken anew.
function recorded(known) {
  return async (page) => {
    await page.clock.setFixedTime(known.at);
    await page.route("**/v1/**", async (route) => {
      const request = route.request();
      // The server asks for the key.
      if (!request.headers().authorization) return route.continue();
      const { pathname, search } = new URL(request.url());
      const name = `${request.method()} ${pathname}${search}`;
      if (pathname === "/v1/events") return route.fulfill({ contentType: "text/event-stream", body: "" });
      if (process.env.KITH_NEW_BASELINES && !(name in known.answers)) known.answers[name] = await (await route.fetch()).json();
      if (!(name in known.answers)) return route.fulfill({ status: 404, json: { error: { message: `${name} is not recorded` } } });
      return route.fulfill({ json: known.answers[name] });
    });
  };
}

test("the views look as they did", async () => {
  const known = process.env.KITH_NEW_BASELINES ? { at: Date.now(), answers: {}, colours: {} } : JSON.parse(readFileSync(BASELINES, "utf8"));
  const shots = process.env.KITH_SHOTS;
  for (const colorScheme of ["light", "dark"]) {
    for (const view of VIEWS.filter((view) => view !== "map")) {
      const { page, close } = await open(view, { colorScheme, prepare: recorded(known) });
      await settled(page, view);
      await page.waitForLoadState("networkidle");
      if (shots) {
        mkdirSync(shots, { recursive: true });
        await page.screenshot({ path: `${shots}/${view}-${colorScheme}.png` });
      }
      const seen = await colours(page);
      const name = `${view} ${colorScheme}`;
      if (process.env.KITH_NEW_BASELINES) known.colours[name] = seen;
      const off = seen.reduce((sum, value, at) => sum + Math.abs(value - known.colours[name][at]), 0) / seen.length;
      // How letters are smoothed differs among browsers: 0.1 of 255. Without its navigation, which is little of it, a view is off by 0.6 and more.
      assert.ok(off < 0.4, `${name} differs by ${off} of 255 on average`);
      await close();
    }
  }
  if (process.env.KITH_NEW_BASELINES) writeFileSync(BASELINES, `${JSON.stringify(known)}\n`);
});
