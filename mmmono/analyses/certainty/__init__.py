"""Certainty of the classes: significance and reproducibility of R(d) (beyond Section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from mmmono.analyses.mds import TWO_AXES
from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.reporting.result import Result, Rows

# What a plan is for; the target in braces.
AIMS = {"half_width": "R(d) ± {}", "difference": "|R(d) − ½| = {}", "border": "beyond its border"}


@dataclass(frozen=True)
class Settings:
    """Settings of the section `certainty`.

    Attributes:
        n_permutations: swaps of image and text within groups of pairs.
        n_bootstrap: bootstrap samples of the groups.
        n_halves: random halvings of the groups.
        fdr: false discovery rate at which a feature counts as significant, and a class as confirmed.
        auroc_pairs: number of pairs, about, on which the AUROC is computed.
        plan: whether to say how many groups of pairs the questions need.
        plan_half_width: half width of the interval of R(d) to plan for.
        plan_difference: distance of R(d) from ½ that should be found.
        plan_power: probability of finding it.
    """

    n_permutations: int
    n_bootstrap: int
    n_halves: int
    fdr: float
    auroc_pairs: int
    plan: bool
    plan_half_width: float
    plan_difference: float
    plan_power: float

    def __post_init__(self) -> None:
        for name in ("fdr", "plan_power"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value} must lie between 0 and 1")
        for name in ("plan_half_width", "plan_difference"):
            if not 0 < (value := getattr(self, name)) < 0.5:
                raise ValueError(f"{name}={value} must lie between 0 and 0.5, the largest distance of R(d) from ½")


def summary_rows(result: Result) -> Rows:
    """Number of pairs and groups, σ beside chance, and counts of significant features and confirmed classes."""
    return [
        {
            "feature set": row["feature_set"], "pairs": row["pairs"], "groups": row["groups"], "live": row["live"],
            "significant": row["significant"],
            **{
                f"{result.modalities.said(of)} confirmed": f"{row[f'{of}_confirmed']} of {row[of]}"
                for of in ("ImgD", "TextD")
            },
            "σ": row["std"], "null σ": row["null_std"], "reliability": row["reliability"],
        }
        for row in result.rows("summary")
    ]  # fmt: skip


def agreement_rows(result: Result) -> Rows:
    """Agreement across halves of the groups, and with other scores."""
    return [
        {
            "feature set": row["feature_set"],
            "halves ρ": row["halves_rho"], "halves ARI": row["halves_ari"],
            "energy ρ": row["energy_rho"], "AUROC ρ": row["auroc_rho"],
        }
        for row in result.rows("summary")
    ]  # fmt: skip


def plan_rows(result: Result) -> Rows:
    """Groups of pairs that each question needs; none if `certainty.plan=false`."""
    if not result.has("plan"):
        return []
    return [
        {
            "feature set": row["feature_set"], "to know": AIMS[row["aim"]].format(row["target"]), "features": row["asked"],
            "groups here": row["groups"], "needed, median": row["groups_median"], "needed, 90 %": row["groups_90"],
            "informative pairs": row["informative_median"],
        }
        for row in result.rows("plan")
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
    version=11,
    reads=("sharedness",),
    drawing=2,
    settings=Settings,
    columns={
        "scores": {
            **TWO_AXES,
            "p_value": "two-sided p-value of R(d), image and text of groups of pairs swapped at random; none if dead",
            "q_value": "p-value adjusted for the number of live features (Benjamini and Hochberg)",
            "low": "lower end of the 95 % interval of R(d) (Wilson, by effective number of trials)",
            "high": "upper end of the 95 % interval of R(d)",
            "ImgD_probability": "share of resamples of groups, with borders redrawn, in which the feature is image-dominant",
            "TextD_probability": "share in which it is text-dominant",
            "CrossD_probability": "share in which it is cross-modal",
            "border_p_value": "one-sided p-value of R(d) against the nearer border of the classes",
            "border_q_value": "the same, adjusted for the number of live features",
            "energy": "share of the image in the feature's energy",
            "auroc": "AUROC of the activations as a classifier of images against texts",
        },
        "summary": {
            "feature_set": "name of the feature set",
            "pairs": "number of pairs",
            "groups": "number of groups of pairs that are not independent, the unit of all tests and intervals",
            "live": "number of live features",
            "significant": "live features whose R(d) is not ½: q-value at most certainty.fdr",
            "ImgD": "number of image-dominant features",
            "ImgD_significant": "significant ones among them",
            "ImgD_confirmed": "those beyond the upper border of the classes: border_q_value at most certainty.fdr",
            "TextD": "number of text-dominant features",
            "TextD_significant": "significant ones among them",
            "TextD_confirmed": "those beyond the lower border of the classes: border_q_value at most certainty.fdr",
            "std": "σ of the live features' scores",
            "null_std": "σ to expect if no feature preferred a modality, from permutations of groups",
            "reliability": "share of the scores' variance that is not error: (σ² − mean error variance) / σ²",
            "corrected_std": "σ without the scores' errors: the root of that numerator",
            "halves_rho": "rank correlation of R(d) between random halves of the groups",
            "halves_ari": "adjusted Rand index of the classes between random halves of the groups",
            "energy_rho": "rank correlation of R(d) with the share of energy",
            "auroc_rho": "rank correlation of R(d) with the AUROC",
        },
        "plan": {
            "feature_set": "name of the feature set",
            "aim": "half_width (of the interval of R(d)), difference (to find, from ½) or border (to confirm classes)",
            "target": "the half width or the difference",
            "asked": "number of live features that the aim is about",
            "groups": "number of groups of pairs here, which serve as the pilot",
            "groups_median": "groups needed for half of these features, at the false discovery rate certainty.fdr; for a "
            "border, if scores lie where they seem to lie here",
            "groups_90": "groups needed for 90 % of these features",
            "informative_median": "informative pairs among them, for half of these features",
        },
    },
    tables=[
        TableView("certainty", "How sure is R(d)?", summary_rows),
        TableView("certainty_agreement", "Would other pairs and scores agree?", agreement_rows),
        TableView("certainty_plan", "How many groups of pairs are needed, if scores are what they seem?", plan_rows),
    ],
    figures=[FigureView("certainty", "Scores with 95 % intervals; pale features are not confirmed beyond a border.")],
    covers_all=True,
)
