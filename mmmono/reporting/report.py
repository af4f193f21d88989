"""The report: one page with all available tables and figures, in the paper's order, and how they were made.

index.html              the page, with figures embedded
tables/<name>.md        each table as Markdown
tables/<name>.tex       each table as LaTeX (booktabs)
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
from mmmono.core.modality_names import IMAGE_AND_TEXT
from mmmono.reporting.escaping import latex, markdown, markdown_table
from mmmono.reporting.pages import colors_css, render, web_file
from mmmono.reporting.result import Rows
from mmmono.reporting.style import DPI
from mmmono.reporting.tables import cell

PIXELS_AN_INCH = 108  # CSS pixels per inch of a figure; shows its 9-point text at 13.5 pixels


@dataclass(frozen=True)
class ReportTable:
    """A table of a section.

    Attributes:
        name: file name without suffix.
        title: heading of the table.
        rows: rows as printed, all with the same columns.
        links: URLs by column, one per row; an empty string for no link.
        classes: classes of features by what the table calls them; such cells have the color of the class.
    """

    name: str
    title: str
    rows: Rows
    links: Mapping[str, Sequence[str]] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=lambda: IMAGE_AND_TEXT.classes)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.rows[0]) if self.rows else []

    def numeric(self, column: str) -> bool:
        """Whether a column's entries are numbers, which are aligned right."""
        return all(isinstance(row[column], int | float) or row[column] in ("", None) for row in self.rows)

    def to_markdown(self) -> str:
        """Format the table as Markdown, for pull requests and notebooks."""
        rows = [[cell(value) for value in row.values()] for row in self.rows]
        table = markdown_table(self.columns, rows, map(self.numeric, self.columns))
        return f"**{markdown(self.title)}**\n\n{table}\n"

    def to_latex(self) -> str:
        """Format the table as LaTeX, for papers; needs the package booktabs."""
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
    """A figure of a section: a PNG file and its caption."""

    file: Path
    caption: str

    @property
    def width(self) -> int:
        """Width in CSS pixels at which the figure's text is as large as the page's."""
        with Image.open(self.file) as image:
            return round(PIXELS_AN_INCH * image.width / image.info.get("dpi", (DPI,))[0])

    @property
    def inline(self) -> str:
        """The image as a data URL."""
        return "data:image/png;base64," + base64.b64encode(self.file.read_bytes()).decode()


@dataclass(frozen=True)
class ReportSection:
    """A section of the paper with its available results.

    Attributes:
        number, title: number and title of the section; `+` is the number of sections beyond the paper.
        about: the question it answers.
        command: command that makes the section's results.
        tables, figures: its results; empty if they do not exist.
        made_by: artifacts that the results were read from.
        note: how the paper's setting differs; None if it does not, or if no published numbers are shown.
        basis: statements about what the results are based on, such as model and data.
        remarks: what the command prints below its tables, such as what intervals and p-values are over.
        others: settings of existing results that do not match the page's settings.
        absent: missing parts of a section that has other results, with the command that makes each.
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
    remarks: Sequence[str] = ()
    others: Sequence[str] = ()
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """Anchor (HTML id) of the section."""
        name = self.title if self.number == "+" else self.number
        return "section-" + "-".join(re.findall(r"[a-z0-9.]+", name.lower()))


@dataclass(frozen=True)
class Report:
    """Contents of the page.

    Attributes:
        title: model, dataset and split.
        setting: settings by name, shown at the top.
        differences: differences from the paper as (setting, the paper's value, the value here).
        sections: sections in the paper's order.
        untrained: selected feature sets that do not exist, with the command that makes each.
        explorer: URL of the feature explorer; None if it does not exist.
        explorer_command: command that makes it.
    """

    title: str
    setting: Mapping[str, object]
    differences: Sequence[tuple[str, str, str]]
    sections: Sequence[ReportSection]
    untrained: Mapping[str, str]
    explorer: str | None
    explorer_command: str = "make explorer"

    @property
    def missing(self) -> list[ReportSection]:
        """Sections without results."""
        return [section for section in self.sections if not section.made_by]

    @property
    def absent(self) -> dict[str, str]:
        """Commands that make the missing parts of sections, by `<section title>: <part>`."""
        return {
            f"{section.title}: {part}": command for section in self.sections for part, command in section.absent.items()
        }

    @property
    def versions(self) -> list[dict[str, str]]:
        """Distinct sets of software versions that made the results, most frequent first."""
        made = [json.dumps(a.versions) for section in self.sections for a in section.made_by if a.versions]
        return [json.loads(text) for text in sorted(set(made), key=made.count, reverse=True)]


def write_report(report: Report, directory: Path) -> Path:
    """Write the page and the tables into a folder; return the page's path."""
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
    """Format the time at which an artifact was made, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(artifact.made_at))


def _recipe(artifact: Artifact) -> str:
    return json.dumps(artifact.recipe, indent=2, ensure_ascii=False, default=str)
