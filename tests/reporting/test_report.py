"""The report's page and table files, on results made up here."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from mmmono.core.artifacts import Artifacts
from mmmono.reporting.escaping import latex
from mmmono.reporting.formats import points
from mmmono.reporting.report import Report, ReportFigure, ReportSection, ReportTable, write_report
from tests.reporting.browser import chromium, opened

ROWS: list[dict[str, object]] = [
    {"feature set": "sae", "class": "ImgD", "count": 1234, "drop [95 %]": "-1.5 [-2.0, +0.1]", "paper Δ": "-2.6"},
    {"feature set": "a|b_c", "class": "", "count": 7, "drop [95 %]": "", "paper Δ": "σ ≤ 5 & <b>"},
]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    image = tmp_path / "figure.png"
    Image.new("RGB", (1440, 500), "red").save(image)
    artifacts = Artifacts(tmp_path / "artifacts")
    made = artifacts.build("results", "mds-it", {"k": 32, "text": "<script>"}, lambda folder: None)
    table = ReportTable("mds", "Counts", ROWS, {"count": ["../explorer/index.html#sae/3", ""]})
    full = ReportSection(
        "2.1", "Dominance", "Which?", "make section-2.1", [table], [ReportFigure(image, "Figure 4: scores")], [made]
    )
    empty = ReportSection("4.2", "Adversarial samples", "Which?", "make section-4.2")
    beyond = ReportSection("+", "Is it found?", "Which?", "make validate")
    return Report(
        title="model on data (val)",
        setting={"model": "model, 8 dimensions"},
        differences=[("model", "CLIP RN50", "model")],
        sections=[full, empty, beyond],
        untrained={"ncl": "make appendix-a.1 FEATURES=ncl"},
        explorer="../explorer/index.html",
    )


def test_the_page_holds_everything_and_says_what_is_missing(report: Report, tmp_path: Path) -> None:
    page = write_report(report, tmp_path)
    html = page.read_text()
    assert [section.number for section in report.missing] == ["4.2", "+"]
    for expected in (
        "make section-4.2", "make validate", "make appendix-a.1 FEATURES=ncl", "CLIP RN50", "Figure 4: scores", "1,234",
        'href="../explorer/index.html#sae/3"', "σ ≤ 5 &amp; &lt;b&gt;", "&lt;script&gt;", 'id="section-is-it-found"',
    ):  # fmt: skip
        assert expected in html, expected
    assert "<script" not in html
    assert "http" not in html
    image = re.search(r'src="data:image/png;base64,([^"]+)"', html)
    assert image is not None
    assert base64.b64decode(image[1]) == report.sections[0].figures[0].file.read_bytes()
    [versions] = report.versions
    assert versions == json.loads((report.sections[0].made_by[0].path / "versions.json").read_text())
    assert f"torch <b>{versions['torch']}</b>" in html
    assert page.read_text() == write_report(report, tmp_path).read_text()


def test_tables_as_markdown_and_latex(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    lines = (tmp_path / "tables" / "mds.md").read_text().splitlines()
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
    assert cells[0] == list(ROWS[0])
    assert cells[1] == ["---", "---", "---:", "---", "---"]
    assert cells[2] == ["sae", "ImgD", "1,234", "-1.5 [-2.0, +0.1]", "-2.6"]
    assert cells[3][0] == r"a\|b_c"
    tex = (tmp_path / "tables" / "mds.tex").read_text()
    assert r"\begin{tabular}{llrll}" in tex
    assert r"\caption{Counts}" in tex
    assert r"\label{tab:mds}" in tex
    assert r"sae & ImgD & 1,234 & -1.5 [-2.0, +0.1] & -2.6 \\" in tex
    assert r"a\textbar{}b\_c &  & 7 &  & $\sigma$ $\leq$ 5 \& \textless{}b\textgreater{} \\" in tex
    assert tex.isascii()


def test_latex_says_what_the_text_says() -> None:
    assert latex("50 % of $x_1 & {y}^2") == r"50 \% of \$x\_1 \& \{y\}\textasciicircum{}2"
    assert latex("a\\b") == r"a\textbackslash{}b"


def test_the_papers_numbers_stand_beside() -> None:
    change = pd.Series({"drop": 0.015, "drop_low": -0.02, "drop_high": 0.05})
    assert points(dict(change), "drop") == "+1.5 [-2.0, +5.0]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser: Any, report: Report, tmp_path: Path, width: int, scheme: str) -> None:
    page = write_report(report, tmp_path)
    with opened(browser, page, width=width, color_scheme=scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth === 1440)")
        figure = tab.locator("figure img").bounding_box()
        assert figure["width"] > 7 * 96  # as wide as on paper, so that 8 points stay 8 points: it scrolls sideways
        tab.get_by_role("link", name="2.1 Dominance").click()
        assert tab.url.endswith("#section-2.1")
        if scheme == "light":
            tab.emulate_media(media="print")
            assert not tab.locator("nav").is_visible()
