"""Robustness of the classes: what if activations are scaled, centered, or paired at random? (beyond Section 2.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmmono.pipeline.analysis import Analysis, TableView
from mmmono.reporting.result import Result, Rows

SCALED = "images × "  # and a factor
AS_IS, PER_MODALITY, POOLED, BROKEN = "as is", "each modality centered", "pooled mean removed", "pairs broken"


@dataclass(frozen=True)
class Settings:
    """Settings of the section `robustness`.

    Attributes:
        factors: numbers by which all image activations are multiplied.
        fdr: false discovery rate at which a feature counts as significant.
    """

    factors: Sequence[float]
    fdr: float

    def __post_init__(self) -> None:
        if wrong := [factor for factor in self.factors if factor <= 0]:
            raise ValueError(f"factors={wrong[0]} must be positive: it multiplies the image activations")
        if not 0 < self.fdr < 1:
            raise ValueError(f"fdr={self.fdr} must lie between 0 and 1")


def shown_rows(result: Result) -> Rows:
    """One row for each feature set and change; kept features beside how many there were."""
    rows = result.rows("robustness")
    before = {row["feature_set"]: row for row in rows if row["change"] == AS_IS}
    return [
        {
            "feature set": row["feature_set"], "change": _change(row["change"], result), "μ": row["mean"], "σ": row["std"],
            "ρ": row["rho"], "same": row["same"], "by chance": row["same_by_chance"], "ARI": row["ari"],
            **{f"{result.modalities.said(of)} kept": f"{row[f'{of}_kept']} of {before[row['feature_set']][of]}"
               for of in ("ImgD", "TextD")},
            "significant (normal)": row["significant"],
        }
        for row in rows
    ]  # fmt: skip


def _change(change: str, result: Result) -> str:
    """What was done to the activations, with the modality called by its name."""
    scaled = change.startswith(SCALED)
    return change.replace("images", result.modalities.said("images")) if scaled else change


def _remarks(result: Result) -> Iterator[str]:
    if all(row["change"] != BROKEN for row in result.rows("robustness")):
        yield "pairs cannot be broken: one group has more than half of them, and would get texts of its own"


ROBUSTNESS = Analysis(
    name="robustness",
    section="+",
    title="What the classes depend on",
    question=(
        "What do scores and classes become when one modality is scaled, when means are removed, and when pairs are broken "
        "at random? Not in the paper."
    ),
    paper="beyond 2.1",
    targets=("section-2.1",),
    version=2,
    settings=Settings,
    columns={
        "robustness": {
            "feature_set": "name of the feature set",
            "change": "what was done to the activations before scoring them",
            "live": "number of live features",
            "ImgD": "number of image-dominant features",
            "TextD": "number of text-dominant features",
            "CrossD": "number of cross-modal features",
            "mean": "μ of the live features' scores",
            "std": "σ of the live features' scores",
            "significant": "features with q ≤ robustness.fdr, normal approximation: fewer than in certainty",
            "rho": "rank correlation of R(d) with R(d) as it is",
            "same": "share of features that have the class that they have as it is",
            "same_by_chance": "that share in expectation for independent classes of the same sizes",
            "ari": "adjusted Rand index of the classes with those as it is",
            "ImgD_kept": "image-dominant features, as it is, that still are",
            "TextD_kept": "text-dominant features, as it is, that still are",
        }
    },
    tables=[TableView("robustness", "What scores and classes depend on", shown_rows)],
    remarks=_remarks,
    covers_all=True,
)
