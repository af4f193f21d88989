"use strict";
// Data and state. A page opened from disk may not fetch files, but it may add scripts: each assigns one value here.

const explorerData = {};
const loading = new Map();

/** The content of data/<name>.js, loaded when it is first asked for. */
function load(name) {
  if (!loading.has(name)) {
    loading.set(
      name,
      new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.addEventListener("load", () => {
          script.remove();
          resolve(explorerData[name]);
        });
        script.addEventListener("error", () => {
          script.remove();
          loading.delete(name);
          reject(new Error(`data/${name}.js is missing beside this page`));
        });
        document.head.append(script);
      }),
    );
  }
  return loading.get(name);
}

/** What the card of a feature shows. */
async function loadCard(set, feature) {
  const size = setInfo(set).cardsAFile;
  const cards = await load(`${set}/cards-${Math.floor(feature / size)}`);
  return cards[feature % size];
}

const state = {
  set: null,
  feature: null,
  pinned: [], // [set, feature] pairs
  sameScale: true,
  sort: { key: "feature", descending: false },
  filter: emptyFilter(),
};

function emptyFilter() {
  return {
    classes: new Set(["ImgD", "TextD", "CrossD", "dead"]),
    low: null,
    high: null,
    sure: false,
    consensus: false,
    shared: false,
    query: "",
  };
}

function setInfo(name) {
  return explorerData.index.sets.find((set) => set.name === name);
}

/** Route: #sae, #sae/123, #compare, #compare/sae:12,ncl:40. */
function parseHash(hash) {
  const [place, rest] = decoded(hash.replace(/^#/, "")).split("/");
  if (place === "compare") {
    const pinned = (rest || "")
      .split(",")
      .map((item) => item.split(":"))
      .filter(([set, number]) => exists(set, number));
    return { compare: true, pinned: pinned.map(([set, number]) => [set, Number(number)]) };
  }
  const set = setInfo(place) ? place : explorerData.index.sets[0].name;
  return { set, feature: exists(set, rest) ? Number(rest) : null };
}

function decoded(address) {
  try {
    return decodeURIComponent(address);
  } catch {
    return address; // somebody typed a percent sign
  }
}

function exists(set, number) {
  const info = setInfo(set);
  return Boolean(info) && /^\d+$/.test(number || "") && Number(number) < info.features;
}

const compareHash = () =>
  `#compare${state.pinned.length ? "/" : ""}${state.pinned.map((pin) => pin.join(":")).join(",")}`;

// Search: features one of whose top captions holds every word, as whole words or their beginnings; in scripts that put
// no spaces between words, anywhere. Composed and decomposed letters are the same.

const UNSPACED = ["Han", "Hira", "Kana", "Hang", "Bopo", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"]
  .map((script) => `\\p{scx=${script}}`)
  .join("");
const BEGINS = `(?<![\\p{L}\\p{N}\\p{M}])|(?<=[${UNSPACED}])`;

function searchPattern(query) {
  const words = query.normalize().trim().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  return words.map((word) => {
    const letters = word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
    return new RegExp(new RegExp(`^[${UNSPACED}]`, "u").test(word) ? letters : `(?:${BEGINS})${letters}`, "iu");
  });
}

/** From features to their strongest caption that matches. */
function searchTexts(texts, query) {
  const patterns = searchPattern(query);
  const hits = texts.captions.map((caption) => patterns.every((pattern) => pattern.test(caption.normalize())));
  const found = new Map();
  texts.features.forEach((numbers, feature) => {
    const first = numbers.find((number) => hits[number]);
    if (first !== undefined) found.set(feature, texts.captions[first]);
  });
  return found;
}

// DOM

/** An element with properties (on…: listeners, others: attributes) and children. */
function h(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const dot = (members) => h("span", { class: `dot ${members}`, "aria-hidden": "true" });

// Numbers

const fixed = (value, digits = 3) =>
  value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
function share(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 0.0005 ? "<0.1 %" : `${(100 * value).toFixed(1)} %`;
}
function small(value) {
  if (value === null || value === undefined) return "–";
  return value < 0.001 ? "<0.001" : value.toFixed(3);
}
const activation = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));
