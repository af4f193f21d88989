"""What a feature set finds of planted concepts: codes, modality dominance and classes against the truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mmmono.modality.partition import FeatureClass, Partition

CLASS_OF_KIND: tuple[FeatureClass, ...] = ("ImgD", "TextD", "CrossD")  # image-only, text-only, shared
MARGIN = 0.01  # of true R(d) around ½ within which a concept is dominated by neither modality


@dataclass(frozen=True)
class PlantedRecovery:
    """How much of the truth a feature set tells; each concept is looked for in the feature that correlates with it most.

    Attributes:
        correlation: mean correlation of the concepts' codes with those features.
        auroc_image: of telling image-only from shared concepts by R(d); auroc_text: text-only from shared ones.
        rank_correlation: Spearman's ρ of R(d) with the true one over shared concepts; NaN where all gains are equal.
        accuracy_sigma: share of concepts whose feature is in the class of their kind, by the configured partition.
        accuracy_null: the same for the partition by the permutation null.
        false_discoveries: of the features that the null confirms, the share whose own concept does not lean that way.
        found: concepts whose feature is live.
    """

    correlation: float
    auroc_image: float
    auroc_text: float
    rank_correlation: float
    accuracy_sigma: float
    accuracy_null: float
    false_discoveries: float
    found: int


def planted_recovery(
    correlations: Float[Tensor, "atoms features"],
    kind: Int64[Tensor, " atoms"],
    true_scores: Float[Tensor, " atoms"],
    scores: Float[Tensor, " features"],
    by_sigma: Partition,
    by_null: Partition,
) -> PlantedRecovery:
    """Compare a feature set's scores and classes with the truth.

    Args:
        correlations: of the concepts' codes with the features' activations, over both modalities' samples.
        kind: 0 image-only, 1 text-only, 2 shared.
        true_scores: Eq. 1 on the concepts' codes.
        scores: R(d) of the features.
        by_sigma: classes by the configured rule.
        by_null: classes by the permutation null.
    """
    best, feature = correlations.max(1)
    own = scores[feature]
    live = ~own.isnan()
    image, text, shared = (live & (kind == k) for k in range(3))
    classes = [by_sigma.class_of(), by_null.class_of()]
    right = [
        sum(found[f] == CLASS_OF_KIND[k] for f, k in zip(feature.tolist(), kind.tolist(), strict=True)) / len(kind)
        for found in classes
    ]
    atom = correlations.argmax(0)
    lean = true_scores[atom]
    wrong = (lean[by_null.image_dominant] < 0.5 + MARGIN).sum() + (lean[by_null.text_dominant] > 0.5 - MARGIN).sum()
    discoveries = len(by_null.image_dominant) + len(by_null.text_dominant)
    return PlantedRecovery(
        correlation=float(best.mean()),
        auroc_image=_auroc(own[image], own[shared]),
        auroc_text=_auroc(-own[text], -own[shared]),
        rank_correlation=_rank(own[shared], true_scores[shared]),
        accuracy_sigma=right[0],
        accuracy_null=right[1],
        false_discoveries=float(wrong) / discoveries if discoveries else 0.0,
        found=int(live.sum()),
    )


def mean_max_cosine(atoms: Float[Tensor, "atoms dim"], learned: Float[Tensor, "features dim"]) -> float:
    """Mean over atoms of the highest cosine with a learned direction: 1 where every atom is found."""
    atoms, learned = (torch.nn.functional.normalize(x.float(), dim=1) for x in (atoms, learned))
    return float((atoms @ learned.T).amax(1).mean())


def _auroc(positive: Tensor, negative: Tensor) -> float:
    if not len(positive) or not len(negative):
        return float("nan")
    target = [1] * len(positive) + [0] * len(negative)
    return float(roc_auc_score(target, torch.cat([positive, negative]).numpy()))


def _rank(a: Tensor, b: Tensor) -> float:
    if len(a) < 3 or float(b.max() - b.min()) < MARGIN or float(a.max() - a.min()) == 0:
        return float("nan")
    return float(spearmanr(a.numpy(), b.numpy()).statistic)
