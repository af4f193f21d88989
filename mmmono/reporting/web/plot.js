"use strict";
// Points on a canvas, thousands of them: drawn, found under the pointer, and chosen by a box. A second canvas above it
// holds what moves: the box, the chosen point, the one under the pointer and its links.

const NEAR = 14; // pixels within which the pointer finds a point
const MANY = 4000; // points from which on they are squares
const PALE = 0.13;

class PointPlot {
  /**
   * `on`: pick(i) for a click on a point, hover(i or null), box(box or null), with the box in units of the data, and
   * tell(i): text beside a point.
   */
  constructor(on) {
    this.on = on;
    this.base = h("canvas", { "aria-hidden": "true" });
    this.over = h("canvas", { tabindex: 0, role: "application", "aria-roledescription": "plot" });
    this.tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.element = h("div", { class: "plot" }, this.base, this.over, this.tip);
    this.hovered = null;
    this.links = [];
    followDrags(
      this.over,
      (first, now) => this.on.box(this.boxOf(first, now)),
      (place) => this.click(place),
    );
    this.over.addEventListener("pointermove", (event) => this.hover(this.near([event.offsetX, event.offsetY])));
    this.over.addEventListener("pointerleave", () => this.hover(null));
    this.over.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => {
      if (this.points && this.element.isConnected) this.show(this.points, this);
    }).observe(this.element);
  }

  /**
   * `points`: x, y (null: not drawn), kinds, radii, ranges [[x from, to], [y from, to]], titles of the axes or null, label;
   * diagonal: whether to draw the line from corner to corner.
   * The same object again is the same points.
   */
  show(points, { mask, box = null, chosen = null }) {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (points !== this.points || width !== this.width || height !== this.height) {
      if (points !== this.points) this.hover(null);
      [this.points, this.width, this.height] = [points, width, height];
      this.place();
    }
    [this.mask, this.box, this.chosen] = [mask, box, chosen];
    this.over.setAttribute("aria-label", points.label);
    this.drawBase();
    this.drawOver();
  }

  place() {
    const { x, y, kinds, ranges, titles } = this.points;
    this.edge = titles ? { left: 44, right: 12, top: 26, bottom: 34 } : { left: 10, right: 10, top: 10, bottom: 10 };
    const { left, right, top, bottom } = this.edge;
    const [[x0, x1], [y0, y1]] = ranges;
    this.toX = (value) => left + ((value - x0) / (x1 - x0)) * (this.width - left - right);
    this.toY = (value) => this.height - bottom - ((value - y0) / (y1 - y0)) * (this.height - top - bottom);
    this.px = Float32Array.from(x, (value, i) => (value === null || y[i] === null ? NaN : this.toX(value)));
    this.py = Float32Array.from(y, (value, i) => (value === null || x[i] === null ? NaN : this.toY(value)));
    this.byKind = new Map();
    kinds.forEach((kind, i) => {
      if (Number.isNaN(this.px[i])) return;
      if (!this.byKind.has(kind)) this.byKind.set(kind, []);
      this.byKind.get(kind).push(i);
    });
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.base, this.over]) {
      [canvas.width, canvas.height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
  }

  drawBase() {
    const pen = this.base.getContext("2d");
    if (this.px.length > MANY) this.drawMany();
    else this.drawFew(pen);
    if (this.points.titles) this.drawAxes(pen);
  }

  /** The points of a class that pass the filters or do not, class by class: those that do not lie below. */
  *layers() {
    for (const wanted of [0, 1])
      for (const [kind, members] of this.byKind) {
        const hollow = kind === "rare" || kind === "silent";
        yield { wanted, members, hollow, ink: color(hollow ? "muted" : kind), opacity: wanted ? 0.85 : PALE };
      }
  }

  drawFew(pen) {
    pen.clearRect(0, 0, this.width, this.height);
    for (const { wanted, members, hollow, ink, opacity } of this.layers()) {
      pen.fillStyle = pen.strokeStyle = ink;
      pen.globalAlpha = opacity;
      for (const i of members) {
        if (this.mask[i] !== wanted) continue;
        pen.beginPath();
        pen.arc(this.px[i], this.py[i], this.points.radii[i], 0, 2 * Math.PI);
        if (hollow) pen.stroke();
        else pen.fill();
      }
    }
    pen.globalAlpha = 1;
  }

  drawMany() {
    const ratio = this.base.width / this.width;
    drawSquares(this.base, (square) => {
      for (const { wanted, members, hollow, ink, opacity } of this.layers()) {
        const dye = pixel(ink, opacity);
        for (const i of members)
          if (this.mask[i] === wanted)
            square(this.px[i] * ratio, this.py[i] * ratio, this.points.radii[i] * ratio, dye, hollow);
      }
    });
  }

  drawAxes(pen) {
    const { ranges, titles } = this.points;
    const { left, right, top, bottom } = this.edge;
    const [low, end] = [this.height - bottom, this.width - right];
    pen.font = `11px ${color("sans")}`;
    pen.fillStyle = color("muted");
    pen.strokeStyle = color("line");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(left, top);
    pen.lineTo(left, low);
    pen.lineTo(end, low);
    if (this.points.diagonal) {
      pen.moveTo(left, low);
      pen.lineTo(end, top);
    }
    pen.stroke();
    pen.textAlign = "center";
    for (const { value, label } of ticks(...ranges[0], Math.max(3, Math.floor(this.width / 90))))
      pen.fillText(label, this.toX(value), low + 14);
    pen.fillText(titles[0], (left + end) / 2, this.height - 5, end - left);
    pen.textAlign = "right";
    for (const { value, label } of ticks(...ranges[1], Math.max(3, Math.floor(this.height / 60))))
      pen.fillText(label, left - 5, this.toY(value) + 4);
    pen.textAlign = "left";
    pen.fillText(titles[1], left, 13, end - left);
  }

  drawOver() {
    const pen = this.over.getContext("2d");
    pen.clearRect(0, 0, this.width, this.height);
    for (const [from, links] of [
      [this.chosen, this.links],
      [this.hovered, this.hoverLinks || []],
    ])
      if (from !== null) this.drawLinks(pen, from, links);
    for (const [i, extra] of [
      [this.chosen, 4],
      [this.hovered, 2],
    ])
      if (i !== null) this.ring(pen, i, extra);
    if (this.box) {
      const [x0, x1, y0, y1] = [
        this.toX(this.box.x0),
        this.toX(this.box.x1),
        this.toY(this.box.y1),
        this.toY(this.box.y0),
      ];
      pen.fillStyle = pen.strokeStyle = color("ink");
      pen.globalAlpha = 0.07;
      pen.fillRect(x0, y0, x1 - x0, y1 - y0);
      pen.globalAlpha = 0.8;
      pen.strokeRect(x0 + 0.5, y0 + 0.5, x1 - x0 - 1, y1 - y0 - 1);
      pen.globalAlpha = 1;
    }
  }

  drawLinks(pen, from, links) {
    pen.strokeStyle = color("ink");
    for (const [to, strength] of links) {
      if (Number.isNaN(this.px[from]) || Number.isNaN(this.px[to])) continue;
      pen.globalAlpha = Math.min(0.9, 0.25 + strength);
      pen.lineWidth = 0.6 + 2 * strength;
      pen.beginPath();
      pen.moveTo(this.px[from], this.py[from]);
      pen.lineTo(this.px[to], this.py[to]);
      pen.stroke();
    }
    pen.globalAlpha = pen.lineWidth = 1;
  }

  ring(pen, i, extra) {
    if (Number.isNaN(this.px[i])) return;
    pen.strokeStyle = color("ink");
    pen.lineWidth = 1.6;
    pen.beginPath();
    pen.arc(this.px[i], this.py[i], this.points.radii[i] + extra, 0, 2 * Math.PI);
    pen.stroke();
    pen.lineWidth = 1;
  }

  /** The nearest point to a place, or null if none is near; those that pass the filters come first. */
  near([x, y]) {
    let best = null,
      least = NEAR ** 2;
    for (let i = 0; i < this.px.length; i += 1) {
      const far = (this.px[i] - x) ** 2 + (this.py[i] - y) ** 2 + (this.mask[i] ? 0 : NEAR ** 2 / 2);
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  hover(i) {
    if (i === this.hovered) return;
    [this.hovered, this.hoverLinks] = [i, []];
    this.tip.hidden = i === null;
    this.over.style.cursor = i === null ? "crosshair" : "pointer";
    if (i !== null) {
      this.tip.replaceChildren(...this.on.tell(i));
      const left = this.px[i] > this.width / 2;
      this.tip.style.cssText = `${left ? `right:${this.width - this.px[i] + 10}px` : `left:${this.px[i] + 10}px`};top:${Math.min(this.py[i] + 8, this.height - 56)}px`;
    }
    this.drawOver();
    this.on.hover?.(i);
  }

  /** Links of the chosen point, or of the one under the pointer: [point, strength from 0 to 1] each. */
  link(from, links) {
    if (from === this.hovered) this.hoverLinks = links;
    if (from === this.chosen) this.links = links;
    this.drawOver();
  }

  click(place) {
    const i = this.near(place);
    if (this.box) this.on.box(null);
    if (i !== null) this.on.pick(i);
  }

  /** The box between two corners in pixels, in units of the data and within the axes. */
  boxOf([ax, ay], [bx, by]) {
    const { left, right, top, bottom } = this.edge;
    const [[x0, x1], [y0, y1]] = this.points.ranges;
    const inside = (value, low, high) => Math.min(Math.max(value, low), high);
    const backX = (px) =>
      x0 + ((inside(px, left, this.width - right) - left) / (this.width - left - right)) * (x1 - x0);
    const backY = (py) => {
      const up = this.height - bottom - inside(py, top, this.height - bottom);
      return y0 + (up / (this.height - top - bottom)) * (y1 - y0);
    };
    const [xs, ys] = [[backX(ax), backX(bx)].sort((a, b) => a - b), [backY(ay), backY(by)].sort((a, b) => a - b)];
    return { x0: xs[0], x1: xs[1], y0: ys[0], y1: ys[1] };
  }

  /** Enter puts a box around the chosen point, or in the middle; arrows move it, Shift and arrows size it, Escape removes it. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const sizes = this.points.ranges.map(([from, to]) => to - from);
    let box;
    if (event.key === "Enter") {
      const at = this.chosen !== null && !Number.isNaN(this.px[this.chosen]);
      const center = ["x", "y"].map((axis, i) =>
        at ? this.points[axis][this.chosen] : (this.points.ranges[i][0] + this.points.ranges[i][1]) / 2,
      );
      const [w, t] = sizes.map((size) => size / 10);
      box = { x0: center[0] - w, x1: center[0] + w, y0: center[1] - t, y1: center[1] + t };
    } else if (this.box) {
      box = event.key === "Escape" ? null : (boxByKey(this.box, event, sizes) ?? undefined);
    }
    if (box === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.on.box(box);
  }
}
