"""The W&B workspace of a project, with one group of panels per section of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

SETS = ("raw", "sae", "ncl")
STEP = "trainer/global_step"


@dataclass(frozen=True)
class PaperSection:
    """Panels for one section of the paper.

    Attributes:
        title: title of the group of panels.
        figures, tables: keys under which results are logged, such as `mds/mds`; one panel each.
        curves: metrics plotted over training steps; one panel per tuple.
        bars: summary values compared across runs; one panel per tuple.
    """

    title: str
    figures: Sequence[str] = ()
    tables: Sequence[str] = ()
    curves: Sequence[tuple[str, ...]] = ()
    bars: Sequence[tuple[str, ...]] = ()


SECTIONS = (
    PaperSection(
        "2.1 Modality dominance",
        figures=("mds/mds", *(f"mds/scores/mds/{name}" for name in SETS), "certainty/certainty"),
        tables=("mds/summary_table", "certainty/summary_table"),
        bars=(tuple(f"mds/summary/{name}/std" for name in SETS),),
    ),
    PaperSection("2.2 Classification with features removed", ("ablation/table1",), ("ablation/table1_table",)),
    PaperSection(
        "2.3 What activates features",
        tuple(f"top_samples/{name}-{members}" for name in SETS for members in ("ImgD", "TextD", "CrossD")),
        ("top_samples/sheets_table",),
    ),
    PaperSection(
        "3.1, A.1 Dictionaries",
        figures=("sae/training_curves", "ncl/training_curves"),
        tables=("faithfulness/reconstruction_table", "faithfulness/function_table"),
        curves=(
            ("val/image/active", "val/text/active"),
            ("val/image/fvu", "val/text/fvu"),
            ("val/image/l0", "val/text/l0"),
            ("val/text_to_image_recall@1", "val/image_to_text_recall@1"),
            ("train/loss",),
        ),
    ),
    PaperSection(
        "3.2 Monosemanticity",
        (
            "interpretability/monosemanticity",
            "interpretability/modality_monosemanticity",
            "interpretability/over_training",
        ),
        ("interpretability/table4_table", "interpretability/table5_table"),
    ),
    PaperSection(
        "4.1 Concepts in images and texts",
        ("gender/sae-table2", "gender/sae-figure7", "gender/sae-table6"),
        ("gender/table2_table",),
    ),
    PaperSection(
        "4.2 Attacks and defenses",
        tuple(f"adversarial/{name}-{figure}" for name in SETS for figure in ("figure8", "sizes")),
        ("adversarial/table3_table",),
    ),
    PaperSection(
        "4.3 Control of generation",
        tuple(f"text_to_image/{name}-curves" for name in ("raw", "sae")),
        ("text_to_image/effects_table",),
    ),
    PaperSection("Sweeps", ("sweep/sweep",), ("sweep/runs_table",)),
)


def dashboard(entity: str, project: str) -> ws.Workspace:
    """Build the workspace without saving it."""
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name=section.title, panels=list(_panels(section)), is_open=number == 0)
        for number, section in enumerate(SECTIONS)
    ]
    settings = ws.RunsetSettings(groupby=[ws.Metric("group"), ws.Metric("job_type")])
    return ws.Workspace(
        entity=entity, project=project, name="Paper, section by section", sections=sections, runset_settings=settings
    )


def _panels(section: PaperSection) -> list[wr.Panel]:
    import wandb_workspaces.reports.v2 as wr

    panels: list[wr.Panel] = [wr.MediaBrowser(title=key, media_keys=[key]) for key in section.figures]
    panels += [wr.WeavePanelSummaryTable(table_name=key) for key in section.tables]
    panels += [wr.LinePlot(x=STEP, y=list(keys)) for keys in section.curves]
    panels += [wr.BarPlot(metrics=list(keys)) for keys in section.bars]
    return panels
