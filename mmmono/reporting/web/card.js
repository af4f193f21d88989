"use strict";
// A feature's card.

/** The card of a feature: what is known of it, what activates it, what is like it. */
function featureCard(set, feature, table, card, tools) {
  const info = setInfo(set);
  const members = table.class[feature];
  const query = set === state.set ? state.filter.query : "";
  const fact = (name, value, about) => h("div", { title: about }, h("dt", {}, name), h("dd", {}, value));
  const error = table.error[feature];
  const facts = h(
    "dl",
    { class: "facts" },
    fact(
      "MDS",
      `${fixed(table.mds[feature])}${error === null ? "" : ` ± ${fixed(1.96 * error)}`}`,
      "Modality dominance score with its 95 % interval over pairs",
    ),
    fact(
      "p, q",
      `${small(table.p[feature])}, ${small(table.q[feature])}`,
      "Of the null that image and text are exchangeable within pairs; q controls the false discovery rate",
    ),
    fact(
      "informative pairs",
      String(table.informative[feature]),
      "Pairs in which either side is not 0: those that the score averages",
    ),
    fact("active on images", share(table.image[feature]), "Share of images with a positive activation"),
    fact("active on texts", share(table.text[feature]), "Share of texts with a positive activation"),
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
    table.name
      ? fact(
          "name",
          table.name[feature] || "unnamed",
          "Of its nearest words, the one that told best on training pairs where it is active; unnamed if it does not on held-out pairs",
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
  const near = card.neighbors.map(([neighbor, cosine]) =>
    h(
      "li",
      {},
      h(
        "a",
        { href: tools.href(set, neighbor) },
        dot(table.class[neighbor]),
        `${neighbor} `,
        h("span", { class: "muted" }, fixed(cosine, 2)),
        h("small", { dir: "auto" }, table.label[neighbor] || "no text activates it"),
      ),
    ),
  );
  return h(
    "div",
    { class: "card", "data-set": set, "data-feature": feature },
    h(
      "div",
      { class: "card-head" },
      h(
        "h2",
        { tabindex: "-1" },
        dot(members),
        `${set} feature ${feature}`,
        h("span", { class: "muted", style: "font-weight:400" }, ` ${members}`),
      ),
      ...tools.buttons,
    ),
    facts,
    h(
      "section",
      {},
      h("h3", {}, "Images that activate it most", side()),
      images.length ? h("ul", { class: "thumbnails" }, images) : h("p", { class: "muted" }, "No image activates it."),
    ),
    h(
      "section",
      {},
      h("h3", {}, "Texts that activate it most", side()),
      texts.length ? h("ol", { class: "texts" }, texts) : h("p", { class: "muted" }, "No text activates it."),
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
  );
}
