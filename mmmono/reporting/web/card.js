"use strict";
// A feature's card.

/** The card of a feature: what is known of it, what activates it, what is like it. */
function featureCard(set, feature, table, card, tools) {
  const info = setInfo(set);
  const status = table.status[feature];
  const query = set === state.set ? state.filter.query : "";
  const fact = (name, value, about) =>
    h("div", { title: worded(about) }, h("dt", {}, worded(name)), h("dd", {}, value));
  const interval = [table.low, table.high].map((bounds) => fixed(bounds[feature], 2)).join(", ");
  const facts = h(
    "dl",
    { class: "facts" },
    fact(
      "MDS",
      table.mds[feature] === null ? "–" : `${fixed(table.mds[feature])} [${interval}]`,
      "Modality dominance score with its 95 % interval over groups of pairs",
    ),
    fact(
      "p, q",
      `${small(table.p[feature])}, ${small(table.q[feature])}`,
      "Of the null that image and text are exchangeable within pairs; q controls the false discovery rate",
    ),
    fact(
      "informative pairs",
      counted(table.informative[feature]),
      "Pairs in which either side is not 0: those that the score averages",
    ),
    fact(
      "active on images",
      share(table.image[feature]),
      "Share of images with an activation on the side of 0 that these samples are of",
    ),
    fact(
      "active on texts",
      share(table.text[feature]),
      "Share of texts with an activation on the side of 0 that these samples are of",
    ),
    fact(
      "energy",
      share(table.energy[feature]),
      "Share in the energy of all features, Σ z², mean over images and texts",
    ),
    info.shared
      ? fact(
          "shared, q",
          `${fixed(table.sharedness[feature], 2)}, ${small(table.shared_q[feature])}`,
          "Correlation across pairs of image and text, and its q-value against broken pairs",
        )
      : null,
    info.mono
      ? fact(
          "Mono img, txt",
          `${fixed(table.mono_image[feature], 2)}, ${fixed(table.mono_text[feature], 2)}`,
          "Monosemanticity on its top images and on its top texts, minus that of random ones",
        )
      : null,
    table.consensus
      ? fact(
          "other seeds",
          `${table.consensus[feature] ? "found in all" : "not in all"}, r ${fixed(table.match[feature], 2)}`,
          "Whether the dictionaries of all other seeds have it too, and its smallest correlation with its matches there",
        )
      : null,
    table.name
      ? fact(
          "name",
          table.name[feature] || "unnamed",
          "What tells where it is active, of its nearest words or by a language model, chosen on training pairs; unnamed if it does not tell on held-out pairs",
        )
      : null,
    table.name
      ? fact(
          "name detects img, txt",
          `${fixed(table.auroc_image[feature], 2)}, ${fixed(table.auroc_text[feature], 2)}`,
          "AUROC of active against other held-out samples, by the likeness of their captions to the name; 0.5 by chance",
        )
      : null,
  );
  const thumbnails = explorerData.index.thumbnails;
  const images = card.images.map(([row, value, caption]) =>
    h(
      "li",
      { title: caption, dir: "auto" },
      thumbnails
        ? h("img", {
            src: `thumbnails/${Math.floor(row / 1000)}/${row}.webp`,
            alt: caption,
            loading: "lazy",
            width: 144,
            height: 144,
            decoding: "async",
          })
        : h("span", { class: "words" }, caption),
      h("span", {}, activation(value)),
    ),
  );
  const negative = [...card.images, ...card.texts].some(([, value]) => value < 0);
  const side = () =>
    negative
      ? h(
          "span",
          { class: "muted", title: "Its negative activations hold most of its energy" },
          " on its negative side",
        )
      : null;
  const strongest = card.texts.length ? card.texts[0][1] : 1;
  const texts = card.texts.map(([, value, caption]) =>
    h(
      "li",
      {},
      h("span", { class: "value" }, h("i", { style: `width:${(100 * value) / strongest}%` }), activation(value)),
      h("span", { dir: "auto" }, ...marked(caption, query)),
    ),
  );
  const linked = (list) =>
    list.map(([other, likeness]) => h("li", {}, featureLink(set, other, table, fixed(likeness, 2))));
  const [near, together] = [linked(card.neighbors), linked(card.together)];
  return h(
    "div",
    { class: "card", "data-set": set, "data-feature": feature },
    h(
      "div",
      { class: "card-head" },
      h(
        "h2",
        { tabindex: "-1" },
        dot(status),
        `${set} feature ${feature}`,
        h("span", { class: "muted", style: "font-weight:400" }, ` ${worded(status)}`),
      ),
      ...tools.buttons,
    ),
    deadNote(info, table, feature),
    facts,
    "probability_ImgD" in table && table.class[feature] !== "dead" ? probabilities(table, feature) : null,
    h(
      "section",
      {},
      h("h3", {}, worded("Images that activate it most"), side()),
      images.length
        ? h("ul", { class: "thumbnails" }, images)
        : h("p", { class: "muted" }, worded("No image activates it.")),
    ),
    h(
      "section",
      {},
      h("h3", {}, worded("Texts that activate it most"), side()),
      texts.length ? h("ol", { class: "texts" }, texts) : h("p", { class: "muted" }, worded("No text activates it.")),
    ),
    h(
      "section",
      {},
      h("h3", {}, "Activations ", h("span", { class: "muted" }, "other than 0")),
      card.histogram ? activationHistogram(card.histogram) : h("p", { class: "muted" }, "It is silent."),
    ),
    h(
      "section",
      {},
      h("h3", {}, "Nearest features ", h("span", { class: "muted" }, `by ${info.alikeBy}`)),
      near.length ? h("ul", { class: "neighbors" }, near) : h("p", { class: "muted" }, "None is like it."),
    ),
    h(
      "section",
      {},
      h(
        "h3",
        { title: "φ: correlation of being active, each modality by itself; 0 for features that do not go together" },
        "Active together ",
        h("span", { class: "muted" }, `φ over ${counted(info.alikePairs)} pairs`),
      ),
      together.length
        ? h("ul", { class: "neighbors" }, together)
        : h("p", { class: "muted" }, "None is active with it more than chance gives."),
    ),
    ...tools.more,
  );
}

