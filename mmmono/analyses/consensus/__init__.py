"""Consensus: do dictionaries trained with other seeds find the same features, scores and classes? (beyond Section 2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmmono.pipeline.analysis import Analysis, FigureView, TableView
from mmmono.reporting.result import Fields, Result, Rows


@dataclass(frozen=True)
class Settings:
    """Settings of the section `consensus`.

    Attributes:
        n_seeds: trainings with other seeds that each dictionary is compared with.
        threshold: a consensus feature has a match with a correlation above this under every seed.
        n_chance: matchings of shuffled pairs, for the agreement by chance.
        n_halves: random halvings of the groups, for the noise of R(d).
        n_bootstrap: resamples of the features, for the interval of the corrected correlation.
        max_groups: number of groups, at most, of which features are matched on one pair each.
    """

    n_seeds: int
    threshold: float
    n_chance: int
    n_halves: int
    n_bootstrap: int
    max_groups: int

    def __post_init__(self) -> None:
        for name in ("n_seeds", "n_chance", "n_halves", "n_bootstrap"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold={self.threshold} must be at least 0 and below 1: it is a correlation")
        if self.max_groups < 3:
            raise ValueError(f"max_groups={self.max_groups} must be at least 3: correlations need some pairs")


def agreement_rows(result: Result) -> Rows:
    """Agreement of scores and classes between seeds, beside chance and beside halves of the pairs under one seed."""
    return [
        {
            "feature set": row["feature_set"], "seeds": row["seeds"], "ρ": row["rho"], "chance ρ": row["chance_rho"],
            "corrected ρ [95 %]": _interval(row, "corrected_rho"), "ARI": row["ari"], "chance ARI": row["chance_ari"],
            "halves ARI": row["halves_ari"],
        }
        for row in result.rows("summary")
    ]  # fmt: skip


def consensus_rows(result: Result) -> Rows:
    """Correlations of matches, and the number of features that are found under every seed."""
    return [
        {
            "feature set": row["feature_set"], "live": row["live"], "mean match r": row["match"],
            "chance r": row["chance_match"], "consensus": row["consensus"], "share": row["consensus_share"],
            "their ρ": row["consensus_rho"],
        }
        for row in result.rows("summary")
    ]  # fmt: skip


def _interval(row: Mapping[str, Any], name: str) -> str:
    low, value, high = (row[f"{name}{end}"] for end in ("_low", "", "_high"))
    if value is None:
        return ""
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _pairs(result: Result) -> Fields:
    row = result.rows("summary")[0]
    return {
        "scored": f"{row['pairs']} pairs ({row['groups']} groups)",
        "matched": f"one pair of each of {row['matched_groups']} other groups",
        "threshold": str(result.recipe["consensus"]["threshold"]),
    }


CONSENSUS = Analysis(
    name="consensus",
    section="+",
    title="What other seeds find",
    question=(
        "Do dictionaries trained with other seeds find the same features, and do their scores and classes agree beyond "
        "chance? Not in the paper."
    ),
    paper="beyond 2.1",
    version=4,
    targets=("consensus",),
    more_seeds="consensus.n_seeds",
    settings=Settings,
    columns={
        "summary": {
            "feature_set": "name of the feature set",
            "seeds": "number of seeds, the reference (seed) among them",
            "pairs": "number of pairs that R(d) is scored on",
            "groups": "number of groups of these pairs",
            "matched_groups": "number of other groups, of which features are matched on one pair each",
            "live": "live features of the reference",
            "live_in_both": "features that are live, as their matches are: mean over the other seeds",
            "rho": "rank correlation of R(d) between seeds, over features live in both: mean over the other seeds",
            "chance_rho": "the same after matching on shuffled pairs",
            "corrected_rho": "0: as by chance, 1: as much as the noise of R(d) allows; (across_rho − chance_across_rho) / "
            "(halves_rho − chance_across_rho), each as of a normal distribution; none if R(d) is not reliable beyond chance",
            "corrected_rho_low": "lower end of its 95 % interval (standard error by bootstrap over features)",
            "corrected_rho_high": "upper end of its 95 % interval (standard error by bootstrap over features)",
            "across_rho": "rank correlation of R(d) of one seed on half of the groups with that of another seed on the rest",
            "chance_across_rho": "the same after matching on shuffled pairs",
            "halves_rho": "rank correlation of R(d) between halves of the groups under one seed",
            "reliability": "reliability of R(d) on all pairs, from halves_rho by the Spearman-Brown formula",
            "ari": "adjusted Rand index of the classes between seeds: mean over the other seeds",
            "chance_ari": "the same after matching on shuffled pairs",
            "halves_ari": "adjusted Rand index of the classes between halves of the groups under one seed: mean over seeds",
            "match": "mean correlation of all features with their matches, within modalities, on the scored pairs",
            "chance_match": "the same after matching on shuffled pairs",
            "consensus": "number of consensus features: match above consensus.threshold, and live, under every seed",
            "consensus_share": "their share of the live features of the reference",
            "consensus_rho": "rho of the consensus features alone",
        },
        "features": {
            "feature_set": "name of the feature set",
            "feature": "index of the feature in the dictionary of the reference seed",
            "class": "ImgD, TextD, CrossD or dead, under the reference seed",
            "match": "smallest correlation with its matches under the other seeds, on the scored pairs",
            "consensus": "whether it is a consensus feature",
            "ImgD": "share of seeds in which it, or its match, is ImgD",
            "TextD": "share of seeds in which it, or its match, is TextD",
            "CrossD": "share of seeds in which it, or its match, is CrossD; what is missing to 1 is dead",
            "mds": "R(d) under the reference seed",
            "others_mds": "mean R(d) of its matches under the other seeds",
            "mean_mds": "mean R(d) over all seeds",
        },
    },
    tables=[
        TableView("agreement", "Agreement between seeds, scored on {scored}, matched on {matched}", agreement_rows),
        TableView("consensus", "Features whose match has r > {threshold} under every seed", consensus_rows),
    ],
    figures=[
        FigureView("consensus", "R(d) under the reference seed and under other seeds; pale features are no consensus."),
    ],
    fields=_pairs,
)
