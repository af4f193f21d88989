"use strict";
// Feature sets side by side, and pinned features' cards.

async function showCompare(root) {
  const index = explorerData.index;
  const names = index.sets.map((set) => set.name);
  const tables = await Promise.all(names.map(loadTable));
  const common = scoreRange(tables);
  const width = Math.max(
    280,
    Math.min(520, (root.clientWidth - 40) / Math.min(names.length, Math.max(1, Math.floor(root.clientWidth / 300)))),
  );
  const panels = index.sets.map((info, i) => {
    const range = state.sameScale ? common : scoreRange([tables[i]]);
    const row = (name, value) => h("tr", {}, h("th", { scope: "row" }, ...name), h("td", { class: "number" }, value));
    const { count } = tables[i];
    const part = (name) =>
      row([dot(name), worded(name)], `${counted(count[name])} (${share(count[name] / info.features)})`);
    const beyond = (key) => String(tables[i][key].filter((_, f) => significant(tables[i], key, f)).length);
    return h(
      "section",
      { "data-set": info.name },
      h("h2", {}, h("a", { href: `#${info.name}` }, info.name)),
      scoreHistogram(tables[i], info, { width, height: 170, range, bins: 48 }),
      h(
        "table",
        {},
        h(
          "tbody",
          {},
          row(["features"], counted(info.features)),
          ...STATUSES.map(part),
          row(["significant (q ≤ 0.05)"], beyond("q")),
          info.shared ? row(["shared (q ≤ 0.05)"], beyond("shared_q")) : null,
          row(["mean μ"], fixed(info.mean)),
          row(["deviation σ"], fixed(info.std)),
          row(["skewness"], fixed(info.skewness, 2)),
        ),
      ),
    );
  });
  const cards = await Promise.all(
    state.pinned.map(async ([set, feature]) => {
      const card = await loadCard(set, feature);
      const unpin = h(
        "button",
        {
          type: "button",
          class: "plain",
          "aria-label": `Unpin ${set} feature ${feature}`,
          onclick: () => togglePin(set, feature),
        },
        "Unpin",
      );
      return featureCard(set, feature, tables[names.indexOf(set)], card, {
        buttons: [h("a", { class: "plain", href: `#${set}/${feature}` }, "Open"), unpin],
        more: await counterpartsOf(set, feature),
      });
    }),
  );
  const choice = h(
    "select",
    { "aria-label": "Feature set" },
    names.map((name) => h("option", {}, name)),
  );
  const number = h("input", {
    type: "number",
    min: 0,
    placeholder: "feature",
    "aria-label": "Feature to pin",
    required: true,
  });
  const add = h(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        if (exists(choice.value, number.value)) togglePin(choice.value, Number(number.value));
      },
    },
    choice,
    " ",
    number,
    " ",
    h("button", { class: "plain" }, "Pin"),
  );
  const scale = h("input", {
    type: "checkbox",
    onchange: (event) => {
      state.sameScale = event.target.checked;
      showCompare(root);
    },
  });
  scale.checked = state.sameScale;
  const matches = h("section", { id: "counterparts", "aria-label": "Counterparts" });
  root.replaceChildren(
    h(
      "div",
      { class: "row", style: "margin-top:0" },
      h("h2", {}, "Modality dominance of each feature set"),
      h("label", {}, scale, " same scale"),
    ),
    h("div", { class: "panels" }, panels),
    matches,
    h("div", { class: "row", id: "pinned" }, h("h2", {}, "Pinned features"), add),
    cards.length
      ? h("div", { class: "pinned" }, cards)
      : h("p", { class: "muted" }, "None yet: pin one here, or on its card. The address of this page then holds them."),
  );
  await showCounterparts(matches);
  if (matching.reveal) byId("pinned").scrollIntoView({ block: "start" });
  matching.reveal = false;
}

/** Pin a feature, or unpin it. */
function togglePin(set, feature) {
  const place = state.pinned.findIndex((pin) => pin[0] === set && pin[1] === feature);
  if (place >= 0) state.pinned.splice(place, 1);
  else state.pinned.push([set, feature]);
  if (location.hash.startsWith("#compare")) location.hash = compareHash();
  else route().then(() => byId("pin")?.focus({ preventScroll: true }));
}
