"""The report: one page with every table and figure there is, in the order of the paper, and what made them.

index.html              the page, figures within it
tables/<name>.md        each table as Markdown
tables/<name>.tex       and as LaTeX (booktabs)
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from PIL import Image

from mmmono.core.artifacts import Artifact
from mmmono.reporting.escaping import latex, markdown, markdown_table
from mmmono.reporting.pages import colors_css, render, web_file
from mmmono.reporting.rows import Rows
from mmmono.reporting.style import DPI
from mmmono.reporting.tables import cell

PIXELS_AN_INCH = 108  # of a figure, whose text has 9 points


@dataclass(frozen=True)
class ReportTable:
    """A table of a section.

    Attributes:
        name: of its files.
        title: above it.
        rows: as printed, all with the same columns.
        links: addresses by column, one a row; empty where there is none.
    """

    name: str
    title: str
    rows: Rows
    links: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.rows[0]) if self.rows else []

    def numeric(self, column: str) -> bool:
        """Whether a column's entries are numbers, to be set flush right."""
        return all(isinstance(row[column], int | float) or row[column] in ("", None) for row in self.rows)

    def to_markdown(self) -> str:
        """The table for a pull request or a notebook."""
        rows = [[cell(value) for value in row.values()] for row in self.rows]
        table = markdown_table(self.columns, rows, map(self.numeric, self.columns))
        return f"**{markdown(self.title)}**\n\n{table}\n"

    def to_latex(self) -> str:
        """The table for a paper; needs the package booktabs."""
        frame = pd.DataFrame(
            [[latex(cell(value)) for value in row.values()] for row in self.rows],
            columns=[latex(column) for column in self.columns],
        )
        align = "".join("r" if self.numeric(column) else "l" for column in self.columns)
        return frame.to_latex(
            index=False, escape=False, column_format=align, caption=latex(self.title), label=f"tab:{self.name}"
        )


@dataclass(frozen=True)
class ReportFigure:
    """A figure of a section: a PNG file and what stands below it."""

    file: Path
    caption: str

    @property
    def width(self) -> int:
        """CSS pixels to show it at, for text of the page's size."""
        with Image.open(self.file) as image:
            return round(PIXELS_AN_INCH * image.width / image.info.get("dpi", (DPI,))[0])

    @property
    def inline(self) -> str:
        """The file as an address that holds its content."""
        return "data:image/png;base64," + base64.b64encode(self.file.read_bytes()).decode()


@dataclass(frozen=True)
class ReportSection:
    """A section of the paper, as far as its results are there.

    Attributes:
        number, title: of the section; + where the paper has none.
        about: what it asks.
        command: makes what is missing.
        tables, figures: its results; none where they are missing.
        made_by: the results they were read from.
        note: how the paper's setting differs, where its numbers stand beside.
        basis: what the results rest on, a sentence each.
        others: settings of results that are there but do not belong to the page.
        absent: parts that are missing although the rest is there, with the command that makes them.
    """

    number: str
    title: str
    about: str
    command: str
    tables: Sequence[ReportTable] = ()
    figures: Sequence[ReportFigure] = ()
    made_by: Sequence[Artifact] = ()
    note: str | None = None
    basis: Sequence[str] = ()
    others: Sequence[str] = ()
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """Its address on the page."""
        name = self.title if self.number == "+" else self.number
        return "section-" + "-".join(re.findall(r"[a-z0-9.]+", name.lower()))


@dataclass(frozen=True)
class Report:
    """What the page says.

    Attributes:
        title: model, dataset and split.
        setting: how the features were made, by name.
        differences: what differs from the paper: what, there, here.
        sections: in the order of the paper.
        untrained: chosen feature sets that are not there, with the command that makes them.
        explorer: address of the feature explorer; None where it was not made, with `make explorer`.
    """

    title: str
    setting: Mapping[str, object]
    differences: Sequence[tuple[str, str, str]]
    sections: Sequence[ReportSection]
    untrained: Mapping[str, str]
    explorer: str | None

    @property
    def missing(self) -> list[ReportSection]:
        """Sections without results."""
        return [section for section in self.sections if not section.made_by]

    @property
    def absent(self) -> dict[str, str]:
        """Parts of sections that are missing, by the section's title and their own, with the command that makes them."""
        return {
            f"{section.title}: {part}": command for section in self.sections for part, command in section.absent.items()
        }

    @property
    def versions(self) -> list[dict[str, str]]:
        """Different sets of software that made the results, the commonest first."""
        made = [json.dumps(a.versions) for section in self.sections for a in section.made_by if a.versions]
        return [json.loads(text) for text in sorted(set(made), key=made.count, reverse=True)]


def write_report(report: Report, directory: Path) -> Path:
    """Write page and tables into a folder; return the page."""
    tables = directory / "tables"
    tables.mkdir(exist_ok=True)
    for section in report.sections:
        for table in section.tables:
            (tables / f"{table.name}.md").write_text(table.to_markdown(), encoding="utf-8")
            (tables / f"{table.name}.tex").write_text(table.to_latex(), encoding="utf-8")
    styles = Markup(web_file("base.css") + web_file("report.css"))
    page = directory / "index.html"
    html = render(
        "report.html", report=report, styles=styles, colors=colors_css(), cell=cell, recipe=_recipe, when=when
    )
    page.write_text(html, encoding="utf-8")
    return page


def when(artifact: Artifact) -> str:
    """When an artifact was made."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(artifact.made_at))


def _recipe(artifact: Artifact) -> str:
    return json.dumps(artifact.recipe, indent=2, ensure_ascii=False, default=str)
