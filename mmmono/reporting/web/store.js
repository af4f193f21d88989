"use strict";
// Data and state. A page opened from disk may not fetch files, but it may add scripts: each assigns one value here.

const explorerData = {};
const loading = new Map();

/** The content of data/<name>.js, loaded when it is first asked for. */
function load(name) {
  if (!loading.has(name)) {
    const file = `data/${name.split("/").map(encodeURIComponent).join("/")}.js`;
    loading.set(
      name,
      new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = file;
        script.addEventListener("load", () => {
          script.remove();
          resolve(explorerData[name]);
        });
        script.addEventListener("error", () => {
          script.remove();
          loading.delete(name);
          reject(new Error(`${file} is missing beside this page`));
        });
        document.head.append(script);
      }),
    );
  }
  return loading.get(name);
}

/** The table of a feature set, with the status of each feature, and how many have each. */
async function loadTable(set) {
  const table = await load(`${set}/table`);
  if (!table.status) {
    table.status = statuses(table);
    table.count = Object.fromEntries(STATUSES.map((name) => [name, 0]));
    for (const status of table.status) table.count[status] += 1;
  }
  return table;
}

/** What the card of a feature shows. */
async function loadCard(set, feature) {
  const size = setInfo(set).cardsAFile;
  const cards = await load(`${set}/cards-${Math.floor(feature / size)}`);
  return cards[feature % size];
}

const state = {
  set: null,
  table: null,
  feature: null,
  passing: null, // which features pass the filters, 1 or 0 each
  together: [], // features that are active together with the chosen one, and their φ
  view: "histogram",
  pinned: [], // [set, feature] pairs
  sameScale: true,
  sort: { key: "feature", descending: false },
  filter: emptyFilter(),
};

/** A sentence with modalities and classes called as the dataset calls them, such as audio for image. */
function worded(sentence) {
  const names = explorerData.index.called;
  return sentence.replace(/\b(images?|texts?|img|txt|ImgD|TextD)\b/gi, (word) => {
    if (word in names) return names[word];
    if (word === "img" || word === "txt") {
      const side = { img: "image", txt: "text" }[word];
      return names[side] === side ? word : names[side];
    }
    const name = names[word.toLowerCase()] ?? word;
    return word[0] === word[0].toUpperCase() ? name[0].toUpperCase() + name.slice(1) : name;
  });
}

function setInfo(name) {
  return explorerData.index.sets.find((set) => set.name === name);
}

/** What a feature is called: its name, else its top caption. */
const called = (table, feature) => table.name?.[feature] || table.label[feature] || "";

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
