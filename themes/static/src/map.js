// Sites on a map: each pin is a link with words, so that the map says no more than the list does.
customElements.define("site-map", class extends HTMLElement {
  async connectedCallback() {
    const { sites, urls, words } = JSON.parse(this.querySelector("script").textContent);
    const { Map, Marker, NavigationControl, ScaleControl, LngLatBounds, setWorkerUrl } = await import(urls.module);
    setWorkerUrl(new URL(urls.worker, location.href).href);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const bounds = new LngLatBounds();
    for (const { at } of sites) bounds.extend(at);
    this.replaceChildren();
    const fit = { padding: { top: 80, bottom: 50, left: 80, right: 80 }, maxZoom: 10 };
    const map = new Map({
      container: this, attributionControl: { compact: true, customAttribution: "Natural Earth, GeoNames" }, maxZoom: 14, bounds,
      fitBoundsOptions: fit, locale: words, cooperativeGestures: true,
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
    // From afar a pin tells its figures only, or neighbours would hide each other.
    const near = () => this.toggleAttribute("data-near", map.getZoom() >= 10);
    map.on("zoom", near);
    near();
    for (const { at, name, href, label, short, free } of sites) {
      const pin = Object.assign(document.createElement("a"), { href, className: `pin${free ? " free" : ""}`, title: name });
      for (const [tag, text] of [["strong", name], ["span", ` ${label}`], ["b", short]]) {
        pin.append(Object.assign(document.createElement(tag), { textContent: text, ariaHidden: tag === "b" ? "true" : null }));
      }
      new Marker({ element: pin, anchor: "bottom" }).setLngLat(at).addTo(map);
      pin.removeAttribute("aria-label"); // the library's own says "Map marker"; the pin's words are its name
    }
    // Held upright or across: all sites stay in sight until somebody looks elsewhere.
    let isMoved = false;
    map.on("movestart", ({ originalEvent }) => (isMoved ||= Boolean(originalEvent)));
    map.on("resize", () => isMoved || map.fitBounds(bounds, { ...fit, animate: false }));
    const towns = await fetch(urls.towns).then((answer) => (answer.ok ? answer.json() : []), () => []);
    let named = [];
    // The largest of those in sight, none over another or over a pin.
    const name = () => {
      for (const marker of named) marker.remove();
      named = [];
      const seen = map.getBounds(), taken = sites.map(({ at }) => map.project(at)).map(({ x, y }) => [x, y - 22]);
      for (const [lon, lat, text] of towns) {
        if (!seen.contains([lon, lat])) continue;
        const { x, y } = map.project([lon, lat]);
        if (x < 45 || x > this.clientWidth - 45 || y < 12 || y > this.clientHeight - 12) continue; // not cut by the frame
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
