"""The W&B workspace of a project: one group of panels for each analysis, built from its declaration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from string import Formatter
from typing import TYPE_CHECKING

from mmmono.analyses import ANALYSES
from mmmono.pipeline.analysis import Analysis, FigureView

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

SETS = ("raw", "sae", "ncl")
STEP = "trainer/global_step"


@dataclass(frozen=True)
class PanelGroup:
    """Panels for one analysis.

    Attributes:
        title: title of the group.
        figures, tables: keys under which results are logged, such as `mds/mds`; one panel each.
        curves: metrics plotted over training steps; one panel per tuple.
        bars: summary values compared across runs; one panel per tuple.
    """

    title: str
    figures: Sequence[str] = ()
    tables: Sequence[str] = ()
    curves: Sequence[tuple[str, ...]] = ()
    bars: Sequence[tuple[str, ...]] = ()


def panel_groups() -> list[PanelGroup]:
    """Panels of all analyses, in the paper's order."""
    return [_group(analysis) for analysis in ANALYSES]


def _group(analysis: Analysis) -> PanelGroup:
    number = analysis.section.replace("+", "").strip()
    # Curves of a dictionary are logged under its feature set; everything else under the analysis.
    prefixes = [analysis.name] if analysis.kind == "results" else list(trained_sets(analysis))
    figures = [f"{prefix}/{name}" for prefix in prefixes for view in analysis.figures for name in _names(view)]
    figures += [f"{analysis.name}/{key}/{name}" for key in analysis.histograms for name in SETS]
    short = [name for name, columns in analysis.columns.items() if _is_short(columns)]
    return PanelGroup(
        title=" ".join(part for part in (number, analysis.title) if part),
        figures=figures,
        tables=[f"{analysis.name}/{name}_table" for name in short] if analysis.kind == "results" else [],
        curves=analysis.curves,
        bars=[tuple(f"{analysis.name}/{bar.format(feature_set=name)}" for name in SETS) for bar in analysis.bars],
    )


def trained_sets(analysis: Analysis) -> Sequence[str]:
    """Feature sets that an analysis trains by default."""
    return analysis.features.strip("[]").split(",")


def _names(view: FigureView) -> Iterator[str]:
    """Names that a figure may have with the usual feature sets; none if its name depends on the data."""
    fields = [field for _, field, _, _ in Formatter().parse(view.name) if field]
    known = {"feature_set": SETS, **view.values}
    if all(field in known for field in fields):
        for values in product(*(known[field] for field in fields)):
            yield view.name.format(**dict(zip(fields, values, strict=True)))


def _is_short(columns: Mapping[str, str]) -> bool:
    """Whether a table has no row for each feature."""
    return "feature" not in columns


def dashboard(entity: str, project: str) -> ws.Workspace:
    """Build the workspace without saving it."""
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name=group.title, panels=list(_panels(group)), is_open=number == 0)
        for number, group in enumerate(panel_groups())
    ]
    settings = ws.RunsetSettings(groupby=[ws.Metric("group"), ws.Metric("job_type")])
    return ws.Workspace(
        entity=entity, project=project, name="Paper, section by section", sections=sections, runset_settings=settings
    )


def _panels(group: PanelGroup) -> list[wr.Panel]:
    import wandb_workspaces.reports.v2 as wr

    panels: list[wr.Panel] = [wr.MediaBrowser(title=key, media_keys=[key]) for key in group.figures]
    panels += [wr.WeavePanelSummaryTable(table_name=key) for key in group.tables]
    panels += [wr.LinePlot(x=STEP, y=list(keys)) for keys in group.curves]
    panels += [wr.BarPlot(metrics=list(keys)) for keys in group.bars]
    return panels
