"use strict";
// Elements of the page, and how numbers are written.

const byId = (id) => document.getElementById(id);

/** An element with properties (on…: listeners, others: attributes) and children. */
function h(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const name in attributes) {
    const value = attributes[name];
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const dot = (kind) => h("span", { class: `dot ${kind}`, "aria-hidden": "true" });

/** Say something to those who hear the page. */
function say(text) {
  if (byId("said").textContent !== text) byId("said").textContent = text;
}

/** A color of the style sheet, which knows light, dark and print. */
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

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
const counted = (value) => value.toLocaleString("en");

/** Round values within a range, about so many. */
function ticks(from, to, count) {
  const raw = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const digits = Math.max(0, -Math.floor(Math.log10(step)) + (String(step / power).includes(".") ? 1 : 0));
  const found = [];
  for (let i = Math.ceil(from / step); i * step <= to + 1e-12; i += 1)
    found.push({ value: i * step, label: fixed(i * step, digits) });
  return found;
}
