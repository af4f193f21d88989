"use strict";
// Three views of a feature set: a histogram of dominance, dominance against sharedness, and a map. A range or a box that
// is chosen in one filters the list and all three.

const VIEWS = { histogram: "Histogram", scatter: "Shared × dominance", map: "Map" };

class Views {
  /** `refresh` is called when the filter has changed, `open(feature)` for a feature that was clicked. */
  constructor(refresh, open) {
    this.refresh = refresh;
    this.plots = {
      scatter: this.plot(open, (box) => this.choose(box)),
      map: this.plot(open, (box) => {
        state.filter.place = box;
        this.refresh();
      }),
    };
    this.points = new WeakMap(); // of each table, by view
    byId("views").replaceChildren(
      ...Object.entries(VIEWS).map(([name, title]) =>
        h("button", { type: "button", "data-view": name, onclick: () => this.show(name) }, title),
      ),
    );
  }

  plot(pick, box) {
    const plot = new PointPlot({
      pick,
      box,
      tell: (i) => this.tell(i),
      hover: async (i) => {
        const { set } = state;
        if (i === null || state.view !== "map") return;
        const card = await loadCard(set, i);
        if (set === state.set && plot.hovered === i) plot.link(i, card.together);
      },
    });
    return plot;
  }

  show(name) {
    state.view = name;
    this.draw();
    byId("view").querySelector("canvas[tabindex]")?.focus({ preventScroll: true });
  }

  draw() {
    for (const button of byId("views").children)
      button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
    byId("health").textContent = health(setInfo(state.set), state.table);
    byId("view").dataset.view = state.view;
    if (state.view === "histogram") this.drawHistogram();
    else this.drawPlot(state.view);
  }

  drawHistogram() {
    const info = setInfo(state.set);
    const { low, high } = state.filter;
    const range = this.of("range", () => scoreRange([state.table]));
    const svg = scoreHistogram(state.table, info, {
      width: Math.max(260, byId("view").clientWidth),
      height: 150,
      range,
      mask: state.passing,
      low,
      high,
    });
    const score = ([x]) => svg.toScore(x);
    followDrags(
      svg,
      (first, now) => this.range([score(first), score(now)]),
      () => this.range([null, null]),
    );
    byId("view").replaceChildren(svg);
    byId("about").textContent =
      `Features by modality dominance score (${worded("0 text, 1 image")}): μ = ${fixed(info.mean)} (line), σ = ${fixed(info.std)}; dotted: ½. Drag to choose a range.`;
  }

  range(ends) {
    const [low, high] = ends[0] === null ? ends : [...ends].sort((a, b) => a - b).map(rounded);
    Object.assign(state.filter, { low, high });
    this.refresh();
  }

  choose(box) {
    const ends = box ? [box.x0, box.x1, box.y0, box.y1].map(rounded) : [null, null, null, null];
    const [low, high, sharedLow, sharedHigh] = ends;
    Object.assign(state.filter, { low, high, sharedLow, sharedHigh });
    this.refresh();
  }

  drawPlot(name) {
    const plot = this.plots[name];
    const points = this.of(name, name === "map" ? mapPoints : scatterPoints);
    if (points === null) {
      byId("view").replaceChildren(h("p", { class: "hint" }, ...ABSENT[name]));
      byId("about").textContent = "";
      return;
    }
    if (plot.element.parentElement !== byId("view")) byId("view").replaceChildren(plot.element);
    const box = name === "map" ? state.filter.place : boxOfFilter(points.ranges);
    plot.links = name === "map" ? state.together : [];
    plot.show(points, { mask: state.passing, box, chosen: state.feature });
    byId("about").textContent = points.about;
  }

  /** Something of the current table, computed once. */
  of(name, compute) {
    if (!this.points.has(state.table)) this.points.set(state.table, {});
    const known = this.points.get(state.table);
    if (!(name in known)) known[name] = compute(state.table, setInfo(state.set));
    return known[name];
  }

