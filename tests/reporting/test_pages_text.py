"""Report and explorer with text that breaks pages, in a browser, on a phone and on a desk."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmmono.commands.explorer.page import SCRIPTS as SCRIPT_FILES
from mmmono.core.text import one_line, printable
from mmmono.reporting.pages import render
from mmmono.reporting.report import Report, ReportFigure, ReportSection, ReportTable, write_report
from tests.nasty import NASTY
from tests.reporting.browser import chromium, opened
from tests.reporting.made_up import explored, write

SCRIPTS = ("狗在草地上奔跑", "小猫和狗", "犬が走る", "ไทยไม่มีช่องว่าง", "강아지가 달린다", "כלב רץ בפארק")
ACCENTED = ("e\u0301mu", "émeute")
WIDTHS = (390, 1440)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [one_line(text) if number % 2 else text for number, text in enumerate((*NASTY, *SCRIPTS, *ACCENTED) * 3)]
    return write(tmp_path_factory.mktemp("nasty"), [explored("raw", 60, pairs=len(captions))], captions)


def overflow(tab: Any) -> int:
    """Pixels by which a page is wider than its window."""
    return int(tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_explorer_shows_any_caption(browser: Any, explorer: Path, width: int) -> None:
    with opened(browser, explorer, "#raw/3", width=width) as tab:
        tab.wait_for_selector(".texts li")
        for feature in range(0, 29, 5):
            tab.goto(f"{explorer.as_uri()}#raw/{feature}")
            tab.wait_for_selector(f".card[data-feature='{feature}']")
            assert overflow(tab) == 0
            shown = tab.locator(".texts li > span:last-child").all_text_contents()
            stored = tab.evaluate(f"loadCard('raw', {feature}).then((card) => card.texts.map(([, , c]) => c))")
            assert shown == stored
            assert set(tab.locator(".texts li > span:last-child").evaluate_all("all => all.map((e) => e.dir)")) == {
                "auto"
            }
        assert tab.locator("script").count() == len(SCRIPT_FILES)  # none came with a caption


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("奔跑", ["狗在草地上奔跑"]),
        ("狗", ["狗在草地上奔跑", "小猫和狗"]),
        ("走る", ["犬が走る"]),
        ("ช่องว่าง", ["ไทยไม่มีช่องว่าง"]),
        ("달린다", ["강아지가 달린다"]),
        ("רץ", ["כלב רץ בפארק"]),
        ("émeu", ["émeute"]),
        ("e\u0301mu", ["e\u0301mu"]),
        ("mu", []),
        ("(parentheses)", ["(parentheses)"]),
        ("[red]markup", ["[red]markup"]),
        ("x_1^2", ["x_1^2"]),
        ("well-known", []),
        ("100% \\", []),
    ],
)
def test_search_within_any_script(browser: Any, explorer: Path, query: str, found: list[str]) -> None:
    with opened(browser, explorer) as tab:
        tab.wait_for_selector("#table tbody tr[data-feature]")
        texts = tab.evaluate(
            "(query) => load('raw/texts').then((texts) => [...searchTexts(texts, query).values()])", query
        )
        captions = tab.evaluate("load('raw/texts').then((texts) => texts.captions)")
        expected = {caption for caption in captions if any(part in caption for part in found)}
        if found:
            assert expected
        assert set(texts) == expected
        tab.locator("#search").fill(query)
        if expected:
            tab.wait_for_selector("#table mark")
            assert unicodedata.normalize("NFC", query) in tab.locator("#table mark").all_text_contents()


@pytest.mark.parametrize(
    "address", ["#%", "#raw/%zz", "#raw/99999", "#compare/raw:3,%", "#constructor", "#__proto__/1"]
)
def test_broken_addresses_open_the_page(browser: Any, explorer: Path, address: str) -> None:
    with opened(browser, explorer, address) as tab:
        tab.wait_for_selector("#table tbody tr[data-feature], #compare table")
        assert tab.locator("h1").inner_text().startswith("Features of")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    image = folder / "figure.png"
    Image.new("RGB", (700, 300), "red").save(image)
    rows: list[dict[str, object]] = [{"caption": text, "<b>|": number} for number, text in enumerate(NASTY)]
    sections = [
        ReportSection(
            "2.1", text, text, text, [ReportTable(f"t{number}", text, rows)] if number == 1 else [],
            [ReportFigure(image, text)] if number < 4 else [], note=text,
        )
        for number, text in enumerate(NASTY)
    ]  # fmt: skip
    everything = Report(
        title=" ".join(NASTY[6:14]),
        setting={text or "-": text for text in NASTY},
        differences=[(text, text, text) for text in NASTY],
        sections=sections,
        untrained={text: text for text in NASTY},
        explorer=None,
    )
    return write_report(everything, folder)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_shows_any_text(browser: Any, report: Path, width: int) -> None:
    with opened(browser, report, width=width) as tab:
        assert overflow(tab) == 0
        assert tab.locator("script").count() == 0
        assert tab.locator("img[src=x]").count() == 0
        cells = tab.locator(".results table td:first-child bdi").all_text_contents()
        assert [cell.split() for cell in cells] == [printable(text).split() for text in NASTY]


def test_pages_are_utf8_and_hold_no_nul() -> None:
    html = render("explorer.html", title="\x00 \ud800 <i>\u202e", colors="", scripts=())
    html.encode()
    assert "\x00" not in html
    assert "\u202e" not in html
    assert "&lt;i&gt;" in html
