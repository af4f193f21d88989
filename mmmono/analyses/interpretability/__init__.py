"""Monosemanticity: are the samples that activate a feature alike? (Section 3.2, Figures 5, 6, 13, Tables 4, 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmmono.pipeline.analysis import Analysis, FigureView, PaperSetting, TableView
from mmmono.reporting.formats import with_error
from mmmono.reporting.published import published
from mmmono.reporting.result import Fields, Result, Rows

EMBEDDERS = {"paper": "ViT-B/16 (in21k) and all-MiniLM-L6-v2", "offline": "EfficientNet-Lite0 and all-MiniLM-L6-v2"}
METRICS = {
    "mono": "Mono, the mean of EmbSim and WinRate",
    "embsim": "EmbSim of Eq. 5, the mean of the ratios over draws of random samples",
    "winrate": "WinRate of Eq. 5",
    "embsim_pooled": "EmbSim as a ratio of means",
    "ms": "MS of Pach et al. 2025 over all samples",
}
TABLE5_METRICS = ("mono", "embsim", "winrate", "ms")


@dataclass(frozen=True)
class Settings:
    """Settings of the section `interpretability`.

    Attributes:
        m: most activating samples of a feature; features with fewer positive ones are not scored.
        n_draws: draws of the random samples.
        random_pool: number of pairs from which the random samples are drawn.
        deduplicate: keep one sample per group, such as an emoji's skin tones, and among texts one per caption.
        ms: compute MS beside EmbSim and WinRate.
        ms_pairs: number of pairs over which MS is computed if their embeddings must be computed for it.
        over_training: score the kept snapshots of the dictionaries too (Figure 13).
    """

    m: int
    n_draws: int
    random_pool: int
    deduplicate: bool
    ms: bool
    ms_pairs: int
    over_training: bool

    def __post_init__(self) -> None:
        if self.m < 2:
            raise ValueError(f"m={self.m} must be at least 2: similarity needs two samples")
        if self.n_draws < 1:
            raise ValueError(f"n_draws={self.n_draws} must be at least 1")
        if self.ms_pairs < 2:
            raise ValueError(f"ms_pairs={self.ms_pairs} must be at least 2")


def table5_rows(result: Result) -> Rows:
    """Visual and Textual Mono, beside the paper's numbers for the model's family (CLIP or DeCLIP)."""
    paper = published("table5")
    family = "DeCLIP" if result.model.startswith("declip") else "CLIP"
    rows: Rows = []
    for row in result.rows("table5"):
        printed = paper.find(feature_set=row["feature_set"], model=family, samples=row["samples"])
        rows.append(
            {
                "feature set": row["feature_set"],
                "score": row["score"],
                **{metric: with_error(row, metric) for metric in TABLE5_METRICS},
                "paper EmbSim": f"{printed['embsim']:.3f}" if printed else "",
                "paper WinRate": f"{printed['winrate']:.3f}" if printed else "",
            }
        )
    return rows


def table4_rows(result: Result) -> Rows:
    """Monosemanticity by class: means over features with their standard errors."""
    return [
        {
            "feature set": row["feature_set"], "samples": row["samples"], "class": row["class"],
            "scored": f"{row['scored']} of {row['features']}",
            **{metric: with_error(row, metric) for metric in METRICS},
        }
        for row in result.rows("table4")
    ]  # fmt: skip


def _embedder(result: Result) -> str:
    return str(result.recipe["embedder"]).rpartition("-")[0] or "clip"


def _fields(result: Result) -> Fields:
    return {"embedder": _embedder(result)}


def _differences(result: Result) -> Iterator[tuple[str, str, str]]:
    name = _embedder(result)
    yield "embedder of Mono", EMBEDDERS["paper"], {**EMBEDDERS, "clip": f"{result.model} itself"}.get(name, name)


def _columns(metrics: tuple[str, ...], of: str) -> dict[str, str]:
    """Columns of metrics with their standard errors; both are missing without scored features."""
    columns: dict[str, str] = {}
    for metric in metrics:
        columns[metric] = f"{of} {METRICS[metric]}"
        columns[f"{metric}_se"] = f"standard error of {metric} over features"
    return columns


AVERAGES = {
    "samples": "image or text: the samples on which features are scored",
    "class": "ImgD, TextD, CrossD, or all for all live features",
    "features": "number of live features of the class",
    "scored": "number of them with m positive samples",
    **_columns(tuple(METRICS), "mean over features of"),
}

INTERPRETABILITY = Analysis(
    name="interpretability",
    section="3.2",
    title="Monosemanticity",
    question=(
        "Are the samples that activate a feature alike, more than random ones? By EmbSim and WinRate (Eq. 5) as in the "
        "paper, and by MS beside them."
    ),
    paper="Figures 5, 6, 13, Tables 4, 5",
    targets=("section-3", "appendix-a.3"),
    version=4,
    settings=Settings,
    columns={
        "scores": {
            "feature_set": "name of the feature set",
            "feature": "index of the feature",
            "class": "ImgD, TextD, CrossD or dead",
            "samples": "image or text: the samples on which the feature is scored",
            **{name: f"{what}; NaN if the feature is not scored" for name, what in METRICS.items()},
        },
        "table4": {"feature_set": "name of the feature set", **AVERAGES},
        "table5": {
            "feature_set": "name of the feature set",
            "score": "Visual Mono (ImgD minus TextD on images) or Textual Mono (TextD minus ImgD on texts)",
            "samples": "image or text: the samples on which features are scored",
            **_columns(TABLE5_METRICS, "difference of the classes' means of"),
        },
        "over_training": {
            "feature_set": "name of the feature set",
            "step": "training step of the snapshot",
            **AVERAGES,
        },
    },
    tables=[
        TableView("table5", "Table 5: modality-specific monosemanticity, mean ± s.e. over features", table5_rows),
        TableView("table4", "Table 4: monosemanticity by class, mean ± s.e., embedder {embedder}", table4_rows),
    ],
    figures=[
        FigureView("monosemanticity", "Figure 5: average monosemanticity of each feature set."),
        FigureView("modality_monosemanticity", "Figure 6: Visual Mono on images and Textual Mono on texts."),
        FigureView("over_training", "Figure 13: monosemanticity over training."),
    ],
    fields=_fields,
    published="table5",
    paper_setting=PaperSetting("table5"),
    covers_all=True,
    differences=_differences,
)
