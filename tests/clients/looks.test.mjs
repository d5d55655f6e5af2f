// How each view of the dashboard looks: at three widths, and in dark. The pictures in looks/ are a quarter of the size, in a font that every machine has.
import assert from "node:assert/strict";
import { test } from "node:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { VIEWS, files, open, settled } from "./dashboard.mjs";

const FONT = readFileSync(createRequire(import.meta.url).resolve("@fontsource/inter/files/inter-latin-400-normal.woff2"), "base64");
const PICTURES = new URL("looks/", import.meta.url);
const ANSWERS = new URL("looks/answers.json", import.meta.url);
const LOOKS = [
  { name: "1280", width: 1280, height: 800, colorScheme: "light" },
  { name: "dark", width: 1280, height: 800, colorScheme: "dark" },
  { name: "768", width: 768, height: 1024, colorScheme: "light" },
  { name: "390", width: 390, height: 844, colorScheme: "light" },
];
const SCALE = 4;
const CELL = 20;
// Other smoothing and hinting of letters makes 0.15 of 255, a view without its navigation 0.5 and more.
const MAX_OFF = 0.35;
// `pictures`: they are taken anew, of the answers that are recorded; `answers`: those are, too, from a server that `dashboard.test.mjs` has filled.
const anew = process.env.KITH_NEW_BASELINES;
const shots = process.env.KITH_SHOTS;

// The pictures are of recorded answers at the time they were recorded: they show the page, not what the server has learned by now.
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
      if (pathname.endsWith("/thumbnail")) return route.fulfill({ path: files[0] });
      if (anew === "answers" && !(name in known.answers)) known.answers[name] = await (await route.fetch()).json();
      if (!(name in known.answers)) return route.fulfill({ status: 404, json: { error: { message: `${name} is not recorded` } } });
      return route.fulfill({ json: known.answers[name] });
    });
  };
}

// Waits until a view shows all that it will, in the font of the pictures.
async function complete(page, view) {
  await settled(page, view);
  if (view === "playground") {
    await page.getByLabel("Image to search for").setInputFiles(files[0]);
    await page.locator(".found li").first().waitFor();
  }
  await page.evaluate(async (data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    document.fonts.add(await new FontFace("look", bytes).load());
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("* { font-family: look !important }");
    document.adoptedStyleSheets = [sheet];
  }, FONT);
  await page.waitForLoadState("networkidle");
}

// Two frames: what follows the window's size has been told of it, and has drawn.
const drawn = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

// The view as a PNG of a quarter of its size. What draws the map is as its machine's renderer is, and left out.
async function picture(page, { name }, view) {
  await drawn(page);
  const shot = await page.screenshot({ mask: [page.locator("iframe")], maskColor: "#808080" });
  if (shots) writeFileSync(`${shots}/${view}-${name}.png`, shot);
  const uri = await page.evaluate(
    async ([data, scale]) => {
      const image = new Image();
      image.src = `data:image/png;base64,${data}`;
      await image.decode();
      const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(image.width / scale), height: Math.round(image.height / scale) });
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      return canvas.toDataURL("image/png");
    },
    [shot.toString("base64"), SCALE],
  );
  return uri.split(",")[1];
}

// By how much of 255 the mean colours of two pictures' cells differ on average. Cells, since each browser smooths letters in its own way.
function compare(page, pictures) {
  return page.evaluate(
    async ([pictures, cell]) => {
      const cells = async (data) => {
        const image = new Image();
        image.src = `data:image/png;base64,${data}`;
        await image.decode();
        const [width, height] = [image.width, image.height].map((length) => Math.ceil(length / cell));
        const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
        context.imageSmoothingQuality = "high";
        context.drawImage(image, 0, 0, width, height);
        return context.getImageData(0, 0, width, height).data;
      };
      const [seen, known] = await Promise.all(pictures.map(cells));
      return seen.reduce((sum, value, at) => sum + Math.abs(value - known[at]), 0) / (0.75 * known.length);
    },
    [pictures, CELL],
  );
}

test("the views look as they did, at three widths and in dark", async () => {
  const known = anew === "answers" ? { at: Date.now(), answers: {} } : JSON.parse(readFileSync(ANSWERS, "utf8"));
  if (shots) mkdirSync(shots, { recursive: true });
  const changed = [];
  for (const view of VIEWS) {
    const { page, close } = await open(view, { prepare: recorded(known) });
    await complete(page, view);
    for (const look of LOOKS) {
      const { name, width, height, colorScheme } = look;
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height });
      const file = new URL(`${view}-${name}.png`, PICTURES);
      const seen = await picture(page, look, view);
      if (anew) {
        writeFileSync(file, seen, "base64");
        continue;
      }
      const off = await compare(page, [seen, readFileSync(file, "base64")]);
      if (process.env.KITH_LOOKS_OFF) console.log(view, name, off);
      if (!(off < MAX_OFF)) changed.push(`${view} ${name} differs by ${off} of 255 on average`);
    }
    await close();
  }
  if (anew === "answers") writeFileSync(ANSWERS, `${JSON.stringify(known)}\n`);
  assert.deepEqual(changed, []);
});
