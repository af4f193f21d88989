"""Result of Section 2.1 for one feature set: scores, classes and summary statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.modality.intervals import score_intervals
from mmmono.modality.partition import CLASSES, ROUNDING, Partition
from mmmono.modality.scores import DominanceScores


@dataclass(frozen=True)
class DominanceSummary:
    """Class sizes, and statistics of the live features' scores.

    Attributes:
        pairs, groups: number of pairs behind the scores, and of groups of pairs, the unit of all errors.
        features: number of all features.
        ImgD, TextD, CrossD, dead: number of features in each class.
        mean, std: μ and σ (population) of the paper's partition rule.
        null_std: σ to expect if no feature preferred a modality; see `FeatureSetDominance.null_std`.
        reliability: share of the scores' variance that other pairs would reproduce, (σ² − mean error variance) / σ², from 0
            to 1; features without an error are left out of the mean. NaN if all scores are equal.
        corrected_std: σ without the scores' errors, the root of that numerator.
        skewness: third standardized moment; positive if the longer tail is towards images, NaN if all scores are equal.
        lowest, highest: range of the scores.
        half_width: mean half-width of the scores' 95 % confidence intervals (`score_intervals`).
        design_effect: median of the features' design effects: how many times larger a squared standard error by group is
            than one that takes pairs as independent.
    """

    pairs: int
    groups: int
    features: int
    ImgD: int
    TextD: int
    CrossD: int
    dead: int
    mean: float
    std: float
    null_std: float
    reliability: float
    corrected_std: float
    skewness: float
    lowest: float
    highest: float
    half_width: float
    design_effect: float


@dataclass(frozen=True)
class FeatureSetDominance:
    """Modality dominance scores and partition of one feature set.

    Attributes:
        name: of the feature set, in tables.
        scores: of all its features (`dominance_scores`).
        partition: their classes (`partition_by_sigma` and others).
    """

    name: str
    scores: DominanceScores
    partition: Partition

    @property
    def summary(self) -> DominanceSummary:
        """Class sizes and statistics of the live features' scores."""
        live = self.partition.live
        own = self.scores.of(live)
        scores, (low, high) = own.scores, score_intervals(own)
        mean, std = (scores.mean(), scores.std(correction=0)) if len(live) else (scores.sum() * torch.nan,) * 2
        corrected = corrected_variance(own)
        return DominanceSummary(
            pairs=self.scores.num_pairs,
            groups=self.scores.num_groups,
            features=len(self.partition),
            **{name: len(self.partition[name]) for name in CLASSES},
            mean=float(mean),
            std=float(std),
            null_std=self.null_std,
            reliability=corrected / float(std.square()) if std > ROUNDING else float("nan"),
            corrected_std=corrected**0.5,
            skewness=float(((scores - mean) / std).pow(3).mean()) if std > ROUNDING else float("nan"),
            lowest=float(scores.min()) if len(live) else float("nan"),
            highest=float(scores.max()) if len(live) else float("nan"),
            half_width=float((high - low).mean() / 2),
            design_effect=median(self.scores.design_effect[live]),
        )

    @property
    def null_std(self) -> float:
        """σ of R(d) over live features to expect if image and text of each group were swapped at random.

        The root of the mean of `DominanceScores.null_error`², which needs no permutations. It takes the features' errors as
        independent; where they are correlated, `DominanceResamples.null_std` is a little smaller.
        """
        return float(self.scores.null_error[self.partition.live].square().mean().sqrt())

    def to_row(self) -> dict[str, object]:
        """Return the summary as one table row."""
        return {"feature_set": self.name, **asdict(self.summary)}

    def to_rows(self) -> list[dict[str, object]]:
        """Return one table row per feature."""
        columns = {
            "mds": self.scores.scores,
            "standard_error": self.scores.standard_error,
            "design_effect": self.scores.design_effect,
            "informative_pairs": self.scores.informative_pairs,
            "informative_groups": self.scores.informative_groups,
            "image_active": self.scores.image_active,
            "text_active": self.scores.text_active,
        }
        values = {name: tensor.tolist() for name, tensor in columns.items()}
        return [
            {"feature_set": self.name, "feature": index, "class": name, **{c: v[index] for c, v in values.items()}}
            for index, name in enumerate(self.partition.class_of())
        ]


def median(values: Float64[Tensor, " values"]) -> float:
    """Median of values that are not NaN, the mean of both middle ones if their number is even; NaN if there are none.

    `torch.nanmedian` takes the lower one.
    """
    known = values[~values.isnan()]
    return float(known.quantile(0.5)) if len(known) else float("nan")


def corrected_variance(dominance: DominanceScores) -> float:
    """Variance of scores over features without that of their errors: σ² − mean error variance, from 0 to σ².

    NaN without features; those without an error are left out of the mean, which is at least that of their squared standard
    errors: `error_variance` may be too small by chance, the standard error is too small or right.
    """
    if not len(dominance.scores):
        return float("nan")
    noise = dominance.error_variance.nanmean().fmax(dominance.standard_error.square().nanmean()).nan_to_num(0.0)
    return float((dominance.scores.var(correction=0) - noise).clamp_min(0))
