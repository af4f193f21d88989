"use strict";
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

/** A caption's text, with the beginnings of words that a query names marked. */
function marked(text, query) {
  const patterns = searchPattern(query);
  if (!patterns) return [text];
  const caption = text.normalize(); // as searchTexts has it
  const spans = [];
  for (const pattern of patterns) {
    const match = pattern.exec(caption);
    if (match) spans.push([match.index, match.index + match[0].length]);
  }
  spans.sort((a, b) => a[0] - b[0]);
  const parts = [];
  let end = 0;
  for (const [from, to] of spans) {
    if (from < end) continue;
    parts.push(caption.slice(end, from), h("mark", {}, caption.slice(from, to)));
    end = to;
  }
  return [...parts, caption.slice(end)];
}
