// Sites on a map: each pin is a link with words, so that the map says no more than the list does. Pins that would cover
// each other are one, which says how many places it stands for and leads closer.
const gather = (pins, size) => {
  // [{ members, x, y, w, h }], none over another; x and y are where the pin's foot stands.
  const groups = pins.map((pin) => ({ ...pin, members: [pin] }));
  const covers = (a, b) => Math.abs(a.x - b.x) * 2 < a.w + b.w && a.y > b.y - b.h && b.y > a.y - a.h;
  for (let i = 0; i < groups.length; i++) {
    const other = groups.findIndex((group, j) => j !== i && covers(groups[i], group));
    if (other < 0) continue;
    const members = groups[i].members.concat(groups[other].members);
    const middle = (axis) => members.reduce((sum, one) => sum + one[axis], 0) / members.length;
    groups[Math.min(i, other)] = { ...size, members, x: middle("x"), y: middle("y") };
    groups.splice(Math.max(i, other), 1);
    i = Math.min(i, other) - 1; // the new one may cover what stood free before
  }
  return groups;
};

customElements.define("site-map", class extends HTMLElement {
  async connectedCallback() {
    const { sites, urls, words, list } = JSON.parse(this.querySelector("script").textContent);
    const { Map, Marker, NavigationControl, ScaleControl, LngLatBounds, setWorkerUrl } = await import(urls.module);
    setWorkerUrl(new URL(urls.worker, location.href).href);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const bounds = new LngLatBounds();
    for (const { at } of sites) bounds.extend(at);
    this.replaceChildren();
    // No pin (46 px to either side of its foot, 48 up) under the buttons above or the scale and the sources below.
    const room = () => ({ top: Math.min(125, this.clientHeight * 0.4), bottom: 50, left: 80, right: 80 });
    const fit = () => ({ padding: room(), maxZoom: 10 });
    const map = new Map({
      container: this, attributionControl: { compact: true, customAttribution: "Natural Earth, GeoNames" }, maxZoom: 17, bounds,
      fitBoundsOptions: fit(), locale: words, cooperativeGestures: true,
      style: {
        version: 8, sources: { world: { type: "geojson", data: new URL(urls.world, location.href).href } },
        layers: [
          { id: "sea", type: "background", paint: { "background-color": colour("line") } },
          { id: "land", type: "fill", source: "world", paint: { "fill-color": colour("surface") } },
          { id: "borders", type: "line", source: "world", paint: { "line-color": colour("line-strong"), "line-width": 0.8 } },
        ],
      },
    });
    map.addControl(new NavigationControl({ showCompass: false }));
    map.addControl(new ScaleControl(), "bottom-left");
    let isMoved = false;
    // From afar a pin tells its figures only, or neighbours would hide each other.
    const near = () => this.toggleAttribute("data-near", map.getZoom() >= 10);
    map.on("zoom", near);
    near();
    const pins = sites.map(({ at, name, href, label, short, free }) => {
      const pin = Object.assign(document.createElement("a"), { href, className: `pin${free ? " free" : ""}`, title: name });
      for (const [tag, text] of [["strong", name], ["span", ` ${label}`], ["b", short]]) {
        pin.append(Object.assign(document.createElement(tag), { textContent: text, ariaHidden: tag === "b" ? "true" : null }));
      }
      new Marker({ element: pin, anchor: "bottom" }).setLngLat(at).addTo(map);
      pin.removeAttribute("aria-label"); // the library's own says "Map marker"; the pin's words are its name
      return { at, name, free, element: pin };
    });
    const open = (members) => {
      isMoved = true;
      if (map.getZoom() >= map.getMaxZoom() - 0.01) {
        // Nearer they stand no further apart: the list tells them one by one, these first.
        const url = new URL(list, location.href), middle = (axis) => members.reduce((sum, { at }) => sum + at[axis], 0) / members.length;
        url.searchParams.set("near", [middle(1), middle(0)].map((degrees) => degrees.toFixed(5)).join(","));
        return location.assign(url);
      }
      const around = members.reduce((found, { at }) => found.extend(at), new LngLatBounds());
      map.fitBounds(around, { padding: room(), maxZoom: map.getMaxZoom() });
      map.getCanvas().focus();
    };
    let groups = [], gathered = [];
    const group = () => {
      for (const marker of gathered) marker.remove();
      for (const { element } of pins) element.hidden = false;
      const placed = pins.map((pin) => ({ ...pin, ...map.project(pin.at), w: pin.element.offsetWidth + 4, h: pin.element.offsetHeight + 4 }));
      groups = gather(placed, { w: 92, h: 48 });
      gathered = groups.filter(({ members }) => members.length > 1).map(({ members, x, y }) => {
        for (const { element } of members) element.hidden = true;
        const free = members.some((one) => one.free) ? " free" : "";
        const element = Object.assign(document.createElement("button"), {
          type: "button", className: `pin${free}`, textContent: words.places.replace("{n}", members.length),
          title: members.slice(0, 8).map(({ name }) => name).join(", ") + (members.length > 8 ? " …" : ""),
        });
        element.addEventListener("click", () => open(members));
        const marker = new Marker({ element, anchor: "bottom" }).setLngLat(map.unproject([x, y])).addTo(map);
        for (const kept of ["role", "aria-label"]) element.removeAttribute(kept);
        return marker;
      });
    };
    map.on("moveend", group); // before the towns are named
    group();
    // Held upright or across: all sites stay in sight until somebody looks elsewhere.
    map.on("movestart", ({ originalEvent }) => (isMoved ||= Boolean(originalEvent)));
    map.on("resize", () => isMoved || map.fitBounds(bounds, { ...fit(), animate: false }));
    const towns = await fetch(urls.towns).then((answer) => (answer.ok ? answer.json() : []), () => []);
    let named = [];
    // The largest of those in sight, none over another or over a pin.
    const name = () => {
      for (const marker of named) marker.remove();
      named = [];
      const seen = map.getBounds(), taken = groups.map(({ x, y }) => [x, y - 22]);
      for (const [lon, lat, text] of towns) {
        if (!seen.contains([lon, lat])) continue;
        const { x, y } = map.project([lon, lat]);
        const right = this.clientWidth - x, below = this.clientHeight - y;
        if (x < 45 || right < 45 || y < 12 || below < 45) continue; // not cut by the frame, nor over the scale
        if (y < 95 && right < 95) continue; // nor over the buttons
        if (taken.some(([left, top]) => Math.abs(left - x) < 90 && Math.abs(top - y) < 34)) continue;
        taken.push([x, y]);
        const element = Object.assign(document.createElement("span"), { className: "town", textContent: text, ariaHidden: "true" });
        named.push(new Marker({ element, anchor: "center" }).setLngLat([lon, lat]).addTo(map));
        for (const kept of ["role", "aria-label", "tabindex"]) element.removeAttribute(kept);
        if (named.length === 14) break;
      }
    };
    map.on("moveend", name);
    name();
    map.once("idle", () => this.setAttribute("data-ready", ""));
  }
});
