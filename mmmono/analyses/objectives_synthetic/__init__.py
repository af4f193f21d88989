"""Objectives for pairs: which of them keeps a shared concept in one latent, on data whose concepts are known?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.reporting.formats import names, with_half_width
from mmmono.reporting.result import Fields, Result, Rows

# Measures: columns of the table `objectives`, and their short titles.
MEASURES = {
    "one": "one latent",
    "split": "split",
    "missed": "missed",
    "merged": "merged",
    "fvu": "FVU",
    "l0": "L0",
    "dead": "dead",
    "both": "R(d) in ½ ± 0.3",
    "accuracy": "kinds right",
    "sharedness": "sharedness",
    "recall_at_1": "R@1",
    "recall_at_10": "R@10",
    "without_none": "R@1, all, on the other half",
    "without_image_dominant": "R@1, no ImgD",
    "without_text_dominant": "R@1, no TextD",
    "without_cross_modal": "R@1, no CrossD",
    "stability": "stability",
}
SHOWN = ("one", "split", "merged", "fvu", "dead", "accuracy", "sharedness", "recall_at_1", "stability")


@dataclass(frozen=True)
class Settings:
    """Settings of the section `objectives_synthetic`.

    Attributes:
        seeds: number of seeds of each setting of the synthetic data.
        latents: latents over the number of concepts that one set of weights has to tell apart: all of them, or those of
            one modality where each modality has weights of its own.
        quick: whether to run the first and the last setting of the data, with one seed each, and without stability.
        jobs: number of processes; None for one per core, or one on a machine with a GPU.
        data: settings of the synthetic data that differ from the dataset's, by name.
    """

    seeds: int
    latents: float
    quick: bool
    jobs: int | None
    data: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds}: give at least 1, 3 for intervals")
        if not self.latents > 0:
            raise ValueError(f"latents={self.latents} leaves no latent: give a positive number of them a concept")
        if not self.data:
            raise ValueError("data={} names no setting of the synthetic data: give at least one")


def summary_rows(result: Result) -> Rows:
    """Mean ± half of the 95 % t interval of the main measures, by setting of the data and objective."""
    found = result.rows("summary")
    return [
        {
            "data": data,
            "feature set": name,
            **{
                MEASURES[row["measure"]]: with_half_width(row, 2)
                for row in found
                if (row["data"], row["feature_set"]) == (data, name) and row["measure"] in SHOWN
            },
        }
        for data in dict.fromkeys(row["data"] for row in found)
        for name in names(found)
    ]


def _fields(result: Result) -> Fields:
    return {"seeds": str(max(row["seeds"] for row in result.rows("summary")))}


_PLACE = {
    "data": "setting of the synthetic data",
    "feature_set": "name of the feature set: the objective",
}

OBJECTIVES_SYNTHETIC = Analysis(
    name="objectives_synthetic",
    section="+",
    version=2,
    title="Which objective keeps a shared concept in one latent?",
    question=(
        "Dictionaries of several objectives on embeddings whose concepts are known. It does not depend on the model. Not in "
        "the paper."
    ),
    paper="beyond the paper",
    targets=("objectives",),
    settings=Settings,
    columns={
        "objectives": {
            **_PLACE,
            "seed": "seed of concepts, codes and training",
            "one": "share of shared concepts found in both modalities, in the same latent",
            "split": "share of shared concepts found in both modalities, in different latents",
            "missed": "share of shared concepts not found in one of the modalities, or in neither",
            "merged": "share of found single-modality concepts whose latent is another's in the other modality",
            "fvu": "fraction of variance unexplained, mean of both modalities; none without a decoder",
            "l0": "mean number of active latents a sample, of both modalities",
            "dead": "share of latents that are active on no sample",
            "both": "share of live latents with R(d) within ½ ± 0.3",
            "accuracy": "balanced accuracy of the concepts' kinds by R(d) of their latents, classes by ½ ± 0.3",
            "sharedness": "mean over live latents of the correlation of their two sides across pairs",
            "recall_at_1": "R@1 by the codes' cosine, mean of both directions, among the pairs of the split",
            "recall_at_10": "R@10, the same",
            "without_none": "R@1 of all latents among half of the pairs, by which no latent is classified for what follows",
            "without_image_dominant": "the same without the latents whose R(d) on the other half is above ½ + 0.3",
            "without_text_dominant": "the same without the latents whose R(d) there is below ½ − 0.3",
            "without_cross_modal": "the same without all others",
            "stability": "mean correlation with matched latents of another training on these pairs; none if quick",
        },
        "summary": {
            **_PLACE,
            "measure": "column of the table objectives",
            "mean": "mean over seeds",
            "mean_low": "lower end of the 95 % t interval over seeds; none with one seed",
            "mean_high": "upper end of the 95 % t interval over seeds; none with one seed",
            "seeds": "number of seeds",
        },
    },
    tables=[
        TableView(
            "objectives_synthetic",
            "Objectives for pairs: mean ± half of the 95 % t interval, seeds: {seeds}",
            summary_rows,
        )
    ],
    figures=[
        FigureView(
            "objectives_synthetic",
            "Shared concepts in one latent, latents of two meanings, FVU and R@1: means and 95 % t intervals over seeds.",
        ),
        FigureView(
            "objectives_synthetic-classes",
            "R@1 by codes, of all latents and without those of each class by ½ ± 0.3, which are chosen on other pairs.",
        ),
    ],
    fields=_fields,
    of_features=False,
)
