// Small behaviour. Every main flow works without this file.
let chartLoading;

document.addEventListener("htmx:config:request", (event) => {
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  const request = event.detail?.ctx?.request ?? event.detail;
  if (token && request?.headers) request.headers["X-CSRFToken"] = token;
});

function toast(text) {
  const box = document.createElement("div");
  box.className = "alert error";
  box.textContent = text;
  document.getElementById("toasts")?.append(box);
  setTimeout(() => box.remove(), 6000);
}
document.addEventListener("htmx:response:error", ({ target }) => {
  if (!target.hasAttribute?.("hx-sse:connect")) toast("That did not work. Please try again.");
});

// Later breaks the extension mends by itself, a first connection that fails it does not.
for (const kind of ["htmx:error", "htmx:response:error"]) {
  document.addEventListener(kind, ({ target }) => {
    const url = target.getAttribute?.("hx-sse:connect");
    const again = () => target.isConnected && !target._htmx?.sse && window.htmx.ajax("GET", url, { source: target });
    if (!url || target._htmx?.sse) return;
    target.pause = Math.min(60, (target.pause ?? 0.5) * 2);
    setTimeout(again, target.pause * 1000 * (1 + Math.random()));
  });
}

// A second press would cancel the answer to the first, and what that tells. The page that comes back from the browser's
// memory takes presses again, and so does one that stayed: the answer was a file, or never came.
const release = (form) => {
  form.removeAttribute("aria-busy");
  for (const button of form.querySelectorAll("[aria-disabled]")) button.removeAttribute("aria-disabled");
};
document.addEventListener("submit", (event) => {
  const { target: form, submitter, defaultPrevented } = event;
  const told = (name) => submitter?.getAttribute(`form${name}`) ?? form.getAttribute(name);
  if (defaultPrevented || told("method")?.toLowerCase() !== "post" || told("target")) return;
  if (form.hasAttribute("aria-busy")) return event.preventDefault();
  form.setAttribute("aria-busy", "true");
  submitter?.setAttribute("aria-disabled", "true");
  setTimeout(release, 8000, form);
});
addEventListener("pageshow", () => document.querySelectorAll("form[aria-busy]").forEach(release));

customElements.define("copy-field", class extends HTMLElement {
  connectedCallback() {
    const button = this.querySelector("button");
    button?.addEventListener("click", async () => {
      await navigator.clipboard.writeText(this.querySelector("code").textContent);
      const before = button.lastChild.textContent;
      button.lastChild.textContent = "Copied";
      setTimeout(() => (button.lastChild.textContent = before), 1500);
    });
  }
});

// What had the keyboard may be gone after news (a session that ended has no "Stop"): then the heading has it.
let held;
document.addEventListener("focusin", (event) => (held = event.target));
document.addEventListener("htmx:sse:after:message", () => {
  const heading = document.querySelector("main h1");
  if (!held || held.isConnected || document.activeElement !== document.body || !heading) return;
  heading.tabIndex = -1;
  heading.focus();
});

// A curve of kW. The words beside it tell the same. A live page changes `data-points`, and the curve grows.
customElements.define("kw-chart", class extends HTMLElement {
  static observedAttributes = ["data-points"];
  connectedCallback() {
    this.observer = new ResizeObserver(() => this.plot?.setSize({ width: this.clientWidth, height: 220 }));
    this.observer.observe(this);
  }
  disconnectedCallback() {
    this.observer?.disconnect();
    this.plot?.destroy();
    this.plot = undefined;
  }
  attributeChangedCallback(_name, _before, points) {
    this.points = JSON.parse(points);
    if (this.points.t.length) this.draw();
  }
  async draw() {
    const uPlot = await loadChart();
    const { t, kw } = this.points;
    if (!this.isConnected) return;
    if (this.plot) return this.plot.setData([t, kw]);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    // The brand's clock, not the reader's: the words on the page tell the same times.
    const zone = document.querySelector('meta[name="time-zone"]')?.content || undefined;
    const clock = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: zone, hour12: false, ...options });
    const [minutes, seconds] = [clock({ hour: "2-digit", minute: "2-digit" }), clock({ timeStyle: "medium" })];
    const times = (_, splits, __, ___, step) => splits.map((at) => (step < 60 ? seconds : minutes).format(at * 1000));
    const amount = new Intl.NumberFormat(document.documentElement.lang, { maximumFractionDigits: 3 });
    const kilowatts = (_, values) => values.map((one) => `${amount.format(one)} kW`);
    this.plot = new uPlot({
      width: this.clientWidth || 600, height: 220, legend: { show: false }, padding: [8, 26, 0, 0], cursor: { y: false },
      axes: [{ ...axis, values: times, space: 70 }, { ...axis, values: kilowatts, size: 62 }],
      series: [{}, { stroke: colour("accent"), width: 2, fill: `${colour("accent")}22`, points: { show: false } }],
      scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
    }, [t, kw], this);
  }
});

function loadChart() {
  chartLoading ??= new Promise((done) => {
    const meta = (name) => document.querySelector(`meta[name="asset-${name}"]`)?.content;
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: meta("uplot-css") });
    const script = Object.assign(document.createElement("script"), { src: meta("uplot-js"), onload: () => done(window.uPlot) });
    document.head.append(style, script);
  });
  return chartLoading;
}

// The sessions whose addresses this device has seen; kept here only.
const KEPT = "sessions";
const here = location.pathname.match(/^\/s\/[a-z0-9_]+\.[a-z0-9]+$/)?.[0];
const kept = () => { try { return JSON.parse(localStorage.getItem(KEPT)) ?? []; } catch { return []; } };
if (here) {
  const place = document.querySelector("main h1 + p")?.textContent.trim() ?? "";
  const entry = kept().find((one) => one.path === here) ?? { path: here, place, at: new Date().toISOString() };
  localStorage.setItem(KEPT, JSON.stringify([entry, ...kept().filter((one) => one.path !== here)].slice(0, 10)));
}
customElements.define("recent-sessions", class extends HTMLElement {
  connectedCallback() {
    if (!kept().length) return;
    const card = Object.assign(document.createElement("section"), { className: "card" });
    card.append(Object.assign(document.createElement("h2"), { textContent: this.dataset.title }));
    const list = Object.assign(document.createElement("ul"), { className: "stack" });
    for (const { path, place, at } of kept()) {
      const link = Object.assign(document.createElement("a"), { href: path });
      link.textContent = `${place || path} · ${new Date(at).toLocaleString(document.documentElement.lang)}`;
      const item = document.createElement("li");
      item.append(link);
      list.append(item);
    }
    card.append(list);
    this.replaceChildren(card);
  }
});

const worker = document.querySelector('meta[name="service-worker"]')?.content;
if (worker && "serviceWorker" in navigator) navigator.serviceWorker.register(worker)
  .then((kept) => kept.active && kept.update()) // now: a browser by itself takes its time, and the network may go first
  .catch(() => {});
