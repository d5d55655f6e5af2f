// Builds the two pages of the dashboard into the server's sources. `npm run build`; what it writes is committed.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const OUT = new URL("../src/http/dashboard/", import.meta.url);
// Of both scripts together, in bytes.
const MAX_SCRIPT = 400 * 1024;

let total = 0;
for (const [name, entry] of [["page", "src/main.tsx"], ["frame", "src/frame.ts"]]) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    outdir: "out",
    minify: true,
    format: "iife",
    target: ["es2022"],
    jsx: "automatic",
    jsxImportSource: "preact",
    legalComments: "eof",
    charset: "utf8",
  });
  for (const { path, contents } of outputFiles) {
    const kind = path.endsWith(".css") ? "css" : "js";
    // The text stands inside a script element, which this would end.
    const text = Buffer.from(contents).toString().replaceAll("</script", "<\\/script");
    if (kind === "js") total += text.length;
    writeFileSync(new URL(`${name}.${kind}`, OUT), text);
  }
  writeFileSync(new URL(`${name}.html`, OUT), readFileSync(`src/${name}.html`));
}
console.log(`${Math.round(total / 1024)} KiB of script`);
if (total > MAX_SCRIPT) throw new Error("the scripts are too large");
