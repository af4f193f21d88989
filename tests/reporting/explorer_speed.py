"""How long the explorer's page takes to open and to filter, measured in a browser; for a test and a benchmark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.reporting.browser import opened
from tests.reporting.made_up import ANIMALS, COLORS, explored, write

FEATURES = 16_384
# What a reader does, with how long the script and the layout take, and how long until the next frame is on the screen.
ACTS = """async () => {
    const sorted = (values) => [...values].sort((a, b) => a - b);
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    const time = async (act, undo) => {
        const found = [];
        for (let i = 0; i < 15; i += 1) {
            await frame();
            const before = performance.now();
            act(i);
            document.body.offsetHeight;
            const laidOut = performance.now();
            for (const canvas of document.querySelectorAll("#view canvas")) probe.drawImage(canvas, 0, 0, 1, 1);
            probe.getImageData(0, 0, 1, 1); // asks for what is drawn, which is else done later
            found.push([laidOut - before, performance.now() - before]);
            undo?.();
        }
        const [script, drawn] = [0, 1].map((place) => sorted(found.map((times) => times[place])));
        return { script: script[0], least: drawn[0], median: drawn[7] };
    };
    const low = document.getElementById("low");
    const range = (value) => { low.value = value; low.dispatchEvent(new Event("input")); };
    const chip = () => document.querySelector("#classes button").click();
    const found = {};
    for (const view of ["histogram", "scatter", "map"]) {
        document.querySelector(`#views [data-view='${view}']`).click();
        found[`class, ${view}`] = await time(chip, chip);
        found[`range, ${view}`] = await time((i) => range(0.45 + i / 200), () => range(""));
    }
    document.querySelector("#views [data-view='histogram']").click();
    for (const title of ["MDS", "top caption"]) {
        const head = () => [...document.querySelectorAll("#table th button")].find((b) => b.textContent === title);
        found[`sort by ${title}`] = await time(() => head().click());
    }
    return found;
}"""


def page_of_many(directory: Path, features: int = FEATURES) -> Path:
    """A page of so many features, with all that a page can show of them."""
    captions = [f"{COLORS[i % 4]} {ANIMALS[i % 6]} number {i}" for i in range(300)]
    return write(directory, [explored("sae", features, 300, alike=False)], captions)


def opening(browser: Any, page: Path) -> float:
    """Seconds from the address to the table."""
    with opened(browser, page) as tab:
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.locator("#table tbody tr[data-feature]").first.wait_for()
        return time.perf_counter() - start


def filtering(tab: Any) -> dict[str, dict[str, float]]:
    """Milliseconds of what a reader does, fifteen times each.

    `script` is the least until the page is laid out; `least` and `median` are until its canvases are drawn too.
    """
    found: dict[str, dict[str, float]] = tab.evaluate(ACTS)
    return found
