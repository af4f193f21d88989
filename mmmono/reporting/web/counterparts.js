"use strict";
// Two feature sets on the same pairs, feature by feature: the most correlated one of the other set, or none by chance.

const LISTED = 50; // rows at first, and more at each press

/** Names, settings and what was found of two feature sets; `least` is null until a reader sets it. */
const matching = {
  from: null,
  to: null,
  least: null,
  mutual: false,
  box: null,
  classes: null,
  listed: LISTED,
  reveal: false,
};

let matchPlot = null;
let matchPoints = null; // the points that it has

async function showCounterparts(root) {
  const names = explorerData.index.sets.map((set) => set.name);
  if (names.length < 2) {
    const both = h("code", {}, "make explorer FEATURES='[raw,sae]'");
    root.replaceChildren(
      h(
        "p",
        { class: "muted" },
        "There is one feature set here; with two, such as by ",
        both,
        ", this shows which features they share.",
      ),
    );
    return;
  }
  if (!names.includes(matching.from)) [matching.from, matching.to] = firstMatched(explorerData.index.sets);
  const { from, to } = matching;
  const [mine, theirs, there, back] = await Promise.all([
    loadTable(from),
    loadTable(to),
    load(`${from}/counterparts`),
    load(`${to}/counterparts`),
  ]);
  const found = there[to];
  const least = matching.least ?? found.chance;
  const pairs = [];
  let asked = 0;
  mine.status.forEach((status, feature) => {
    if (status === "silent") return;
    asked += 1;
    const other = found.feature[feature];
    if (other < 0 || found.r[feature] < least) return;
    pairs.push({ feature, other, r: found.r[feature], mutual: back[from].feature[other] === feature });
  });
  const kept = matching.mutual ? pairs.filter((pair) => pair.mutual) : pairs;
  const list = h("div", { class: "list", tabindex: 0, role: "region", "aria-label": "List of counterparts" });
  const holder = h("div", { class: "holder" });
  const classes = h("div", {});
  root.replaceChildren(
    controls(names, found, () => showCounterparts(root)),
    h("p", { role: "status" }, summary(pairs, asked, mine, theirs)),
    h("div", { class: "beside" }, h("div", {}, holder, classes), list),
  );
  const ranked = [...kept].sort((a, b) => b.r - a.r || a.feature - b.feature);
  showMatches({ pairs: kept, ranked, mine, theirs, holder, list, classes });
}

/** The two feature sets to begin with: of two runs, the last one of the first run and that of the same name in the second. */
function firstMatched(sets) {
  const [own, others] = [0, 1].map((run) => sets.filter((set) => set.run === run).map((set) => set.name));
  if (!others.length) return own.slice(-2).reverse();
  const from = own.at(-1);
  return [from, others.find((name) => name.startsWith(`${from} `)) ?? others.at(-1)];
}

/** How many have a counterpart, and how often both have the same class, beside how often unrelated ones would. */
function summary(pairs, asked, mine, theirs) {
  const { from, to } = matching;
  const start = `${counted(pairs.length)} of ${counted(asked)} features of ${from} that are not silent have a counterpart in ${to}`;
  if (!pairs.length) return `${start}: lower the least correlation to see weaker ones.`;
  const mutual = pairs.filter((pair) => pair.mutual).length;
  const parts = [`${counted(mutual)} of these are its counterpart too (⇄)`];
  const classes = pairs.map(({ feature, other }) => [mine.class[feature], theirs.class[other]]);
  const live = classes.filter((both) => !both.includes("dead"));
  if (live.length) {
    const same = live.filter(([one, other]) => one === other).length;
    const part = (side, name) => live.filter((both) => both[side] === name).length / live.length;
    const chance = CLASSES.reduce((sum, name) => sum + part(0, name) * part(1, name), 0);
    parts.push(
      `of ${counted(live.length)} where both have a class, ${share(same / live.length)} have the same; ${share(chance)} would if classes had nothing to do with counterparts`,
    );
    const scores = pairs.filter((_, i) => !classes[i].includes("dead"));
    const r = correlation(scores.map(({ feature, other }) => [mine.mds[feature], theirs.mds[other]]));
    if (r !== null) parts.push(`the dominance of both correlates with r ${fixed(r, 2)}`);
  }
  return `${start}; ${parts.join("; ")}.`;
}

