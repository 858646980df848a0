// Builds what pages load into ../static/built: each file beside this one that ends in .ts becomes a script of that name, with the
// libraries that it needs inside it; what they share lies in parts/. The pictures of icons become one sprite. Nothing is fetched.

import { readFileSync, readdirSync, mkdirSync, rmSync, writeFileSync, existsSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import icons from "./icons.json" with { type: "json" };

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "static", "built");

const entries = readdirSync(here).filter((name) => name.endsWith(".ts"));
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const result = await build({
  absWorkingDir: here,
  entryPoints: entries,
  outdir: out,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none", // they are in LICENSES.txt
  metafile: true,
  logLevel: "warning",
});

const shipped = new Set(["lucide-static"]);
for (const input of Object.keys(result.metafile.inputs)) {
  const inside = input.split("node_modules/").pop();
  if (inside !== input) shipped.add(inside.split("/").slice(0, inside.startsWith("@") ? 2 : 1).join("/"));
}
writeFileSync(join(out, "icons.svg"), sprite());
writeFileSync(join(out, "LICENSES.txt"), [...shipped].sort().map(licence).join("\n\n"));
for (const [file, { bytes }] of Object.entries(result.metafile.outputs)) {
  console.log(`${relative(out, join(here, file))}  ${(bytes / 1000).toFixed(1)} kB`);
}

function sprite() {
  const symbols = Object.entries(icons).map(([name, drawing]) => {
    const text = readFileSync(join(here, "node_modules", "lucide-static", "icons", `${drawing}.svg`), "utf8");
    const inside = text.slice(text.indexOf(">", text.indexOf("<svg")) + 1, text.lastIndexOf("</svg>"));
    return `<symbol id="${name}" viewBox="0 0 24 24">${inside.replace(/\s*\n\s*/g, "")}</symbol>`;
  });
  const look = 'fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${look}>${symbols.join("")}</svg>\n`;
}

function licence(name) {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each) && existsSync(join(folder, each)));
  const text = file ? readFileSync(join(folder, file), "utf8").trim() : license;
  return `${name} ${version} (${license})\n${"-".repeat(40)}\n${text}\n`;
}
