"use strict";
// Which features a reader asks for. Those that are dead stay in the list unless they are left out, and say why.

const STATUSES = ["ImgD", "TextD", "CrossD", "rare", "silent"];
const STATUS_ABOUT = {
  ImgD: "dominated by images",
  TextD: "dominated by texts",
  CrossD: "neither modality dominates",
  rare: "too few pairs activate it for a class",
  silent: "no pair activates it",
};

/** The class of each feature; in place of `dead`, whether too few pairs activate it, or none. */
const statuses = (table) =>
  table.class.map((name, i) => (name === "dead" ? (table.informative[i] ? "rare" : "silent") : name));

function emptyFilter() {
  return {
    statuses: new Set(STATUSES),
    low: null, // of the dominance
    high: null,
    sharedLow: null,
    sharedHigh: null,
    place: null, // a box on the map
    sure: false,
    consensus: false,
    shared: false,
    query: "",
  };
}

/** Whether a live feature has a q-value of at most 5 %. */
function significant(table, key, feature) {
  const value = table[key][feature];
  return table.class[feature] !== "dead" && value !== null && value <= 0.05;
}

/** Whether a value lies in a range whose ends may be open; what has no value lies in the open range alone. */
function within(value, low, high) {
  if (low === null && high === null) return true;
  return value !== null && (low === null || value >= low) && (high === null || value <= high);
}

/** 1 for each feature that passes the filters. `found` has the features that a search found; null if there is none. */
function passing(table, found) {
  const { low, high, sharedLow, sharedHigh, place, sure, shared, consensus, statuses: chosen } = state.filter;
  const mask = new Uint8Array(table.class.length);
  const sharedness = "sharedness" in table ? table.sharedness : null; // sets without it hide nothing
  const onMap = place !== null && "x" in table;
  for (let i = 0; i < mask.length; i += 1) {
    mask[i] = Number(
      chosen.has(table.status[i]) &&
        within(table.mds[i], low, high) &&
        (sharedness === null || within(sharedness[i], sharedLow, sharedHigh)) &&
        (!onMap || (within(table.x[i], place.x0, place.x1) && within(table.y[i], place.y0, place.y1))) &&
        (!sure || significant(table, "q", i)) &&
        (!shared || sharedness === null || significant(table, "shared_q", i)) &&
        (!consensus || !table.consensus || table.consensus[i]) &&
        (found === null || found.has(i)),
    );
  }
  return mask;
}

/** How many features of a set have a class, and why the others have none. */
function health(info, table) {
  const { rare, silent } = table.count;
  const parts = [`${counted(info.features - rare - silent)} of ${counted(info.features)} features have a class`];
  if (rare) parts.push(`${counted(rare)} rare: fewer than ${info.minPairs} independent pairs activate them`);
  if (silent) parts.push(`${counted(silent)} silent: no pair activates them`);
  return `${parts.join(" · ")}.`;
}

/** Buttons that leave out or show features of a status. */
function statusChips(table, refresh) {
  const chosen = state.filter.statuses;
  return STATUSES.flatMap((name) => [
    h(
      "button",
      {
        type: "button",
        class: "chip",
        "data-members": name,
        "aria-pressed": String(chosen.has(name)),
        title: worded(STATUS_ABOUT[name]),
        onclick: () => {
          if (chosen.has(name)) chosen.delete(name);
          else chosen.add(name);
          refresh();
        },
      },
      dot(name),
      `${worded(name)} ${counted(table.count[name])}`,
    ),
    " ",
  ]);
}