function controls(names, found, redraw) {
  const set = (changes) => {
    Object.assign(matching, { box: null, classes: null, listed: LISTED }, changes);
    redraw();
  };
  const choice = (key, other, label) =>
    h(
      "select",
      {
        "aria-label": label,
        onchange: (event) => {
          const { value } = event.target;
          const swapped = matching[other] === value ? { [other]: matching[key] } : {};
          set({ [key]: value, least: null, ...swapped });
        },
      },
      names.map((name) => h("option", { selected: name === matching[key] }, name)),
    );
  const least = h("input", {
    type: "number",
    min: 0,
    max: 1,
    step: "any",
    value: Number((matching.least ?? found.chance).toFixed(3)),
    "aria-label": "Least correlation",
    onchange: (event) => set({ least: event.target.value === "" ? null : Number(event.target.value) }),
  });
  const mutual = h("input", { type: "checkbox", onchange: (event) => set({ mutual: event.target.checked }) });
  mutual.checked = matching.mutual;
  return h(
    "div",
    { class: "row" },
    h("h2", {}, "Counterparts"),
    h("span", {}, "of ", choice("from", "to", "Feature set"), " in ", choice("to", "from", "Other feature set")),
    h(
      "label",
      {
        title: `Unrelated features reach ${fixed(found.chance)} in 5 % of cases: those of the other set with its pairs in random order`,
      },
      "r ≥ ",
      least,
      h("span", { class: "muted" }, ` chance ${fixed(found.chance)}`),
    ),
    h(
      "label",
      { title: "Only pairs of features of which each is the most correlated one of the other" },
      mutual,
      " mutual",
    ),
  );
}

/** Dominance of the features against that of their counterparts, their classes, and a list of those that are chosen. */
function showMatches(shown) {
  const { pairs, ranked, mine, theirs, holder, list } = shown;
  listMatches(list, ranked, mine, theirs);
  showClasses(shown);
  if (!pairs.length) return;
  matchPlot ??= new PointPlot({
    pick: (i) => pinBoth(matchPlot.shown.pairs[i]),
    box: (box) => {
      Object.assign(matching, { box, listed: LISTED });
      showMatches(matchPlot.shown);
    },
    tell: (i) => {
      const { feature, other, r } = matchPlot.shown.pairs[i];
      const what = called(matchPlot.shown.mine, feature);
      return [h("strong", {}, `${feature} and ${other}`), ` r ${fixed(r, 2)}`, h("div", { dir: "auto" }, what)];
    },
  });
  if (matchPlot.shown !== shown) [matchPlot.shown, matchPoints] = [shown, pointsOfMatches(pairs, mine, theirs)];
  if (matchPlot.element.parentElement !== holder) holder.replaceChildren(matchPlot.element);
  const mask = Uint8Array.from(pairs, (pair) => Number(isChosen(pair, mine, theirs)));
  matchPlot.show(matchPoints, { mask, box: matching.box });
}

/** The table of classes, made once for the same pairs; then only which cell is pressed changes. */
function showClasses({ pairs, ranked, mine, theirs, classes }) {
  if (!classes.children.length && pairs.length)
    classes.append(
      classTable(pairs, mine, theirs, [matching.from, matching.to], (cell) => {
        const again = matching.classes !== null && matching.classes.join() === cell.join();
        Object.assign(matching, { classes: again ? null : cell, listed: LISTED });
        showMatches(matchPlot.shown);
        say(`${counted(ranked.filter((pair) => isChosen(pair, mine, theirs)).length)} counterparts listed`);
      }),
    );
  for (const button of classes.querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.dataset.cell === matching.classes?.join("-")));
}

