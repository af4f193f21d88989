"""Certainty of the classes: significance and reproducibility of R(d) (beyond Section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from mmmono.analyses.mds import SCORES
from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.reporting.result import Result, Rows


@dataclass(frozen=True)
class Settings:
    """Settings of the section `certainty`.

    Attributes:
        n_permutations: swaps of image and text within pairs.
        n_bootstrap: bootstrap samples of the pairs.
        n_halves: random halvings of the pairs.
        fdr: false discovery rate at which a feature counts as significant.
        auroc_pairs: number of pairs, about, on which the AUROC is computed.
    """

    n_permutations: int
    n_bootstrap: int
    n_halves: int
    fdr: float
    auroc_pairs: int


def summary_rows(result: Result) -> Rows:
    """Counts of significant features, and agreement across halves of the pairs and other scores."""
    return [
        {
            "feature set": row["feature_set"], "live": row["live"], "significant": row["significant"],
            **{f"{name} confirmed": f"{row[f'{name}_significant']} of {row[name]}" for name in ("ImgD", "TextD")},
            "halves ρ": row["halves_rho"], "halves ARI": row["halves_ari"],
            "energy ρ": row["energy_rho"], "AUROC ρ": row["auroc_rho"],
        }
        for row in result.rows("summary")
    ]  # fmt: skip


CERTAINTY = Analysis(
    name="certainty",
    section="+",
    title="How sure the classes are",
    question=(
        "Which features are significantly dominated by a modality, and would other pairs or scores agree? Not in "
        "the paper."
    ),
    paper="beyond 2.1",
    targets=("section-2.1",),
    version=5,
    settings=Settings,
    columns={
        "scores": {
            **SCORES,
            "p_value": "two-sided p-value of R(d), image and text swapped at random within pairs",
            "q_value": "p-value adjusted for the number of features (Benjamini and Hochberg)",
            "low": "lower end of the 95 % bootstrap interval of R(d)",
            "high": "upper end of the 95 % bootstrap interval of R(d)",
            "energy": "share of the image in the feature's energy",
            "auroc": "AUROC of the activations as a classifier of images against texts",
        },
        "summary": {
            "feature_set": "name of the feature set",
            "live": "number of live features",
            "significant": "live features with a q-value below certainty.fdr",
            "ImgD": "number of image-dominant features",
            "ImgD_significant": "significant ones among them",
            "TextD": "number of text-dominant features",
            "TextD_significant": "significant ones among them",
            "halves_rho": "rank correlation of R(d) between random halves of the pairs",
            "halves_ari": "adjusted Rand index of the classes between random halves of the pairs",
            "energy_rho": "rank correlation of R(d) with the share of energy",
            "auroc_rho": "rank correlation of R(d) with the AUROC",
        },
    },
    tables=[TableView("certainty", "How sure is R(d)?", summary_rows)],
    figures=[FigureView("certainty", "Scores with 95 % intervals; pale features are not significant.")],
    covers_all=True,
)
