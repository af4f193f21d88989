"""Validation on synthetic data: does the method recover concepts, modalities and classes that are known?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.reporting.formats import names, with_half_width
from mmmono.reporting.result import Fields, Result, Rows

# Measures of recovery: columns of the table `validation`, and their short titles.
MEASURES = {
    "max_cosine": "max cosine",
    "matched_cosine": "matched cosine",
    "correlation": "codes",
    "auroc_image": "AUROC image",
    "auroc_text": "AUROC text",
    "rank_correlation": "gain ρ",
    "auroc_sharedness": "AUROC sharedness",
    "auroc_lean": "AUROC |R − ½|",
    "accuracy_sigma": "acc. μ ± σ",
    "accuracy_margin": "acc. ½ ± 0.3",
    "accuracy_null": "acc. null",
}


@dataclass(frozen=True)
class EqualGains:
    """Settings of the section `validate.equal_gains`: runs in which all shared concepts have gain 1.

    Attributes:
        seeds: number of seeds.
        levels: nominal false discovery rates.
        dataset: settings of the synthetic data that differ from the base setting.
    """

    seeds: int
    levels: Sequence[float]
    dataset: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds}: give at least 1, 3 for intervals")
        if wrong := [level for level in self.levels if not 0 < level < 1]:
            raise ValueError(f"levels={wrong[0]} is no false discovery rate: give rates between 0 and 1")


@dataclass(frozen=True)
class Settings:
    """Settings of the section `validate`.

    Attributes:
        seeds: number of seeds of each setting of the synthetic data.
        n_permutations: swaps of image and text within pairs, for the permutation null.
        fdr: false discovery rate of the partition by the null.
        latents: features of a dictionary over the number of concepts.
        quick: whether to run the base setting only.
        jobs: number of processes; None for one per core, or one on a machine with a GPU.
        parameters: values of each parameter that is varied, one at a time.
        equal_gains: settings of the runs that measure false discoveries.
    """

    seeds: int
    n_permutations: int
    fdr: float
    latents: float
    quick: bool
    jobs: int | None
    parameters: Mapping[str, Sequence[float]]
    equal_gains: EqualGains

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds}: give at least 1, 3 for intervals")
        if not 0 < self.fdr < 1:
            raise ValueError(f"fdr={self.fdr} is no false discovery rate: give a rate between 0 and 1")
        for name, values in self.parameters.items():
            if wrong := [value for value in values if not isinstance(value, int | float)]:
                raise ValueError(f"parameters.{name}: {wrong[0]!r} is not a number")


def recovery_rows(result: Result) -> Rows:
    """Recovery in the base setting: mean ± half-width of the 95 % t interval over seeds."""
    base = [row for row in result.rows("summary") if row["parameter"] == ""]
    return [
        {
            "feature set": name,
            **{MEASURES[row["measure"]]: with_half_width(row, 3) for row in base if row["feature_set"] == name},
        }
        for name in names(base)
    ]


def _fields(result: Result) -> Fields:
    return {"seeds": str(result.rows("summary")[0]["seeds"])}


_PLACE = {
    "parameter": "the varied parameter; empty in the base setting",
    "value": "its value; none in the base setting",
    "seed": "seed of concepts, codes and training",
    "feature_set": "name of the feature set",
}
_SEPARATION = {
    "auroc_image": "AUROC of image-only against shared concepts",
    "auroc_text": "AUROC of text-only against shared concepts",
    "rank_correlation": "Spearman's ρ of the score with the true gains of shared concepts",
}

VALIDATE = Analysis(
    name="validate",
    section="+",
    title="Does the method find what was put there?",
    question=(
        "The same method on embeddings whose concepts are known. It does not depend on the model. Not in the paper."
    ),
    paper="beyond the paper",
    targets=("validate",),
    version=4,
    settings=Settings,
    columns={
        "validation": {
            **_PLACE,
            "max_cosine": "mean over true directions of the highest cosine with a learned one; none without directions",
            "matched_cosine": "mean cosine under the best one-to-one matching of true and learned directions",
            "correlation": "mean correlation of a concept's codes with the feature nearest to it",
            **_SEPARATION,
            "auroc_sharedness": "AUROC of shared against single-modality concepts, by sharedness",
            "auroc_lean": "the same by the distance of R(d) from ½, smaller for shared ones",
            "accuracy_sigma": "balanced accuracy of the classes by μ ± σ",
            "accuracy_margin": "balanced accuracy of the classes by ½ ± 0.3",
            "accuracy_null": "balanced accuracy of the classes by the permutation null",
            "live": "number of live features",
        },
        "readings": {
            **_PLACE,
            "reading": "variant of R(d), or another score or training",
            **_SEPARATION,
            "accuracy": "balanced accuracy of the classes by the score's own μ ± σ",
        },
        "summary": {
            **{key: meaning for key, meaning in _PLACE.items() if key != "seed"},
            "measure": "column of the table validation",
            "mean": "mean over seeds",
            "mean_low": "lower end of the 95 % t interval over seeds; none with one seed",
            "mean_high": "upper end of the 95 % t interval over seeds; none with one seed",
            "seeds": "number of seeds",
        },
        "discoveries": {
            "seed": "seed of concepts, codes and training",
            "feature_set": "name of the feature set; `concepts` for the true codes",
            "rule": "when a feature is a discovery: by the permutation null alone, or with a margin around ½ as well",
            "level": "nominal false discovery rate",
            "discoveries": "number of features in ImgD or TextD",
            "false_discoveries": "those among them that correlate most with a shared concept, all of which have gain 1",
            "proportion": "share of false discoveries; 0 without discoveries",
            "true_nulls": "number of tested features that correlate most with a shared concept",
            "tested": "number of tested features",
        },
        "parameters": {
            "parameter": "a parameter that is varied",
            "base": "its value in the base setting",
        },
    },
    tables=[
        TableView(
            "validation",
            "Synthetic concepts, base setting: mean ± half of the 95 % t interval, seeds: {seeds}",
            recovery_rows,
        )
    ],
    figures=[
        FigureView(
            "validation",
            "All measures as one parameter is varied: means and 95 % t intervals over seeds, dotted the base setting.",
        ),
        FigureView("validation-directions", "Cosines of the SAE's latents with the true directions."),
        FigureView("validation-codes", "Correlation of each concept's codes with the feature that is nearest to it."),
        FigureView("validation-separation", "AUROC of image-only and text-only concepts against shared ones, by R(d)."),
        FigureView(
            "validation-shared",
            "AUROC of shared against single-modality concepts, by sharedness and by R(d), on the SAE.",
        ),
        FigureView("validation-gains", "Rank correlation of R(d) with the true gain of shared concepts."),
        FigureView("validation-energy", "The same by R(d) and by the ratio of energies, on the SAE."),
        FigureView("validation-partition", "Balanced accuracy of partitions of the SAE's latents."),
        FigureView(
            "validation-false_discoveries", "Realized against nominal false discovery rates of the permutation null."
        ),
        FigureView("validation-readings", "Readings of the paper on the SAE's latents, over the modality gap."),
    ],
    fields=_fields,
    of_features=False,
)