function pointsOfMatches(pairs, mine, theirs) {
  const scores = pairs.flatMap(({ feature, other }) => [mine.mds[feature], theirs.mds[other]]);
  const reach = scores.reduce((far, score) => Math.max(far, Math.abs(score - 0.5)), 0.01) * 1.04;
  const range = [0.5 - reach, 0.5 + reach];
  return {
    x: pairs.map(({ feature }) => mine.mds[feature]),
    y: pairs.map(({ other }) => theirs.mds[other]),
    kinds: pairs.map(({ feature }) => mine.status[feature]),
    radii: Float32Array.from(pairs, ({ r }) => (pairs.length > MANY ? 1.4 : 2 + 2 * r)),
    ranges: [range, range],
    titles: [`MDS in ${matching.from}`, `MDS in ${matching.to}, of the counterpart`],
    diagonal: true,
    label: `Modality dominance of ${pairs.length} features of ${matching.from} against that of their counterparts in ${matching.to}. Enter puts a box that filters the list, arrow keys move it, with Shift they size it, Escape removes it.`,
  };
}

/** Whether a pair lies in the box and in the cell of the table, where there are any. */
function isChosen({ feature, other }, mine, theirs) {
  const { box, classes } = matching;
  if (classes && (mine.status[feature] !== classes[0] || theirs.status[other] !== classes[1])) return false;
  if (!box) return true;
  return within(mine.mds[feature], box.x0, box.x1) && within(theirs.mds[other], box.y0, box.y1);
}

/** The strongest first, as they are ranked; each row opens both cards. */
function listMatches(root, ranked, mine, theirs) {
  const shown = ranked.filter((pair) => isChosen(pair, mine, theirs));
  const { from, to } = matching;
  const cell = (set, table, feature) =>
    h(
      "td",
      {},
      h("a", { href: `#${set}/${feature}` }, dot(table.status[feature]), String(feature)),
      " ",
      h("span", { class: "muted", dir: "auto" }, called(table, feature)),
    );
  const row = (pair) =>
    h(
      "tr",
      {},
      cell(from, mine, pair.feature),
      cell(to, theirs, pair.other),
      h(
        "td",
        { class: "number", title: pair.mutual ? "each is the other's counterpart" : null },
        `${fixed(pair.r, 2)}${pair.mutual ? " ⇄" : ""}`,
      ),
      h(
        "td",
        { class: "number" },
        h(
          "button",
          {
            type: "button",
            class: "plain",
            "aria-label": `Compare ${from} ${pair.feature} with ${to} ${pair.other}`,
            onclick: () => pinBoth(pair),
          },
          "Compare",
        ),
      ),
    );
  const head = ["", "", "r", ""].map((title, i) =>
    h(
      "th",
      { scope: "col", class: i > 1 ? "number" : null },
      [from, to, title, h("span", { class: "unseen" }, "compare")][i],
    ),
  );
  const more = h(
    "button",
    {
      type: "button",
      class: "plain",
      onclick: () => {
        matching.listed += LISTED;
        listMatches(root, ranked, mine, theirs);
      },
    },
    `${counted(shown.length - matching.listed)} more`,
  );
  root.replaceChildren(
    shown.length
      ? h(
          "table",
          { class: "matches" },
          h("thead", {}, h("tr", {}, head)),
          h("tbody", {}, shown.slice(0, matching.listed).map(row)),
        )
      : h("p", { class: "muted" }, "No counterpart lies here."),
    ...(shown.length > matching.listed ? [more] : []),
  );
}

function pinBoth({ feature, other }) {
  state.pinned = [
    [matching.from, feature],
    [matching.to, other],
  ];
  matching.reveal = true;
  location.hash = compareHash();
}

/** Counterparts of a feature in the other feature sets, for its card. */
async function counterpartsOf(set, feature) {
  const found = await load(`${set}/counterparts`);
  const others = Object.keys(found).filter((other) => found[other].feature[feature] >= 0);
  if (!Object.keys(found).length) return [];
  const tables = await Promise.all(others.map(loadTable));
  const links = others.map((other, i) => {
    const r = found[other].r[feature];
    const { chance } = found[other];
    const link = featureLink(
      other,
      found[other].feature[feature],
      tables[i],
      `r ${fixed(r, 2)}, ${r < chance ? "within " : ""}chance ${fixed(chance, 2)}`,
    );
    return h("li", {}, h("span", { class: "muted" }, other), link);
  });
  return [
    h(
      "section",
      {},
      h("h3", {}, "In other feature sets ", h("span", { class: "muted" }, "most correlated")),
      links.length ? h("ul", { class: "neighbors others" }, links) : h("p", { class: "muted" }, "None is like it."),
    ),
  ];
}
