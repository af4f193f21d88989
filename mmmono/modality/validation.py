"""Compare a feature set with the ground truth of synthetic concepts: directions, codes, modality and classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr, ttest_1samp
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mmmono.core.finite import check_finite, double, unit_rows
from mmmono.core.statistics import Interval
from mmmono.modality.partition import FeatureClass, Partition

T_INTERVAL = "t interval of the mean"
CLASS_OF_KIND: tuple[FeatureClass, ...] = ("ImgD", "TextD", "CrossD")  # of image-only, text-only, shared concepts


@dataclass(frozen=True)
class ConceptMatch:
    """Best match between synthetic concepts ("atoms") and features, in both directions.

    Attributes:
        feature: for each concept, the feature that correlates most with it.
        correlation: for each concept, its correlation with that feature.
        concept: for each feature, the concept that correlates most with it.
    """

    feature: Int64[Tensor, " atoms"]
    correlation: Float[Tensor, " atoms"]
    concept: Int64[Tensor, " features"]

    @classmethod
    def of(cls, correlations: Float[Tensor, "atoms features"]) -> ConceptMatch:
        """Match by the correlations of the concepts' true codes with the features' activations on all samples."""
        best, feature = correlations.max(1)
        return cls(feature, best, correlations.argmax(0))


@dataclass(frozen=True)
class Separation:
    """How well a modality score recovers each true concept's kind (AUROC) and gain (Spearman's ρ).

    Attributes:
        auroc_image: AUROC of image-only against shared concepts.
        auroc_text: AUROC of text-only against shared concepts.
        rank_correlation: Spearman's ρ with the true gains of shared concepts; NaN if all gains are equal.
    """

    auroc_image: float
    auroc_text: float
    rank_correlation: float


def separation(
    scores: Float[Tensor, " features"],
    match: ConceptMatch,
    kind: Int64[Tensor, " atoms"],
    gain: Float[Tensor, " atoms"],
) -> Separation:
    """Compare modality scores with the concepts' true kinds and gains; leave out concepts matched to dead features.

    Args:
        scores: score of each feature, higher for images; NaN marks dead features.
        match: feature of each concept.
        kind: kind of each concept: 0 image-only, 1 text-only, 2 shared.
        gain: strength of each concept in images relative to texts.
    """
    own = scores[match.feature]
    image, text, shared = (~own.isnan() & (kind == k) for k in range(3))
    return Separation(
        auroc_image=_auroc(own[image], own[shared]),
        auroc_text=_auroc(-own[text], -own[shared]),
        rank_correlation=_rank(own[shared], gain[shared]),
    )


def shared_auroc(values: Float[Tensor, " features"], match: ConceptMatch, kind: Int64[Tensor, " atoms"]) -> float:
    """AUROC of shared against single-modality concepts by a value of their features, higher for shared ones.

    Concepts whose feature has no value (NaN) are left out; NaN without concepts of both sorts.
    """
    own = values[match.feature]
    known = ~own.isnan()
    return _auroc(own[known & (kind == 2)], own[known & (kind != 2)])


def balanced_accuracy(partition: Partition, match: ConceptMatch, kind: Int64[Tensor, " atoms"]) -> float:
    """Balanced accuracy of the classes: the share of concepts whose feature has the right class, averaged over kinds.

    Every kind has equal weight, so that putting all features into one class scores only 1 / number of kinds. Kinds
    without concepts are left out; NaN if there are no concepts.
    """
    classes = partition.class_of()
    shares = []
    for number, expected in enumerate(CLASS_OF_KIND):
        if members := match.feature[kind == number].tolist():
            shares.append(sum(classes[feature] == expected for feature in members) / len(members))
    return sum(shares) / len(shares) if shares else float("nan")


@dataclass(frozen=True)
class Discoveries:
    """Number of features classified as dominated by a modality (discoveries).

    Attributes:
        made: number of discoveries.
        false: number of discoveries that match a shared concept.
    """

    made: int
    false: int

    @property
    def proportion(self) -> float:
        """False discovery proportion, 0 without discoveries; its expectation is the false discovery rate."""
        return self.false / max(1, self.made)


def discoveries(partition: Partition, match: ConceptMatch, kind: Int64[Tensor, " atoms"]) -> Discoveries:
    """Count the features in ImgD and TextD, and those among them that correlate most with a shared concept.

    The latter are false discoveries only if all shared concepts have gain 1: then such a concept is equally strong in
    images and texts, R(d) of its codes is ½ in expectation, and the null hypothesis is true.
    """
    found = torch.cat([partition.image_dominant, partition.text_dominant])
    return Discoveries(made=len(found), false=int((kind[match.concept[found]] == 2).sum()))


def mean_max_cosine(atoms: Float[Tensor, "atoms dim"], learned: Float[Tensor, "features dim"]) -> float:
    """Mean over true directions (atoms) of the highest cosine with a learned direction; 1 if all are found."""
    return float(_cosines(atoms, learned).amax(1).mean())


def matched_cosine(atoms: Float[Tensor, "atoms dim"], learned: Float[Tensor, "features dim"]) -> float:
    """Mean cosine of true directions (atoms) with learned ones under the best one-to-one matching.

    Unlike in `mean_max_cosine`, a learned direction counts for only one atom. Atoms without a match count as 0.
    """
    cosines = _cosines(atoms, learned).numpy()
    return float(cosines[linear_sum_assignment(cosines, maximize=True)].sum() / len(atoms))


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of the values that are not NaN, with its t confidence interval.

    The bounds are NaN for a single value, and for equal ones, which do not tell how others would scatter; everything is NaN
    without values.
    """
    known = [value for value in values if value == value]
    if len(known) < 2:
        return Interval(known[0] if known else math.nan, level=level, method=T_INTERVAL)
    mean = math.fsum(known) / len(known)
    if max(known) == min(known):
        return Interval(mean, level=level, method=T_INTERVAL)
    low, high = ttest_1samp(known, 0.0).confidence_interval(level)
    return Interval(mean, float(low), float(high), level, T_INTERVAL)


def _cosines(atoms: Tensor, learned: Tensor) -> Tensor:
    for name, vectors in (("atom", atoms), ("learned direction", learned)):
        check_finite(vectors, name, column="dimension")
    return unit_rows(atoms.cpu()) @ unit_rows(learned.cpu()).T


def _auroc(positive: Tensor, negative: Tensor) -> float:
    if not len(positive) or not len(negative):
        return float("nan")
    target = [1] * len(positive) + [0] * len(negative)
    return float(roc_auc_score(target, double(torch.cat([positive, negative])).numpy()))


def _rank(a: Tensor, b: Tensor) -> float:
    if len(a) < 3 or float(a.max() - a.min()) == 0 or float(b.max() - b.min()) == 0:
        return float("nan")
    return float(spearmanr(double(a).numpy(), double(b).numpy()).statistic)