  tell(i) {
    const { table } = state;
    const scores = [`MDS ${fixed(table.mds[i], 2)}`];
    if ("sharedness" in table) scores.push(`shared ${fixed(table.sharedness[i], 2)}`);
    return [
      h("strong", {}, dot(table.status[i]), `${i} ${worded(table.status[i])}`),
      ` ${scores.join(" · ")}`,
      h("div", { dir: "auto" }, called(table, i)),
    ];
  }
}

const rounded = (value) => Number(value.toFixed(4));

const ABSENT = {
  scatter: [
    "Sharedness was not computed for this feature set: ",
    h("code", {}, "make section-2.1"),
    ", then ",
    h("code", {}, "make explorer"),
    " again, add it.",
  ],
  map: ["This page was made without a map: ", h("code", {}, "explorer.map=tsne"), " adds one."],
};

/** The box of the ranges that a filter has; null if it has none. */
function boxOfFilter(ranges) {
  const { low, high, sharedLow, sharedHigh } = state.filter;
  if ([low, high, sharedLow, sharedHigh].every((end) => end === null)) return null;
  const [[x0, x1], [y0, y1]] = ranges;
  return { x0: low ?? x0, x1: high ?? x1, y0: sharedLow ?? y0, y1: sharedHigh ?? y1 };
}

/** How many features a view cannot show, in words. */
function notDrawn(points) {
  const count = points.x.reduce((sum, value, i) => sum + (value === null || points.y[i] === null), 0);
  return count ? ` Not drawn: ${counted(count)} without a ${points.lacks}.` : "";
}

/** Dominance against sharedness. */
function scatterPoints(table, info) {
  if (!("sharedness" in table)) return null;
  const known = table.sharedness.filter((value, i) => value !== null && table.mds[i] !== null);
  const [least, most] = known.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [0, 0.1]);
  const rim = 0.04 * (most - least);
  const scores = table.mds.filter((value) => value !== null);
  const reach = scores.reduce((far, value) => Math.max(far, Math.abs(value - 0.5)), 0.01) * 1.04;
  const size = table.mds.length > MANY ? 1.4 : 3;
  const points = {
    x: table.mds,
    y: table.sharedness,
    kinds: table.status,
    radii: new Float32Array(table.mds.length).fill(size),
    ranges: [
      [0.5 - reach, 0.5 + reach],
      [least - rim, most + rim],
    ],
    titles: [worded("modality dominance: 0 text, 1 image"), "sharedness"],
    lacks: "score (silent)",
  };
  points.label = `Sharedness against modality dominance of the features of ${info.name}. Enter puts a box that filters the list; arrow keys move it, with Shift they size it, Escape removes it.`;
  points.about = `Each point is a feature; rings are rare ones, whose scores are of few pairs. Drag to choose a box, click to open a feature.${notDrawn(points)}`;
  return points;
}

/** The map; the area of a point is its share of the energy. */
function mapPoints(table, info) {
  if (!("x" in table)) return null;
  const energies = [...table.energy].sort((a, b) => b - a);
  const large = energies[Math.floor(energies.length / 100)] || 1; // one in a hundred is as large as points get
  const most = table.x.length > MANY ? 4 : 9;
  const least = table.x.length > MANY ? 1.1 : 2.2;
  const points = {
    x: table.x,
    y: table.y,
    kinds: table.status,
    radii: Float32Array.from(table.energy, (energy) => Math.max(least, most * Math.sqrt(Math.min(1, energy / large)))),
    ranges: [
      [-0.02, 1.02],
      [-0.02, 1.02],
    ],
    titles: null,
    lacks: "place (silent)",
  };
  points.label = `Map of the features of ${info.name}. Enter puts a box that filters the list; arrow keys move it, with Shift they size it, Escape removes it.`;
  points.about = `Near points are alike by the ${info.alikeBy}; far distances mean little. Area: share of the energy. Lines: features that are active together. Drag to choose a box.${notDrawn(points)}`;
  return points;
}
