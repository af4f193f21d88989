"use strict";
// From the address to what is shown, and from what a reader does to the address.

const $ = (id) => document.getElementById(id);
let features = null; // the table
let matches = null; // what a search found
let drawn = null; // the feature whose card is there
let shown = 0; // counts what was asked for, so that what loads late does not overwrite what came after

async function start() {
  const index = await load("index");
  $("made").textContent =
    `${index.made.pairs.toLocaleString("en")} pairs · seed ${index.made.seed}${index.made.embedder ? ` · Mono by embedder ${index.made.embedder}` : ""}${index.made.names ? ` · names tested by ${index.made.names}` : ""}${index.made.attribution ? ` · images: ${index.made.attribution}` : ""}`;
  features = new FeatureTable((key) => {
    const falling = ["mds", "image", "text", "sharedness", "mono_image", "mono_text", "match"].includes(key);
    state.sort = { key, descending: state.sort.key === key ? !state.sort.descending : falling };
    refresh();
    features.scroller.scrollTop = 0;
  });
  listen();
  window.addEventListener("hashchange", route);
  new ResizeObserver(() => {
    if (state.set) drawDistribution();
  }).observe($("distribution"));
  await route();
}

async function route() {
  const target = parseHash(location.hash);
  const ticket = (shown += 1);
  $("explore").hidden = Boolean(target.compare);
  $("compare").hidden = !target.compare;
  if (target.compare) {
    if (target.pinned.length || !state.pinned.length) state.pinned = target.pinned;
    drawNavigation("compare");
    await showCompare($("compare"));
    return;
  }
  const { set, feature } = target;
  drawNavigation(set);
  const table = await load(`${set}/table`);
  if (ticket !== shown) return;
  if (state.set !== set) {
    [state.set, state.feature, state.filter.low, state.filter.high] = [set, null, null, null];
    state.table = table;
    features.scroller.scrollTop = 0;
    await search();
  }
  const before = state.feature;
  state.feature = feature;
  $("explore").classList.toggle("open", feature !== null);
  refresh();
  if (feature === null && before !== null) features.reveal(before); // back from a card that covered the table
  await drawCard(ticket);
}

function drawNavigation(current) {
  const link = (name, href, text) => h("a", { href, "aria-current": name === current ? "page" : null }, text);
  $("sets").replaceChildren(
    ...explorerData.index.sets.map(({ name }) => link(name, `#${name}`, name)),
    link("compare", compareHash(), state.pinned.length ? `compare (${state.pinned.length})` : "compare"),
  );
}

// The list

function refresh() {
  features.show(state.table, matches);
  drawDistribution();
  drawFilters();
  if (state.feature !== null) features.reveal(state.feature);
}

function drawDistribution() {
  const info = setInfo(state.set);
  const { low, high } = state.filter;
  const width = Math.max(260, $("distribution").clientWidth);
  const svg = scoreHistogram(state.table, info, {
    width,
    height: 150,
    range: scoreRange([state.table]),
    chosen: (i) => passes(state.table, i, matches),
    low,
    high,
  });
  brush(svg);
  $("about").textContent =
    `Modality dominance score (0 text, 1 image): μ = ${fixed(info.mean)} (line), σ = ${fixed(info.std)}; dotted: ½. Drag to choose a range.`;
  $("distribution").replaceChildren(svg, $("about"));
}

function brush(svg) {
  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const box = svg.getBoundingClientRect();
    const at = (e) => svg.toScore(((e.clientX - box.left) / box.width) * svg.viewBox.baseVal.width);
    const first = at(event),
      from = event.clientX;
    const move = (e) => {
      const now = at(e);
      const far = Math.abs(e.clientX - from) > 4;
      [state.filter.low, state.filter.high] = far
        ? [Math.min(first, now), Math.max(first, now)].map((v) => Number(v.toFixed(4)))
        : [null, null];
      refresh();
    };
    const up = (e) => {
      if (e.type === "pointerup") move(e);
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", up);
      window.removeEventListener("pointercancel", up);
    };
    event.preventDefault();
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", up);
    window.addEventListener("pointercancel", up);
  });
}

