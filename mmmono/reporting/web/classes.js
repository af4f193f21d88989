"use strict";
// Classes of features against those of their counterparts, beside what to expect if the two had nothing to do with each other.

/**
 * A figure: a table with a row for each class of a feature and a column for each class of its counterpart. `names`: of both feature sets;
 * `press([class, class])` is called for a cell.
 */
function classTable(pairs, mine, theirs, names, press) {
  const counts = new Map();
  const add = (key) => counts.set(key, (counts.get(key) ?? 0) + 1);
  for (const { feature, other } of pairs) {
    const [from, to] = [mine.status[feature], theirs.status[other]];
    for (const key of [`${from} `, ` ${to}`, `${from} ${to}`]) add(key);
  }
  const rows = STATUSES.filter((name) => counts.has(`${name} `));
  const columns = STATUSES.filter((name) => counts.has(` ${name}`));
  const cell = (from, to) => {
    const [count, inRow, inColumn] = [`${from} ${to}`, `${from} `, ` ${to}`].map((key) => counts.get(key) ?? 0);
    const expected = expectation((inRow * inColumn) / pairs.length);
    const said = `${counted(count)} of ${worded(from)} in ${names[0]} and ${worded(to)} in ${names[1]}; ${expected} if unrelated`;
    return h(
      "td",
      { style: `background:color-mix(in srgb, var(--accent) ${Math.round((28 * count) / inRow)}%, var(--paper))` },
      h(
        "button",
        {
          type: "button",
          "data-cell": `${from}-${to}`,
          "aria-pressed": "false",
          "aria-label": said,
          disabled: count === 0,
          onclick: () => press([from, to]),
        },
        h("b", {}, counted(count)),
        " ",
        h("small", {}, expected),
      ),
    );
  };
  const head = (scope) => (name) => h("th", { scope }, dot(name), worded(name));
  const table = h(
    "table",
    { "aria-labelledby": "about-classes" },
    h("thead", {}, h("tr", {}, h("td", {}), columns.map(head("col")))),
    h(
      "tbody",
      {},
      rows.map((from) =>
        h(
          "tr",
          {},
          head("row")(from),
          columns.map((to) => cell(from, to)),
        ),
      ),
    ),
  );
  const about = `Class in ${names[0]} (rows) and of the counterpart in ${names[1]} (columns).`;
  return h(
    "figure",
    { class: "classes" },
    h("div", { class: "scrolling" }, table),
    h(
      "figcaption",
      {},
      h("span", { id: "about-classes" }, about),
      " Small: how many if classes had nothing to do with counterparts. A cell filters.",
    ),
  );
}

const expectation = (value) => (value < 10 ? value.toFixed(1) : counted(Math.round(value)));

/** Pearson's correlation; null if it has none. */
function correlation(pairs) {
  const means = [0, 1].map((side) => pairs.reduce((sum, pair) => sum + pair[side], 0) / pairs.length);
  const [xx, yy, xy] = pairs.reduce(
    ([a, b, c], [x, y]) => [a + (x - means[0]) ** 2, b + (y - means[1]) ** 2, c + (x - means[0]) * (y - means[1])],
    [0, 0, 0],
  );
  return xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : null;
}
