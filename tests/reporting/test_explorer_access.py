"""The explorer for everybody: from any folder, by keyboard and by ear, in the dark, on paper, without motion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmmono.commands.explorer.command import escaped_address
from tests.reporting.browser import opened
from tests.reporting.made_up import FEATURES, explored, write

FOLDERS = ("with # and spaces", "50% ?a=b&c", "パンダ 狗 🐼", "كلب")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_may_have_any_name(browser: Any, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    page = write(tmp_path / folder, [explored("s#e% ä", 20)])
    assert escaped_address(page) == page.as_uri() != f"file://{page}"
    assert escaped_address(tmp_path / "plain" / "index.html") is None
    with opened(browser, page) as tab:
        tab.locator("#table tbody tr[data-feature='3'] a").click()
        tab.locator(".card[data-feature='3'] .thumbnails img").first.wait_for()
        tab.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth === 144)")


# Ratio of luminances (WCAG 2.1, 1.4.3) of each text that is shown against the nearest background behind it.
CONTRAST = """() => {
    const parts = (color) => {
        const found = color.match(/[\\d.]+/g).map(Number);
        return color.startsWith("color(") ? [...found.slice(0, 3).map((v) => 255 * v), ...found.slice(3)] : found;
    };
    const onto = ([r, g, b, a = 1], below) => [r, g, b].map((value, i) => a * value + (1 - a) * below[i]);
    const background = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) layers.push(parts(getComputedStyle(e).backgroundColor));
        return layers.reverse().reduce((below, layer) => onto(layer, below), [255, 255, 255]);
    };
    const luminance = (color) => {
        const [r, g, b] = color.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
        if (element.closest("svg, script, .unseen")) continue;
        const below = background(element);
        const [a, b] = [onto(parts(getComputedStyle(element).color), below), below].map(luminance);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.push([element.outerHTML.slice(0, 90), Math.round(100 * ratio) / 100]);
    }
    return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("where", ["#sae", "#sae/68", "#compare/sae:9,raw:3"])
def test_every_text_can_be_read_and_nothing_sticks_out(
    browser: Any, page: Path, where: str, width: int, scheme: str
) -> None:
    with opened(browser, page, where, width=width, color_scheme=scheme) as tab:
        tab.wait_for_function(
            "[...document.querySelectorAll('.card, #table td.feature')].some((e) => e.checkVisibility())"
        )
        for name in ("histogram", "scatter", "map"):
            if tab.locator("#views").is_visible():
                tab.locator(f"#views [data-view='{name}']").click()
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(CONTRAST) == []


def test_the_same_by_ear(browser: Any, page: Path) -> None:
    """What changes is said, and what has a role has a name."""
    with opened(browser, page, "#sae/5", width=1440) as tab:
        tab.locator(".card[data-feature='5']").wait_for()
        assert tab.locator("#said").inner_text().startswith("sae feature 5, ")
        assert tab.locator("#said").get_attribute("role") == tab.locator("#count").get_attribute("role") == "status"
        tab.keyboard.press("ArrowDown")
        tab.locator(".card[data-feature='6']").wait_for()
        assert tab.locator("#said").inner_text().startswith("sae feature 6, ")
        for name in ("histogram", "scatter", "map"):
            tab.locator(f"#views [data-view='{name}']").click()
            assert tab.locator(f"#views [data-view='{name}']").get_attribute("aria-pressed") == "true"
            nameless = tab.evaluate(
                """[...document.querySelectorAll("button, a, input, select, img, [role]")].filter(e =>
                    e.checkVisibility() && !(e.textContent.trim() || e.getAttribute("aria-label") || e.getAttribute("alt")
                        || e.labels?.length || e.role === "status")
                ).map(e => e.outerHTML)"""
            )
            assert nameless == []
        ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))


def test_all_that_a_mouse_can_do_a_keyboard_can(browser: Any, page: Path) -> None:
    """Tab reaches every control, each shows that it has the focus."""
    with opened(browser, page, "#sae/5", width=1440) as tab:
        tab.locator(".card[data-feature='5']").wait_for()
        tab.locator("#views [data-view='map']").click()
        tab.locator("h1").click()  # from the beginning
        reached = set()
        for _ in range(120):
            tab.keyboard.press("Tab")
            here = tab.evaluate(
                """() => { const e = document.activeElement;
                    return [e.id || e.dataset.view || e.dataset.members || e.className || e.tagName,
                            getComputedStyle(e).outlineStyle]; }"""
            )
            if here[0] == "BODY":
                break
            assert here[1] != "none", here
            reached.add(here[0])
        assert {"histogram", "scatter", "map", "search", "low", "sharedHigh", "ImgD", "silent", "sure", "shared",
                "consensus", "reset", "scroller", "pin"} <= reached  # fmt: skip
        assert "CANVAS" in reached


def test_without_motion_nothing_moves(browser: Any, page: Path) -> None:
    for motion, seconds in (("reduce", 0.0), ("no-preference", 0.12)):
        with opened(browser, page, "#sae", reduced_motion=motion) as tab:
            tab.locator("#table tbody tr[data-feature]").first.wait_for()
            duration = tab.evaluate("getComputedStyle(document.getElementById('reset')).transitionDuration")
            assert max(float(part.strip().rstrip("s")) for part in duration.split(",")) == seconds
            assert tab.evaluate("document.getAnimations().length") == 0


def test_paper_is_light_and_has_the_rows_that_a_screen_leaves_out(browser: Any, page: Path, tmp_path: Path) -> None:
    with opened(browser, page, "#sae/5", color_scheme="dark") as tab:
        tab.locator(".card[data-feature='5']").wait_for()
        tab.locator("#views [data-view='scatter']").click()
        before = tab.locator("#table tbody tr[data-feature]").count()
        tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert tab.locator("#table tbody tr[data-feature]").count() == FEATURES > before
        assert tab.evaluate("color('paper')") == "#ffffff"
        tab.emulate_media(media="print", color_scheme="dark")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not tab.locator("#filters").is_visible()
        assert tab.evaluate("(({ scrollHeight, clientHeight }) => scrollHeight - clientHeight)(byId('scroller'))") <= 1
        written = tab.pdf(path=tmp_path / "page.pdf", format="A4")
        assert written.startswith(b"%PDF")
        tab.emulate_media(media="screen", color_scheme="dark")
        tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert tab.evaluate("color('paper')") == "#131517"
        assert tab.locator("#table tbody tr[data-feature]").count() < FEATURES