function drawFilters() {
  const info = setInfo(state.set);
  const { classes, low, high, sure, shared, consensus } = state.filter;
  const focused = document.activeElement?.dataset?.members;
  $("classes").replaceChildren(
    ...["ImgD", "TextD", "CrossD", "dead"].flatMap((name) => [
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "data-members": name,
          "aria-pressed": String(classes.has(name)),
          onclick: () => {
            if (classes.has(name)) classes.delete(name);
            else classes.add(name);
            refresh();
          },
        },
        dot(name),
        `${name} ${info[name]}`,
      ),
      " ",
    ]),
  );
  if (focused) document.querySelector(`[data-members="${focused}"]`)?.focus();
  for (const [id, value] of [
    ["low", low],
    ["high", high],
  ])
    if (document.activeElement !== $(id)) $(id).value = value === null ? "" : value;
  $("sure").checked = sure;
  $("consensus").checked = consensus;
  $("consensus").parentElement.hidden = !("consensus" in state.table);
  $("shared").checked = shared;
  $("shared").parentElement.hidden = !info.shared;
  $("count").textContent =
    `${features.rows.length.toLocaleString("en")} of ${info.features.toLocaleString("en")} features`;
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
  $("search").addEventListener("input", async (event) => {
    state.filter.query = event.target.value;
    await search();
    refresh();
    if (matches) features.scroller.scrollTop = 0;
  });
  $("search").addEventListener("keydown", (event) => {
    const number = /^\s*#?(\d+)\s*$/.exec(event.target.value);
    if (event.key === "Enter" && number && exists(state.set, number[1]))
      location.hash = `#${state.set}/${Number(number[1])}`;
    else if (event.key === "Enter" && features.rows.length) location.hash = `#${state.set}/${features.rows[0]}`;
  });
  for (const id of ["low", "high"])
    $(id).addEventListener("input", (event) => {
      state.filter[id] = event.target.value === "" ? null : Number(event.target.value);
      refresh();
    });
  for (const id of ["sure", "shared", "consensus"])
    $(id).addEventListener("change", (event) => {
      state.filter[id] = event.target.checked;
      refresh();
    });
  $("reset").addEventListener("click", reset);
  document.addEventListener("keydown", keys);
}

function reset() {
  state.filter = emptyFilter();
  $("search").value = "";
  matches = null;
  refresh();
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("explore").hidden) return;
  const typing = event.target.matches("input:not([type=checkbox]), select");
  if (event.key === "Escape") {
    reset();
    if (typing) event.target.blur();
    return;
  }
  const upDown = event.key === "ArrowDown" || event.key === "ArrowUp";
  if (typing && !(upDown && event.target.id === "search")) return;
  if (!upDown && $("card").contains(event.target) && event.key.length > 1) return; // the card scrolls by itself
  const page = Math.max(1, Math.floor(features.scroller.clientHeight / ROW) - 2);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  if (event.key in steps) {
    const next = features.neighbor(state.feature, steps[event.key]);
    event.preventDefault();
    if (next !== null && next !== state.feature) location.replace(`#${state.set}/${next}`); // no history of each step
  } else if (event.key === "/") {
    event.preventDefault();
    $("search").focus();
    $("search").select();
  } else if (event.key === "p" && state.feature !== null) togglePin(state.set, state.feature);
}

// The card

async function drawCard(ticket) {
  const { set, feature } = state;
  if (feature === null) {
    $("card").replaceChildren(
      h(
        "p",
        { class: "hint" },
        "Choose a feature: in the table, or by a range of scores, a class, a word of its captions.",
      ),
    );
    return;
  }
  let card;
  try {
    card = await loadCard(set, feature);
  } catch (error) {
    $("card").replaceChildren(h("p", { class: "hint", role: "alert" }, error.message));
    return;
  }
  if (ticket !== shown) return;
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
  $("card").replaceChildren(
    featureCard(set, feature, state.table, card, {
      href: (s, f) => `#${s}/${f}`,
      buttons: [back, step(-1, "↑", "Previous feature"), step(1, "↓", "Next feature"), pin],
    }),
  );
  const name = `${set}/${feature}`;
  if (drawn !== name) $("card").scrollTop = 0;
  drawn = name;
  document.title = `${set} feature ${feature} · ${explorerData.index.title}`;
}

start();
