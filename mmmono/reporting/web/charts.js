"use strict";
// Histograms, as SVG in the size they are shown at.

const CLASSES = ["TextD", "CrossD", "ImgD"]; // stacked as in Figure 4

/** Symmetric range around ½ that holds all scores of live features. */
function scoreRange(tables) {
  let reach = 0.01;
  for (const table of tables) {
    table.mds.forEach((score, i) => {
      if (score !== null && table.class[i] !== "dead") reach = Math.max(reach, Math.abs(score - 0.5));
    });
  }
  return [0.5 - reach * 1.001, 0.5 + reach * 1.001];
}

/**
 * Scores of live features, stacked by class; those for which `mask` is 0 are pale.
 * Returns the SVG, with `toScore(x)` and `range` for a brush.
 */
function scoreHistogram(table, info, { width, height, range, bins = 64, mask = null, low = null, high = null }) {
  const left = 34,
    right = 8,
    top = 8,
    bottom = 20;
  const [from, to] = range;
  const counts = Array.from({ length: bins }, () => ({ ImgD: [0, 0], TextD: [0, 0], CrossD: [0, 0] }));
  table.mds.forEach((score, i) => {
    if (score === null || table.class[i] === "dead") return;
    const bin = Math.min(bins - 1, Math.max(0, Math.floor(((score - from) / (to - from)) * bins)));
    counts[bin][table.class[i]][mask === null || mask[i] ? 0 : 1] += 1;
  });
  const totals = counts.map((bin) => CLASSES.reduce((sum, name) => sum + bin[name][0] + bin[name][1], 0));
  const most = Math.max(1, ...totals);
  const x = (score) => left + ((score - from) / (to - from)) * (width - left - right);
  const y = (count) => height - bottom - (count / most) * (height - top - bottom);
  const step = (width - left - right) / bins;
  const members = worded(`${info.ImgD} ImgD, ${info.TextD} TextD, ${info.CrossD} CrossD`);
  const label = `Distribution of the modality dominance score of ${info.name}: ${members}`;
  const svg = h("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  counts.forEach((bin, i) => {
    let base = 0;
    for (const pale of [0, 1]) {
      for (const name of CLASSES) {
        const count = bin[name][pale];
        if (!count) continue;
        svg.append(
          h("svg:rect", {
            class: `${name}${pale ? " pale" : ""}`,
            x: left + i * step + 0.3,
            width: Math.max(0.5, step - 0.6),
            y: y(base + count),
            height: y(base) - y(base + count),
          }),
        );
        base += count;
      }
    }
  });
  svg.append(
    h("svg:line", { class: "axis", x1: left, x2: width - right, y1: height - bottom + 0.5, y2: height - bottom + 0.5 }),
  );
  for (const tick of ticks(from, to, Math.max(4, Math.floor(width / 75)))) {
    svg.append(h("svg:text", { x: x(tick.value), y: height - 6, "text-anchor": "middle" }, tick.label));
  }
  svg.append(
    h("svg:text", { x: left - 5, y: y(most) + 8, "text-anchor": "end" }, String(most)),
    h("svg:text", { x: left - 5, y: height - bottom, "text-anchor": "end" }, "0"),
  );
  for (const [name, value] of [
    ["half", 0.5],
    ["mean", info.mean],
  ]) {
    if (value !== null && value >= from && value <= to)
      svg.append(h("svg:line", { class: name, x1: x(value), x2: x(value), y1: top, y2: height - bottom }));
  }
  if (low !== null || high !== null) {
    const [a, b] = [x(Math.max(from, low ?? from)), x(Math.min(to, high ?? to))];
    svg.append(
      h("svg:rect", {
        class: "brush",
        x: Math.min(a, b),
        width: Math.abs(b - a),
        y: top,
        height: height - bottom - top,
      }),
    );
    for (const edge of [a, b])
      svg.append(h("svg:line", { class: "edge", x1: edge, x2: edge, y1: top, y2: height - bottom }));
  }
  svg.toScore = (px) =>
    from + ((Math.min(Math.max(px, left), width - right) - left) / (width - left - right)) * (to - from);
  return svg;
}

/** Activations that are not 0: images upward, texts downward, each as a share of its modality's highest bin. */
function activationHistogram(histogram) {
  const width = 460,
    height = 130,
    middle = 58,
    reach = 50;
  const { low, width: step } = histogram;
  const bins = histogram.image.length;
  const high = low + bins * step;
  const x = (value) => 4 + ((value - low) / (high - low)) * (width - 8);
  const total = (counts) => counts.reduce((sum, count) => sum + count, 0);
  const svg = h("svg:svg", {
    class: "activations",
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": worded(
      `Activations other than 0: of ${total(histogram.image)} images and ${total(histogram.text)} texts`,
    ),
  });
  const most = Math.max(1, ...histogram.image, ...histogram.text);
  for (const [modality, direction] of [
    ["image", -1],
    ["text", 1],
  ]) {
    histogram[modality].forEach((count, i) => {
      if (!count) return;
      const size = Math.max(1, (count / most) * reach);
      svg.append(
        h(
          "svg:rect",
          {
            class: modality,
            x: x(low + i * step) + 0.4,
            width: Math.max(0.8, (width - 8) / bins - 0.8),
            y: direction < 0 ? middle - size : middle,
            height: size,
          },
          h(
            "svg:title",
            {},
            `${count} ${worded(count === 1 ? modality : `${modality}s`)}: ${activation(low + i * step)} to ${activation(low + (i + 1) * step)}`,
          ),
        ),
      );
    });
  }
  svg.append(h("svg:line", { class: "axis", x1: 4, x2: width - 4, y1: middle, y2: middle }));
  for (const tick of ticks(low, high, 5))
    svg.append(
      h(
        "svg:text",
        { x: Math.min(width - 14, Math.max(12, x(tick.value))), y: height - 6, "text-anchor": "middle" },
        tick.label,
      ),
    );
  svg.append(
    h("svg:text", { x: width - 4, y: 12, "text-anchor": "end" }, worded(`images ↑ ${total(histogram.image)}`)),
    h(
      "svg:text",
      { x: width - 4, y: middle + reach + 2, "text-anchor": "end" },
      worded(`texts ↓ ${total(histogram.text)}`),
    ),
  );
  return svg;
}
