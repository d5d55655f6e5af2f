// The dashboard in a real browser against a real server: every view and every act, with keys of each scope, by keyboard, in dark, on a phone.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { VIEWS, ask, base64, files, keys, open, settled, until, url } from "./dashboard.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

before(async () => {
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
    const { live, latest } = (await ask("GET", "/v1/training")).checkpoint;
    const { verdict } = await ask("GET", `/v1/checkpoints/${latest}`);
    // Of so few pairs all that is sound serves, a moment after its verdict.
    if (verdict === null || (verdict === "untested" && live !== latest)) return false;
    const { data } = await ask("GET", "/v1/search");
    return data[0]?.images === files.length && !data.some((one) => one.role === "next");
  });
});

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

test("the overview says how far a graph of search is built", async () => {
  const prepare = (page) =>
    page.route("**/v1/search", async (route) => {
      // A refusal stays one: it asks for the key.
      const response = await route.fetch();
      const state = await response.json();
      if (response.ok()) state.data[0].graph_progress = 0.43;
      await route.fulfill({ response, json: state });
    });
  const { page, close } = await open("overview", { prepare });
  await page.getByText(/a graph is being built: 43\s?%/).waitFor();
  await close();
});

test("on a phone every act on a checkpoint is on the screen, in what is still a table", async () => {
  const width = 390;
  const { page, close } = await open("checkpoints", { viewport: { width, height: 844 } });
  await settled(page, "checkpoints");
  const acts = await page.locator(".acts button").all();
  assert.ok(acts.length >= 6);
  for (const act of acts) {
    const box = await act.boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= width, `${await act.getAttribute("aria-label")} is at ${box.x}, ${box.width} wide`);
  }
  assert.equal(await page.getByRole("columnheader").count(), 8);
  const { data } = await ask("GET", "/v1/checkpoints");
  assert.equal(await page.getByRole("rowheader").count(), data.length);
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

test("where the compared checkpoint cannot be searched, the live one's answer is shown with the reason beside it", async () => {
  const message = "its files are damaged: delete it";
  const prepare = (page) =>
    page.route("**/v1/search", (route) => {
      const { checkpoint } = route.request().postDataJSON() ?? {};
      return checkpoint ? route.fulfill({ status: 409, json: { error: { message, code: "checkpoint_damaged" } } }) : route.continue();
    });
  const { page, close } = await open("playground", { prepare });
  await page.getByLabel("Image to search for").setInputFiles(files[0]);
  await page.locator(".found li").first().waitFor();
  await page.getByLabel("Compare with").selectOption({ index: 1 });
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /^This checkpoint was not searched: its files are damaged/);
  assert.equal(await page.locator(".sides section").count(), 2);
  assert.equal(await page.locator(".found li").count(), Math.min(files.length, 12));
  await page.getByLabel("Compare with").selectOption({ index: 0 });
  await page.getByRole("alert").waitFor({ state: "detached" });
  await close();
});

test("what is no image is refused in words, and nothing of the image before stays beside it", async () => {
  const { page, close } = await open("playground");
  const input = page.getByLabel("Image to search for");
  const [found, refused] = [page.locator(".found li").first(), page.getByRole("alert")];
  for (const [name, buffer, reason] of [
    ["notes.txt", Buffer.from("no image"), /image/],
    ["nothing.png", Buffer.alloc(0), /nothing\.png is empty/],
  ]) {
    await input.setInputFiles(files[0]);
    await found.waitFor();
    await input.setInputFiles({ name, mimeType: "text/plain", buffer });
    await refused.waitFor();
    assert.match(await refused.innerText(), reason);
    if (name === "notes.txt") assert.equal(await page.locator(".found li").count(), 0);
  }
  await input.setInputFiles(files[1]);
  await found.waitFor();
  await refused.waitFor({ state: "detached" });
  await close();
});

test("a search that another one overtakes is not taken for a failure", async () => {
  const waiting = [];
  const asked = () => until(async () => waiting.length > 0);
  const prepare = (page) => page.route("**/v1/search", (route) => (route.request().method() === "POST" ? waiting.push(route) : route.continue()));
  const { page, close } = await open("playground", { prepare });
  await page.getByLabel("Image to search for").setInputFiles(files[0]);
  await asked();
  waiting.pop();
  await page.getByLabel("Image to search for").setInputFiles(files[1]);
  await asked();
  await page.getByAltText("The image that is searched for, 1.png").waitFor();
  assert.equal(await page.getByRole("alert").count(), 0);
  await waiting.pop().continue();
  await page.locator(".found li").first().waitFor();
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
  // A snapshot that has just come to serve has another made.
  let map;
  await until(async () => (map = await ask("GET", "/v1/map")).state === "ready");
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
  // What was found before is not shown beside what is no image.
  await page.getByLabel("Find an image").setInputFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no image") });
  await page.getByRole("alert").waitFor();
  assert.equal(await page.locator(".found img.thumbnail").count(), 0);
  complaints.splice(0);
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
