"""Monosemanticity: are the samples that activate a feature alike? (Section 3.2, Figures 5, 6, 13, Tables 4, 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mmmono.core.modality_names import ModalityNames
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
    "ms": "MS of Pach et al. 2025 over all pairs of samples of different groups",
}
CORRECTED = ("mono", "embsim", "winrate")  # also reported minus their chance level
TABLE5_METRICS = ("mono", "embsim", "winrate", "ms")


@dataclass(frozen=True)
class Settings:
    """Settings of the section `interpretability`.

    Attributes:
        m: most activating samples of a feature; features with fewer on their side are not scored.
        n_draws: draws of the random samples.
        random_pool: number of pairs from which the random samples are drawn.
        side: side of 0 that top samples of signed features are taken from: `dominant`, the one with the larger energy Σ z²
            over images and texts, or `positive`. Non-negative features have only one.
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
    side: Literal["dominant", "positive"]

    def __post_init__(self) -> None:
        if self.m < 2:
            raise ValueError(f"m={self.m} must be at least 2: similarity needs two samples")
        if self.n_draws < 1:
            raise ValueError(f"n_draws={self.n_draws} must be at least 1")
        if self.ms_pairs < 2:
            raise ValueError(f"ms_pairs={self.ms_pairs} must be at least 2")
        if self.side not in ("dominant", "positive"):
            raise ValueError(f"side={self.side} is none of dominant, positive")


SCORES = {"image": "Visual Mono", "text": "Textual Mono"}  # the paper's names
HEADINGS = {"mono": "Mono", "embsim": "EmbSim", "winrate": "WinRate", "embsim_pooled": "pooled EmbSim", "ms": "MS"}


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
                "score": score_name(row["samples"], result.modalities),
                "scored": ", ".join(
                    f"{row[f'{name}_scored']} of {row[f'{name}_features']} {result.modalities.said(name)}"
                    for name in ("ImgD", "TextD")
                ),
                **{metric: with_error(row, metric) for metric in TABLE5_METRICS},
                "paper EmbSim": f"{printed['embsim']:.3f}" if printed else "",
                "paper WinRate": f"{printed['winrate']:.3f}" if printed else "",
            }
        )
    return rows


def table4_rows(result: Result) -> Rows:
    """Monosemanticity by class minus its chance level: means over features with their standard errors."""
    return [
        {
            **_class_of(row, result.modalities),
            **{f"{HEADINGS[m]} − chance": with_error(row, f"{m}_corrected") for m in CORRECTED},
            "s.e. of draws": "" if row["draw_error"] is None else f"{row['draw_error']:.3f}",
        }
        for row in result.rows("table4")
    ]


def uncorrected_rows(result: Result) -> Rows:
    """Monosemanticity by class as in the paper's tables, with the chance level beside it."""
    return [
        {
            **_class_of(row, result.modalities),
            **{HEADINGS[metric]: with_error(row, metric) for metric in METRICS},
            "chance": ", ".join(f"{HEADINGS[m]} {with_error(row, f'{m}_chance')}" for m in ("mono", "embsim")),
        }
        for row in result.rows("table4")
    ]  # fmt: skip


def score_name(samples: str, modalities: ModalityNames) -> str:
    """What Mono of one class minus that of the other is called, on samples of one modality: Visual Mono on images."""
    name = modalities.said(samples)
    return SCORES[samples] if name == samples else f"{name[:1].upper()}{name[1:]} Mono"


def _class_of(row: Mapping[str, Any], modalities: ModalityNames) -> dict[str, object]:
    return {
        "feature set": row["feature_set"],
        "samples": modalities.said(row["samples"]), "class": modalities.said(row["class"]),
        "scored": f"{row['scored']} of {row['features']}",
    }  # fmt: skip


def _embedder(result: Result) -> str:
    return str(result.recipe["embedder"]).rpartition("-")[0] or "clip"


def _judge(result: Result) -> str:
    """Name of the embedder, with a warning if it is not independent of the model."""
    name = _embedder(result)
    if name == "clip":
        return f"{result.model} itself, not independent"
    return name if result.recipe["independent"] else f"{name}, not independent: {_towers(result)}"


def _towers(result: Result) -> str:
    """Towers that the embedder and the model have in common."""
    if _embedder(result) == "offline":
        return f"the towers that {result.model} is built on"
    return f"all-MiniLM-L6-v2 is the text tower that {result.model} is built on"


def _fields(result: Result) -> Fields:
    scores = {f"of_{samples}": score_name(samples, result.modalities) for samples in SCORES}
    return {"embedder": _judge(result), "m": result.recipe["interpretability"]["m"], **scores}


