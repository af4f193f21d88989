"use strict";
// From the address to what is shown, and from what a reader does to the address.

let features = null; // the table
let views = null; // the histogram, the scatter and the map
let matches = null; // what a search found
let drawn = null; // the feature whose card is there
const RANGES = ["low", "high", "sharedLow", "sharedHigh"]; // inputs of the filter with the names of its entries
const CHECKS = ["sure", "shared", "consensus"];
let shown = 0; // counts what was asked for, so that what loads late does not overwrite what came after

async function start() {
  const index = await load("index");
  byId("made").textContent = madeOf(index.made);
  const shared = byId("shared").parentElement;
  shared.title = worded(shared.title);
  features = new FeatureTable((key) => {
    const falling = ["mds", "image", "text", "sharedness", "mono_image", "mono_text", "match"].includes(key);
    state.sort = { key, descending: state.sort.key === key ? !state.sort.descending : falling };
    refresh();
    features.scroller.scrollTop = 0;
  });
  views = new Views(refresh, (feature) => {
    location.hash = `#${state.set}/${feature}`;
  });
  listen();
  window.addEventListener("hashchange", route);
  new ResizeObserver(() => {
    if (state.set && byId("view").clientWidth) views.draw();
  }).observe(byId("view"));
  preparePaper(redraw, features);
  await route();
}

/** How the results were made, in a line. */
function madeOf(made) {
  const parts = [`${counted(made.pairs)} pairs`, `seed ${made.seed}`];
  if (made.mono) parts.push(`Mono by embedder ${made.mono}`);
  if (made.named) parts.push(`names tested by ${made.named}`);
  if (made.attribution) parts.push(`images: ${made.attribution}`);
  return parts.join(" · ");
}

function redraw() {
  if (byId("compare").hidden) {
    if (state.set) views.draw();
  } else if (byId("counterparts")) showCounterparts(byId("counterparts"));
}

async function route() {
  const target = parseHash(location.hash);
  const ticket = (shown += 1);
  byId("explore").hidden = Boolean(target.compare);
  byId("compare").hidden = !target.compare;
  if (target.compare) {
    if (target.pinned.length || !state.pinned.length) state.pinned = target.pinned;
    drawNavigation("compare");
    await showCompare(byId("compare"));
    return;
  }
  const { set, feature } = target;
  drawNavigation(set);
  const table = await loadTable(set);
  if (ticket !== shown) return;
  if (state.set !== set) {
    [state.set, state.feature, state.table, state.together] = [set, null, table, []];
    Object.assign(state.filter, { low: null, high: null, sharedLow: null, sharedHigh: null, place: null });
    features.scroller.scrollTop = 0;
    await search();
    if (ticket !== shown) {
      refresh(); // what came after has the address; the list still has the matches of another set
      return;
    }
  }
  const before = state.feature;
  if (before !== feature) [state.feature, state.together] = [feature, []];
  byId("explore").classList.toggle("open", feature !== null);
  refresh();
  if (feature === null && before !== null) features.reveal(before); // back from a card that covered the table
  await drawCard(ticket);
}

function drawNavigation(current) {
  const link = (name, href, text) => h("a", { href, "aria-current": name === current ? "page" : null }, text);
  byId("sets").replaceChildren(
    ...explorerData.index.sets.map(({ name }) => link(name, `#${name}`, name)),
    link("compare", compareHash(), state.pinned.length ? `compare (${state.pinned.length})` : "compare"),
  );
}

// The list

function refresh() {
  state.passing = passing(state.table, matches);
  features.show(state.table, matches);
  views.draw();
  drawFilters();
  if (state.feature !== null) features.reveal(state.feature);
}

function drawFilters() {
  const info = setInfo(state.set);
  const { filter, table } = state;
  const focused = document.activeElement?.dataset?.members;
  byId("classes").replaceChildren(...statusChips(table, refresh));
  if (focused) document.querySelector(`[data-members="${focused}"]`)?.focus();
  for (const id of RANGES)
    if (document.activeElement !== byId(id)) byId(id).value = filter[id] === null ? "" : filter[id];
  for (const id of CHECKS) byId(id).checked = filter[id];
  byId("consensus").parentElement.hidden = !("consensus" in table);
  byId("shared").parentElement.hidden = byId("shared-range").hidden = !info.shared;
  byId("around").hidden = filter.place === null;
  byId("count").textContent = `${counted(features.rows.length)} of ${counted(info.features)} features`;
}

