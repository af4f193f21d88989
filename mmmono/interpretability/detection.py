"""Does a name tell the samples that activate a feature from those that do not? AUROC with interval, against other names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy.stats import rankdata
from scipy.stats import t as student
from torch import Tensor

from mmmono.core.proportions import wilson
from mmmono.core.statistics import effective_groups
from mmmono.modality.groups import numbered_groups

Array = np.ndarray[Any, Any]
PSEUDO = 0.5  # squared deviations of two more groups, one on either side; see `detection`
LEAST_ACTIVE = 10  # groups with an active sample, and groups without, that a feature must have to be tested


@dataclass(frozen=True)
class Detection:
    """How well each feature's own name detects it.

    Attributes:
        auroc: P(score of an active sample > that of an inactive one) + ½ P(equal), by the similarity of samples to the name;
            NaN for features without a name or with too few samples to test.
        chance: mean AUROC of other features' names for the same feature.
        better: share of these names that detect the feature at least as well; 0 if there are none.
        trials: number of independent coin flips that would be as uncertain, see `detection`.
        active: number of active samples.
        groups: number of groups with an active sample.
        effective: that number, as many of equal size as say as much: m² / Σ m_g² for m active samples, m_g of them in
            group g (Kish 1965); NaN if not tested.
    """

    auroc: Float64[Tensor, " features"]
    chance: Float64[Tensor, " features"]
    better: Float64[Tensor, " features"]
    trials: Float64[Tensor, " features"]
    active: Int64[Tensor, " features"]
    groups: Int64[Tensor, " features"]
    effective: Float64[Tensor, " features"]

    def interval(self, level: float = 0.95) -> Float64[Tensor, "2 features"]:
        """Wilson's interval for a share, with `trials` trials and Student's t with one degree less than effective groups."""
        bounds = wilson((self.auroc * self.trials).numpy(), self.trials.numpy(), level, self._freedom)
        return torch.where(self.auroc.isnan(), torch.nan, torch.from_numpy(np.stack(bounds)))

    @property
    def _freedom(self) -> Float64[Array, " features"]:
        return (self.effective - 1).clamp_min(1).numpy()

    @property
    def p_value(self) -> Float64[Tensor, " features"]:
        """One-sided p-value of an AUROC above chance; NaN if not tested. It is the score test that belongs to the interval.

        What is to be exceeded is ½, or `chance` if that is more: other names may detect a feature, too, because both they
        and the feature are about the same things. `chance` is their mean: a related but wrong name may exceed it, so look at
        `better`, too.
        """
        null = self.chance.clamp_min(0.5)
        spread = (null * (1 - null) / self.trials).sqrt()
        statistic = ((self.auroc - null) / spread).numpy()
        return torch.from_numpy(student.sf(statistic, self._freedom))


def detection(
    similarity: Float[Tensor, "names samples"],
    active: Bool[Tensor, "samples features"],
    name_of: Int64[Tensor, " features"],
    groups: Int64[Array, " samples"],
    others: Sequence[int],
) -> Detection:
    """Test the name of every feature on samples that it was not chosen on.

    Pairs of a group are not independent. The variance of an AUROC is that of the sums by group of its structural components
    (DeLong et al. 1988, by clusters: Obuchowski 1997), the square of each sum divided by 1 − w for a group with the share w
    of the active or of the inactive samples, whichever is larger (as in `group_mean`). The number of trials is AUROC (1 −
    AUROC) over this variance, with the squared deviations of two more groups, one right and one wrong, added to the m active
    ones (as Agresti and Min 2005 do for rates): a name that makes no mistake in ten groups is not certain, and neither is
    one that no sample has.

    Args:
        similarity: of each name to each sample's text, by an embedder that took no part in naming.
        active: which samples activate which features.
        name_of: row of each feature's name in `similarity`; −1 for features without one.
        groups: group of each sample, as numbers from 0 on.
        others: rows of the names that are the null: those of all features. A feature's own name is left out.
    """
    groups = numbered_groups(groups)
    tested = torch.from_numpy(_groups_with(active, groups) >= LEAST_ACTIVE)
    tested &= torch.from_numpy(_groups_with(~active, groups) >= LEAST_ACTIVE) & (name_of >= 0)
    scores = similarity.double().numpy()
    ranks = rankdata(scores[list(others)], axis=1) if len(others) else np.empty((0, scores.shape[1]))
    null = auroc_of_ranks(ranks, active)
    own, trials = (torch.full((len(name_of),), torch.nan, dtype=torch.float64) for _ in range(2))
    chance, better, effective = own.clone(), own.clone(), own.clone()
    held = _groups_with(active, groups)
    place = torch.tensor(list(others), dtype=torch.int64)
    for feature in tested.nonzero().squeeze(1).tolist():
        members = active[:, feature].numpy()
        auroc, variance = _by_group(scores[int(name_of[feature])], members, groups)
        effective[feature] = effective_groups(groups[members])
        more = PSEUDO / (held[feature] + 2)
        own[feature] = auroc
        trials[feature] = (auroc * (1 - auroc) + more) / (variance + more / (held[feature] + 2))
        of_others = null[feature][place != name_of[feature]]
        chance[feature] = of_others.mean() if len(of_others) else 0.5
        better[feature] = (of_others >= auroc).double().mean() if len(of_others) else 0.0
    return Detection(own, chance, better, trials, active.sum(0), torch.from_numpy(held), effective)


def _groups_with(active: Bool[Tensor, "samples features"], groups: Array) -> Int64[Array, " features"]:
    """Number of groups that have a marked sample, for each feature."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.asarray(np.logical_or.reduceat(active.numpy()[order], starts, axis=0).sum(0), np.int64)


def auroc_of_ranks(ranks: Float64[Array, "names samples"], active: Bool[Tensor, "samples features"]) -> Tensor:
    """AUROC of every name for every feature by Mann and Whitney's U, `[features, names]`; NaN without samples of both."""
    members = active.double()
    count = members.sum(0)[:, None]
    wins = members.T @ torch.from_numpy(ranks).T - count * (count + 1) / 2
    return wins / (count * (len(active) - count))


def _by_group(scores: Float64[Array, " samples"], members: Array, groups: Array) -> tuple[float, float]:
    """AUROC of one name for one feature, and its variance by groups."""
    above, below = scores[members], scores[~members]
    m, n = len(above), len(below)
    ranks = rankdata(np.concatenate([above, below]))
    wins = (ranks[:m] - rankdata(above)) / n  # of each active sample: share of the inactive ones below it
    losses = 1 - (ranks[m:] - rankdata(below)) / m  # of each inactive one: share of the active ones above it
    auroc = float(wins.mean())
    parts = np.empty(len(scores))
    parts[members], parts[~members] = (wins - auroc) / m, (losses - auroc) / n
    sums = np.bincount(groups, parts)
    shares = [np.bincount(groups[side], minlength=len(sums)) / side.sum() for side in (members, ~members)]
    return auroc, float((sums**2 / (1 - np.maximum(*shares))).sum())