def _differences(result: Result) -> Iterator[tuple[str, str, str]]:
    name = _embedder(result)
    here = {**EMBEDDERS, "clip": f"{result.model} itself"}.get(name, name)
    if name != "clip" and not result.recipe["independent"]:
        here += f", {_towers(result)}"
    yield "embedder of Mono", EMBEDDERS["paper"], here


def _remarks(result: Result) -> Iterator[str]:
    if not result.recipe["independent"]:
        better = {"offline": ": embedder=paper is, on images", "clip": ": embedder=paper is"}.get(_embedder(result), "")
        yield f"the embedder is not independent of the model ({_judge(result)}){better}"


def _columns(metrics: tuple[str, ...], of: str) -> dict[str, str]:
    """Columns of metrics with their standard errors; both are missing without scored features."""
    columns: dict[str, str] = {}
    for metric in metrics:
        columns[metric] = f"{of} {METRICS[metric]}"
        columns[f"{metric}_se"] = f"standard error of {metric} over features" + (
            "" if metric == "ms" else " and draws of the random samples"
        )
    return columns


def _chance_columns() -> dict[str, str]:
    columns: dict[str, str] = {}
    for metric in CORRECTED:
        columns[f"{metric}_corrected"] = f"{metric} minus its chance level"
        columns[f"{metric}_corrected_se"] = f"standard error of {metric}_corrected over features and draws"
        columns[f"{metric}_chance"] = f"chance level of {metric}: random samples in place of the top ones"
        columns[f"{metric}_chance_se"] = f"standard error of {metric}_chance over draws"
    return {**columns, "draw_error": "standard error of mono_corrected over draws alone; none with one draw"}


AVERAGES = {
    "samples": "image or text: the samples on which features are scored",
    "class": "ImgD, TextD, CrossD, or all for all live features",
    "features": "number of live features of the class",
    "scored": "number of them with m samples on their side: the others are rarer, and not part of the means",
    **_columns(tuple(METRICS), "mean over scored features of"),
    **_chance_columns(),
}

INTERPRETABILITY = Analysis(
    name="interpretability",
    section="3.2",
    title="Monosemanticity",
    question=(
        "Are the samples that activate a feature alike, more than random ones? By EmbSim and WinRate (Eq. 5) as in the "
        "paper, minus what random samples score, and by MS beside them."
    ),
    paper="Figures 5, 6, 13, Tables 4, 5",
    targets=("section-3", "appendix-a.3"),
    version=7,
    drawing=2,
    settings=Settings,
    columns={
        "scores": {
            "feature_set": "name of the feature set",
            "feature": "index of the feature",
            "class": "ImgD, TextD, CrossD or dead",
            "samples": "image or text: the samples on which the feature is scored",
            **{name: f"{what}; NaN if the feature is not scored" for name, what in METRICS.items()},
            **{f"{name}_corrected": f"{name} minus its chance level" for name in CORRECTED},
        },
        "table4": {"feature_set": "name of the feature set", **AVERAGES},
        "table5": {
            "feature_set": "name of the feature set",
            "score": "Visual Mono (ImgD minus TextD on images) or Textual Mono (TextD minus ImgD on texts)",
            "samples": "image or text: the samples on which features are scored",
            "ImgD_scored": "number of ImgD features with m samples on their side",
            "TextD_scored": "number of TextD features with m samples on their side",
            "ImgD_features": "number of ImgD features",
            "TextD_features": "number of TextD features",
            **_columns(TABLE5_METRICS, "difference, in which chance cancels, of the classes' means of"),
        },
        "over_training": {
            "feature_set": "name of the feature set",
            "step": "training step of the snapshot",
            **AVERAGES,
        },
    },
    tables=[
        TableView(
            "table5",
            "Table 5: modality-specific monosemanticity, mean ± s.e.; chance cancels; embedder {embedder}",
            table5_rows,
        ),
        TableView(
            "table4",
            "Table 4 above chance: monosemanticity of features with {m} top samples, mean ± s.e.; embedder {embedder}",
            table4_rows,
        ),
        TableView("table4_uncorrected", "Table 4 as in the paper, mean ± s.e.; embedder {embedder}", uncorrected_rows),
    ],
    figures=[
        FigureView(
            "monosemanticity",
            "Figure 5: average monosemanticity of each feature set; dotted: chance, by random samples in place of top ones.",
        ),
        FigureView(
            "modality_monosemanticity",
            "Figure 6: {of_image} on {images} and {of_text} on {texts}; chance cancels in these differences.",
        ),
        FigureView("over_training", "Figure 13: monosemanticity over training; dotted: chance."),
    ],
    fields=_fields,
    published="table5",
    paper_setting=PaperSetting("table5"),
    covers_all=True,
    differences=_differences,
    remarks=_remarks,
)
