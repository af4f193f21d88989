"""Modality dominance scores of a feature set (Eq. 1), with standard errors that treat groups of pairs as the unit."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import nan
from typing import Any, Literal

from jaxtyping import Float64, Int64
from torch import Tensor

Undefined = Literal["skip", "half"]


def check_undefined(undefined: Undefined) -> None:
    """Raise ValueError unless `undefined` is a way to count pairs in which both activations are 0."""
    if undefined not in ("skip", "half"):
        raise ValueError(f"undefined={undefined!r} is neither 'skip' nor 'half'")


@dataclass(frozen=True)
class DominanceScores:
    """Modality dominance scores of a feature set, and the counts behind them.

    Pairs of one group, such as the captions of one image, are not independent. With s_g = Σ (r_i − R) over the pairs of
    group g, n informative pairs and G groups that have one, the squared standard error is G/(G−1) · Σ s_g² / n², the
    cluster-robust one (Liang and Zeger 1986). Where each pair is a group of its own, it is the usual s² / n.

    Attributes:
        scores: R(d) in [0, 1]; 1 if only images activate the feature, 0 if only texts do, NaN if nothing does. All pairs
            weigh the same, whatever their groups (Eq. 1).
        standard_error: standard error of R(d) by group; NaN for fewer than two groups. Too small where one group has most
            of the pairs: intervals (`score_intervals`) and `error_variance` correct that.
        null_error: standard deviation of R(d) if image and text of each group were swapped at random, √Σ e_g² / n with
            e_g = Σ (r_i − ½) over the pairs of group g; NaN for features that nothing activates.
        design_effect: squared standard error, by that of as many independent pairs (Kish 1965); 1 if the ratios do not
            vary.
        effective_groups: n² / Σ n_g²: as many groups of equal size say as much if pairs of one group agree (Kish 1965).
        informative_pairs: number of pairs in which the image or the text activates the feature.
        informative_groups: number of groups with such a pair.
        image_active, text_active: number of images and of texts that activate the feature.
        num_pairs: number of all pairs.
        num_groups: number of all groups.
    """

    scores: Float64[Tensor, " features"]
    standard_error: Float64[Tensor, " features"]
    null_error: Float64[Tensor, " features"]
    design_effect: Float64[Tensor, " features"]
    effective_groups: Float64[Tensor, " features"]
    informative_pairs: Int64[Tensor, " features"]
    informative_groups: Int64[Tensor, " features"]
    image_active: Int64[Tensor, " features"]
    text_active: Int64[Tensor, " features"]
    num_pairs: int
    num_groups: int

    @property
    def error_variance(self) -> Float64[Tensor, " features"]:
        """Squared standard error of R(d) without bias, whatever the sizes of the groups; NaN for fewer than two groups.

        A group that has most of the pairs pulls R(d) towards itself, so that `standard_error` is too small. With E the
        `null_error` and n the `effective_groups`, E² has the expectation V + (R − ½)² / n, and (R(d) − ½)² has
        V + (R − ½)², for the variance V sought; so V is (E² − (R(d) − ½)² / n) / (1 − 1 / n). Of groups of equal size it is
        `standard_error`². Single values scatter, and may be negative: average them over features.
        """
        share = 1 / self.effective_groups
        variance = (self.null_error.square() - (self.scores - 0.5).square() * share) / (1 - share)
        return variance.where(~self.standard_error.isnan(), nan)

    def of(self, features: Int64[Tensor, " chosen"]) -> DominanceScores:
        """Scores of some features alone, in the order of their indices."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        fewer: dict[str, Any] = {name: value[features] for name, value in own.items() if isinstance(value, Tensor)}
        return replace(self, **fewer)