/** A link to a feature: its number, a number beside it, and what it is called. */
function featureLink(set, feature, table, beside) {
  return h(
    "a",
    { href: `#${set}/${feature}` },
    dot(table.status[feature]),
    `${feature} `,
    h("span", { class: "muted" }, beside),
    h("small", { dir: "auto" }, called(table, feature) || worded("no text activates it")),
  );
}

/** What to think of the scores of a feature that has no class; null for others. */
function deadNote(info, table, feature) {
  const status = table.status[feature];
  if (status === "silent") return h("p", { class: "note" }, "Silent: no pair activates it. It has no scores.");
  if (status !== "rare") return null;
  const groups = table.groups[feature];
  return h(
    "p",
    { class: "note" },
    `Rare: ${counted(groups)} independent ${groups === 1 ? "pair activates" : "pairs activate"} it, fewer than ${info.minPairs}. It has no class, and its scores say little.`,
  );
}

/** In which share of resamples of the pairs it is of each class, as a bar and in numbers. */
function probabilities(table, feature) {
  const parts = ["ImgD", "CrossD", "TextD"].map((name) => [name, table[`probability_${name}`][feature]]);
  if (parts.some(([, value]) => value === null)) return null;
  const words = parts.map(([name, value]) => `${worded(name)}\u00a0${(100 * value).toFixed(0)}\u00a0%`);
  return h(
    "div",
    {
      class: "probabilities",
      title: "Share of resamples of the pairs, with borders redrawn, in which it is of each class",
    },
    h("span", { class: "muted" }, "class if the pairs were drawn again: "),
    words.join(" · "),
    h(
      "div",
      { class: "bar", "aria-hidden": "true" },
      parts.map(([name, value]) => h("i", { class: name, style: `width:${100 * value}%` })),
    ),
  );
}
