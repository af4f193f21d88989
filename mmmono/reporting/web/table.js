"use strict";
// The table of features: sorted, filtered, and only as many rows in the document as can be seen.

const ROW = 32; // pixels, as in explorer.css
const BEYOND = 4; // rows above and below those that can be seen
const PRINTED = 300; // rows on paper
const COLUMNS = [
  { key: "feature", title: "feature", class: "feature number", about: "Index of the feature" },
  {
    key: "status",
    title: "class",
    class: "class",
    about: "ImgD, TextD, CrossD; rare: too few pairs activate it for a class; silent: none does",
  },
  {
    key: "mds",
    title: "MDS",
    class: "narrow number",
    show: (value) => fixed(value),
    about: "Modality dominance score: 1 images alone, 0 texts alone",
  },
  {
    key: "image",
    title: "images",
    class: "share number from-medium",
    show: share,
    about: "Share of images that activate it",
  },
  {
    key: "text",
    title: "texts",
    class: "share number from-medium",
    show: share,
    about: "Share of texts that activate it",
  },
  {
    key: "q",
    title: "q",
    class: "narrow number from-medium",
    show: small,
    about: "q-value of dominance by either modality",
  },
  {
    key: "sharedness",
    title: "shared",
    class: "narrow number from-medium",
    show: (value) => fixed(value, 2),
    about: "Sharedness: correlation across pairs of image and text; 0 if pairs are broken, 1 if both sides agree",
  },
  {
    key: "shared_q",
    title: "shared q",
    class: "wide number from-widest",
    show: small,
    about: "q-value of sharedness against broken pairs",
  },
  {
    key: "mono_image",
    title: "Mono img",
    class: "wide number from-wide",
    show: (value) => fixed(value, 2),
    about: "Monosemanticity on images, minus that of random ones",
  },
  {
    key: "mono_text",
    title: "Mono txt",
    class: "wide number from-wide",
    show: (value) => fixed(value, 2),
    about: "Monosemanticity on texts, minus that of random ones",
  },
  {
    key: "match",
    title: "seeds r",
    class: "wide number from-wide",
    show: (value) => fixed(value, 2),
    about: "Smallest correlation with its matches in dictionaries of other seeds",
  },
  {
    key: "name",
    title: "name",
    class: "named from-medium",
    show: (value) => value || "–",
    about: "Its name, if that tells on held-out pairs where the feature is active",
  },
  { key: "label", title: "top caption", class: "label", about: "The caption that activates it most" },
];