async function search() {
  const { query } = state.filter;
  const set = state.set;
  if (!query.trim() || /^\s*#?\d+\s*$/.test(query)) {
    matches = null;
    return;
  }
  const texts = await load(`${set}/texts`);
  if (query === state.filter.query && set === state.set) matches = searchTexts(texts, query);
}

function listen() {
  byId("search").addEventListener("input", async (event) => {
    state.filter.query = event.target.value;
    await search();
    refresh();
    if (matches) features.scroller.scrollTop = 0;
  });
  byId("search").addEventListener("keydown", (event) => {
    const number = /^\s*#?(\d+)\s*$/.exec(event.target.value);
    if (event.key === "Enter" && number && exists(state.set, number[1]))
      location.hash = `#${state.set}/${Number(number[1])}`;
    else if (event.key === "Enter" && features.rows.length) location.hash = `#${state.set}/${features.rows[0]}`;
  });
  for (const id of RANGES)
    byId(id).addEventListener("input", (event) => {
      state.filter[id] = event.target.value === "" ? null : Number(event.target.value);
      refresh();
    });
  for (const id of CHECKS)
    byId(id).addEventListener("change", (event) => {
      state.filter[id] = event.target.checked;
      refresh();
    });
  byId("reset").addEventListener("click", reset);
  byId("around").addEventListener("click", () => {
    state.filter.place = null;
    refresh();
  });
  document.addEventListener("keydown", keys);
}

function reset() {
  state.filter = emptyFilter();
  byId("search").value = "";
  matches = null;
  refresh();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("explore").hidden) return;
  const typing = event.target.matches("input:not([type=checkbox]), select");
  if (event.key === "Escape") {
    reset();
    if (typing) event.target.blur();
    return;
  }
  const upDown = event.key === "ArrowDown" || event.key === "ArrowUp";
  if (typing && !(upDown && event.target.id === "search")) return;
  if (!upDown && byId("card").contains(event.target) && event.key.length > 1) return; // the card scrolls by itself
  const page = Math.max(1, Math.floor(features.scroller.clientHeight / ROW) - 2);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key in steps) {
    const next = features.neighbor(state.feature, steps[event.key]);
    event.preventDefault();
    if (next !== null && next !== state.feature) location.replace(`#${state.set}/${next}`); // no history of each step
  } else if (event.key === "/") {
    event.preventDefault();
    byId("search").focus();
    byId("search").select();
  } else if (event.key === "p" && state.feature !== null) togglePin(state.set, state.feature);
}

// The card

async function drawCard(ticket) {
  const { set, feature } = state;
  if (feature === null) {
    byId("card").replaceChildren(
      h(
        "p",
        { class: "hint" },
        "Choose a feature: in the table, or by a range of scores, a class, a word of its captions.",
      ),
    );
    return;
  }
  let card, more;
  try {
    [card, more] = await Promise.all([loadCard(set, feature), counterpartsOf(set, feature)]);
  } catch (error) {
    byId("card").replaceChildren(h("p", { class: "hint", role: "alert" }, error.message));
    return;
  }
  if (ticket !== shown) return;
  state.together = card.together;
  if (state.view === "map") views.draw();
  const step = (offset, text, name) => {
    const next = features.neighbor(feature, offset);
    return h(
      "a",
      {
        class: "plain",
        href: `#${set}/${next ?? feature}`,
        "aria-label": name,
        "aria-disabled": next === null || next === feature ? "true" : null,
      },
      text,
    );
  };
  const isPinned = state.pinned.some((pin) => pin[0] === set && pin[1] === feature);
  const pin = h(
    "button",
    {
      type: "button",
      class: "plain",
      id: "pin",
      "aria-pressed": String(isPinned),
      onclick: () => togglePin(set, feature),
    },
    isPinned ? "Pinned" : "Pin",
  );
  const back = h("a", { class: "plain back", href: `#${set}` }, "← Table");
  byId("card").replaceChildren(
    featureCard(set, feature, state.table, card, {
      buttons: [back, step(-1, "↑", "Previous feature"), step(1, "↓", "Next feature"), pin],
      more,
    }),
  );
  const name = `${set}/${feature}`;
  if (drawn !== name) {
    byId("card").scrollTop = 0;
    const { table } = state;
    say(
      `${set} feature ${feature}, ${worded(table.status[feature])}, MDS ${fixed(table.mds[feature], 2)}. ${called(table, feature)}`,
    );
  }
  drawn = name;
  document.title = `${set} feature ${feature} · ${explorerData.index.title}`;
}

start();
