"""Generate README's table of entrypoints and docs/results.md from the analyses' declarations."""

from __future__ import annotations

from omegaconf import OmegaConf

from mmmono.analyses import ANALYSES
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.settings import CONF

BEFORE = ("extract",)  # entrypoints that are no analysis, above the analyses and below them
AFTER = ("report", "explorer", "plan", "dashboard", "publish")

RESULTS_HEAD = """\
# Results

Every analysis leaves a folder with its tables as Parquet files, one file a table, and its figures as PNG and PDF. This page
says what each column holds. It is made from the declarations in `mmmono/analyses`, by
`python -m mmmono.commands.make --results`: change a meaning there. `pandas.read_parquet` opens any of the files.
"""


def entrypoint_table() -> str:
    """Markdown table of all entrypoints: command, purpose, and section, figures and tables of the paper."""
    lines = ["| entrypoint | does | paper |", "|---|---|---|"]
    lines += [_line(name, "") for name in BEFORE]
    lines += [_line(analysis.name, _place(analysis)) for analysis in ANALYSES]
    lines += [_line(name, "") for name in AFTER]
    return "\n".join(lines)


def results_page() -> str:
    """Return docs/results.md: for each analysis its question, its command, and its tables with their columns."""
    return "\n".join([RESULTS_HEAD, *(_result_section(analysis) for analysis in ANALYSES)])


def _result_section(analysis: Analysis) -> str:
    """Markdown section of one analysis, with a table of columns for each table that it saves."""
    name = "<feature set>" if analysis.kind == "dictionaries" else analysis.name
    place = _place(analysis)
    lines = [f"## {analysis.name}: {analysis.title}", "", analysis.asked(), ""]
    lines += [f"- command: `{analysis.command}`", f"- folder: `artifacts/{analysis.kind}/{name}-…/`"]
    lines += [f"- paper: {place if place.startswith('beyond') else f'Section {place}'}", ""]
    for table, columns in analysis.columns.items():
        lines += [f"### {analysis.name}: `{table}.parquet`", "", "| column | meaning |", "|---|---|"]
        lines += [f"| `{column}` | {_cell(meaning)} |" for column, meaning in columns.items()]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text of a cell: bars would end it."""
    return text.replace("|", r"\|")


def _line(name: str, place: str) -> str:
    purpose = OmegaConf.load(CONF / f"{name}.yaml").help.purpose
    return f"| `experiments/{name}.py` | {purpose} | {place} |"


def _place(analysis: Analysis) -> str:
    numbered = analysis.section if analysis.section not in ("", "+") else ""
    return ", ".join(part for part in (numbered, analysis.paper) if part)