class FeatureTable {
  constructor(onSort) {
    this.scroller = byId("scroller");
    this.head = document.querySelector("#table thead");
    this.body = document.querySelector("#table tbody");
    this.onSort = onSort;
    this.rows = [];
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw(true)).observe(this.scroller);
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-feature]");
      if (row && !event.target.closest("a")) location.hash = `#${state.set}/${row.dataset.feature}`;
    });
  }

  /** Order anew, and list the features that pass. `matches`: captions that a search found, by feature; null if none. */
  show(table, matches) {
    this.matches = matches;
    const { key, descending } = state.sort;
    if (this.table !== table || this.key !== key || this.descending !== descending) {
      this.order = sortedFeatures(table, key, descending);
      [this.table, this.key, this.descending] = [table, key, descending];
      this.drawHead();
    }
    this.rows = this.order.filter((feature) => state.passing[feature]);
    this.draw(true);
  }

  drawHead() {
    const columns = COLUMNS.filter((column) => column.key === "feature" || column.key in this.table);
    const focused = this.head.contains(document.activeElement) ? document.activeElement.textContent : null;
    this.columns = columns;
    this.head.replaceChildren(
      h(
        "tr",
        {},
        columns.map((column) => {
          const sorted = state.sort.key === column.key;
          return h(
            "th",
            {
              class: column.class,
              scope: "col",
              "aria-sort": sorted ? (state.sort.descending ? "descending" : "ascending") : null,
              title: worded(column.about),
            },
            h("button", { type: "button", onclick: () => this.onSort(column.key) }, worded(column.title)),
          );
        }),
      ),
    );
    if (focused) [...this.head.querySelectorAll("button")].find((b) => b.textContent === focused)?.focus();
  }

  draw(always = false) {
    if (!this.table) return;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - BEYOND);
    const last = Math.min(this.rows.length, first + Math.ceil(this.scroller.clientHeight / ROW) + 2 * BEYOND);
    if (!always && first === this.first && last === this.last) return;
    this.drawRows(first, last);
  }

  /** All rows that paper has room for. */
  drawForPaper() {
    this.drawRows(0, Math.min(this.rows.length, PRINTED));
    byId("cut").hidden = this.rows.length <= PRINTED;
    byId("cut").textContent = `The first ${PRINTED} of ${counted(this.rows.length)} features.`;
  }

  drawRows(first, last) {
    [this.first, this.last] = [first, last];
    const focused = this.body.contains(document.activeElement)
      ? document.activeElement.closest("tr")?.dataset.feature
      : null;
    const space = (count) =>
      h("tr", { class: "space", "aria-hidden": "true" }, h("td", { style: `height:${count * ROW}px` }));
    const rows = this.rows.slice(first, last).map((feature, i) => this.row(feature, first + i));
    byId("table").setAttribute("aria-rowcount", this.rows.length + 1);
    this.body.replaceChildren(space(first), ...rows, space(this.rows.length - last));
    byId("nothing").hidden = this.rows.length > 0;
    byId("cut").hidden = true;
    if (focused) this.body.querySelector(`tr[data-feature="${focused}"] a`)?.focus({ preventScroll: true });
  }

  row(feature, place) {
    const { status } = this.table;
    const cells = this.columns.map((column) => {
      if (column.key === "feature")
        return h("td", { class: column.class }, h("a", { href: `#${state.set}/${feature}` }, String(feature)));
      if (column.key === "status")
        return h("td", { class: column.class }, dot(status[feature]), worded(status[feature]));
      if (column.key === "label") return h("td", { class: column.class, dir: "auto" }, ...this.caption(feature));
      return h("td", { class: column.class }, column.show(this.table[column.key][feature]));
    });
    return h(
      "tr",
      {
        class: status[feature] === "rare" ? "rare" : null,
        title: status[feature] === "rare" ? `Scores of ${this.table.groups[feature]} independent pairs` : null,
        "data-feature": feature,
        "aria-rowindex": place + 2,
        "aria-current": feature === state.feature ? "true" : null,
      },
      cells,
    );
  }

  /** The top caption, or the one that a search found, with what was found marked. */
  caption(feature) {
    const found = this.matches?.get(feature);
    return found === undefined ? [this.table.label[feature]] : marked(found, state.filter.query);
  }

  /** Scroll so that a feature can be seen: to the edge that it lies beyond, or with it in the middle from far away. */
  reveal(feature) {
    const place = this.rows.indexOf(feature);
    if (place < 0) return;
    const top = place * ROW,
      from = this.scroller.scrollTop,
      view = this.scroller.clientHeight - this.head.offsetHeight;
    if (Math.abs(top - from) > 2 * view) this.scroller.scrollTop = top - view / 2;
    else if (top < from) this.scroller.scrollTop = top;
    else if (top + ROW > from + view) this.scroller.scrollTop = top + ROW - view;
    this.draw();
  }

  /** The feature some places further in the current order, staying at the ends. */
  neighbor(feature, offset) {
    if (!this.rows.length) return null;
    const place = this.rows.indexOf(feature);
    return this.rows[place < 0 ? 0 : Math.min(this.rows.length - 1, Math.max(0, place + offset))];
  }
}

function sortedFeatures(table, key, descending) {
  const features = table.class.map((_, i) => i);
  if (key === "feature") return descending ? features.reverse() : features;
  if (!(key in table)) return features; // sorted by what another feature set has
  const values = table[key];
  const sign = descending ? -1 : 1;
  const { compare } = new Intl.Collator(); // a hundred times as fast as localeCompare
  const ordered =
    typeof values.find((value) => value !== null) === "string"
      ? (a, b) => sign * compare(values[a], values[b])
      : (a, b) => sign * (values[a] - values[b]);
  return features.sort((a, b) => {
    const [lacksA, lacksB] = [values[a] === null || values[a] === "", values[b] === null || values[b] === ""];
    return lacksA || lacksB ? lacksA - lacksB || a - b : ordered(a, b) || a - b; // what has no value comes last either way
  });
}
