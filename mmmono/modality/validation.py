"""What a feature set finds of planted concepts: directions, codes, modality and classes against the truth."""

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
from mmmono.modality.partition import FeatureClass, Partition

CLASS_OF_KIND: tuple[FeatureClass, ...] = ("ImgD", "TextD", "CrossD")  # image-only, text-only, shared


@dataclass(frozen=True)
class Match:
    """Each concept in the feature that correlates with it most.

    Attributes:
        feature: that feature, for each concept.
        correlation: with it.
        concept: the other way round, the concept that correlates most with each feature.
    """

    feature: Int64[Tensor, " atoms"]
    correlation: Float[Tensor, " atoms"]
    concept: Int64[Tensor, " features"]

    @classmethod
    def of(cls, correlations: Float[Tensor, "atoms features"]) -> Match:
        """From correlations of the concepts' codes with the features' activations, over both modalities' samples."""
        best, feature = correlations.max(1)
        return cls(feature, best, correlations.argmax(0))


@dataclass(frozen=True)
class Separation:
    """How well a score of the features' modality tells the concepts' kinds and gains.

    Attributes:
        auroc_image: of telling image-only from shared concepts.
        auroc_text: of telling text-only from shared ones.
        rank_correlation: Spearman's ρ with the true gains over shared concepts; NaN where all gains are equal.
    """

    auroc_image: float
    auroc_text: float
    rank_correlation: float


def separation(
    scores: Float[Tensor, " features"],
    match: Match,
    kind: Int64[Tensor, " atoms"],
    gain: Float[Tensor, " atoms"],
) -> Separation:
    """Compare scores that rise with the image side's dominance with what was planted; dead features are left out.

    Args:
        scores: of the features; NaN marks dead ones.
        match: which feature each concept is looked for in.
        kind: 0 image-only, 1 text-only, 2 shared.
        gain: how strongly images show a concept over how strongly texts do.
    """
    own = scores[match.feature]
    image, text, shared = (~own.isnan() & (kind == k) for k in range(3))
    return Separation(
        auroc_image=_auroc(own[image], own[shared]),
        auroc_text=_auroc(-own[text], -own[shared]),
        rank_correlation=_rank(own[shared], gain[shared]),
    )


def balanced_accuracy(partition: Partition, match: Match, kind: Int64[Tensor, " atoms"]) -> float:
    """Mean over the kinds of the share of concepts whose feature is in the class of their kind.

    Each kind weighs the same, so that putting every feature into the commonest class scores no more than that. Kinds of
    which there is no concept are left out; NaN where there is no concept at all.
    """
    classes = partition.class_of()
    shares = []
    for number, expected in enumerate(CLASS_OF_KIND):
        if members := match.feature[kind == number].tolist():
            shares.append(sum(classes[feature] == expected for feature in members) / len(members))
    return sum(shares) / len(shares) if shares else float("nan")


@dataclass(frozen=True)
class Discoveries:
    """Features said to lean to a modality.

    Attributes:
        made: how many.
        false: how many of them stand for a concept that leans nowhere.
    """

    made: int
    false: int

    @property
    def proportion(self) -> float:
        """False discovery proportion, 0 where nothing was discovered; its expectation is the false discovery rate."""
        return self.false / max(1, self.made)


def discoveries(partition: Partition, match: Match, kind: Int64[Tensor, " atoms"]) -> Discoveries:
    """Count members of ImgD and TextD, and those that correlate most with a shared concept.

    They are false only where the gains of shared concepts are exactly 1: then image and text show such a concept alike,
    R(d) of its codes is ½ in expectation, and the null is true.
    """
    found = torch.cat([partition.image_dominant, partition.text_dominant])
    return Discoveries(made=len(found), false=int((kind[match.concept[found]] == 2).sum()))


def mean_max_cosine(atoms: Float[Tensor, "atoms dim"], learned: Float[Tensor, "features dim"]) -> float:
    """Mean over atoms of the highest cosine with a learned direction: 1 where every atom is found."""
    return float(_cosines(atoms, learned).amax(1).mean())


def matched_cosine(atoms: Float[Tensor, "atoms dim"], learned: Float[Tensor, "features dim"]) -> float:
    """Mean cosine of atoms with learned directions, one to one, as the assignment that maximizes it has them.

    Unlike `mean_max_cosine` it does not count a direction twice that stands for two atoms (Hungarian algorithm). Atoms
    that are left over where there are fewer directions count as 0.
    """
    cosines = _cosines(atoms, learned).numpy()
    return float(cosines[linear_sum_assignment(cosines, maximize=True)].sum() / len(atoms))


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean with the ends of its t interval over values that are not NaN.

    The ends are NaN for a single value, all three for none.
    """
    known = [value for value in values if value == value]
    if len(known) < 2:
        return (known[0] if known else float("nan"), float("nan"), float("nan"))
    mean = math.fsum(known) / len(known)
    if max(known) == min(known):
        return mean, mean, mean
    low, high = ttest_1samp(known, 0.0).confidence_interval(level)
    return mean, float(low), float(high)


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
