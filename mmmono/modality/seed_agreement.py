"""Agreement of dictionaries trained with different seeds, corrected for noise, and the features found by all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy.stats import norm, rankdata
from torch import Tensor

from mmmono.core.finite import check_finite, double
from mmmono.core.ranges import check_whole
from mmmono.core.statistics import Interval
from mmmono.core.streams import Stream, require_equal
from mmmono.features.grouping import GroupNumbers
from mmmono.features.rows import check_pairs
from mmmono.modality.agreement import adjusted_rand_index, rank_correlation, reordered
from mmmono.modality.dominance import paired_ratio
from mmmono.modality.partition import Partition
from mmmono.modality.scores import Undefined, check_undefined

FARTHEST = 0.95  # from 0, for Fisher's scale; see `corrected_interval`


class HalvesStream(Stream[[Tensor, Tensor, GroupNumbers], Float64[Tensor, "2 n_halves features"]]):
    """R(d) on both halves of random halvings of the groups, in one pass over the pairs.

    The halves are drawn at the start, by group: two dictionaries that are scored with the same seed have the same halves,
    and parts of a store can be walked separately.

    Args:
        n_groups: number of groups; groups are numbered from 0.
        n_halves: number of halvings.
        seed: seed of the halvings.
        undefined: pairs in which both activations are 0 are left out (`skip`) or count as 0.5 (`half`).

    Raises:
        ValueError: there are fewer than two groups or no halving, or `undefined` is unknown.
    """

    def __init__(self, n_groups: int, n_halves: int = 20, seed: int = 0, undefined: Undefined = "skip") -> None:
        if n_groups < 2:
            raise ValueError(f"{n_groups} groups of pairs cannot be halved: at least 2 are needed")
        check_whole("n_halves", n_halves)
        check_undefined(undefined)
        self.identity = (n_groups, n_halves, seed, undefined)
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(n_groups, generator=generator) for _ in range(n_halves)]
        self._in_first = torch.stack([order < n_groups // 2 for order in orders])  # [n_halves, n_groups]
        self._excess: Tensor | None = None  # float64 [2 · n_halves, features]: sums of ratio − ½
        self._counts: Tensor  # the same of the number of pairs
        self._seen = 0

    def add(
        self, image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"], groups: GroupNumbers
    ) -> None:
        """Add a block of pairs.

        Args:
            image, text: activations; row i of both belongs to the same pair.
            groups: group of each pair.

        Raises:
            NonFiniteError: an activation is NaN or infinite.
            TypeError: a side is no tensor.
            ValueError: the sides differ in shape, there is not one group for each pair, or no such group.
        """
        check_pairs(image, text, None if self._excess is None else self._excess.shape[1])
        codes = np.asarray(groups)
        if codes.shape != (len(image),):
            raise ValueError(
                f"groups of shape {codes.shape} given for a block of {len(image)} pairs: give one for each"
            )
        if len(codes) and not 0 <= codes.min() <= codes.max() < self._in_first.shape[1]:
            raise ValueError(
                f"groups {codes.min()} to {codes.max()} given, but the halves are those of groups 0 to "
                f"{self._in_first.shape[1] - 1}: set n_groups"
            )
        check_finite(image, "image", self._seen)
        check_finite(text, "text", self._seen)
        ratio = paired_ratio(image, text)
        known = ~ratio.isnan()
        excess = double((ratio - 0.5).masked_fill_(~known, 0))
        counted = torch.ones_like(known) if self.identity[-1] == "half" else known
        first = self._in_first[:, torch.from_numpy(codes)]
        weights = torch.cat([first, ~first]).to(device=excess.device, dtype=torch.float64)
        if self._excess is None:
            self._excess, self._counts = (excess.new_zeros(len(weights), image.shape[1]) for _ in range(2))
        self._excess.addmm_(weights, excess)
        self._counts.addmm_(weights, double(counted))
        self._seen += len(image)

    def shared(self) -> tuple[object, ...]:
        """Return the half of each group in each halving; see `Stream.shared`."""
        return (self._in_first,)

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream; see `Stream.merge`."""
        require_equal("(n_groups, n_halves, seed, undefined)", self.identity, other.identity)
        if other._excess is None:
            return
        if self._excess is None:
            self._excess, self._counts = other._excess.clone(), other._counts.clone()
        else:
            self._excess += other._excess.to(self._excess.device)
            self._counts += other._counts.to(self._counts.device)
        self._seen += other._seen

    def result(self) -> Float64[Tensor, "2 n_halves features"]:
        """Return R(d) on both halves; NaN where no pair of a half has an activation. Raises ValueError without pairs."""
        if self._excess is None:
            raise ValueError("no activations to score")
        return (0.5 + self._excess / self._counts).unflatten(0, (2, -1)).cpu()


@dataclass(frozen=True)
class SeedScores:
    """Scores and classes of one dictionary, on all pairs and on random halves of them.

    Attributes:
        scores: R(d).
        partition: classes by these scores; features with too few informative pairs are dead.
        halves: R(d) on both halves of random halvings of the groups; see `HalvesStream`.
    """

    scores: Float64[Tensor, " features"]
    partition: Partition
    halves: Float64[Tensor, "2 n_halves features"]

    @property
    def live(self) -> Bool[Tensor, " features"]:
        """Which features are live."""
        return self.partition.is_live

    def reordered(self, partners: Int64[Tensor, " features"]) -> SeedScores:
        """Renumber the features: feature i of the result is feature `partners[i]` of this dictionary."""
        return SeedScores(self.scores[partners], reordered(self.partition, partners), self.halves[..., partners])


@dataclass(frozen=True)
class SeedAgreement:
    """Agreement of the scores and classes of two dictionaries whose features are matched.

    Only features that are live in both dictionaries count.

    Attributes:
        features: number of these features.
        rho: rank correlation of R(d), both dictionaries scored on all pairs.
        ari: adjusted Rand index of the classes.
        across: rank correlation of R(d) of one dictionary on one half of the groups with R(d) of the other dictionary on
            the other half, averaged over both ways and all halvings.
        within: what `across` would be without a difference between the dictionaries: rank correlation of R(d) between
            halves of the groups under one seed, as the geometric mean of both dictionaries' means over the halvings. NaN
            if one is not positive beyond chance.
    """

    features: int
    rho: float
    ari: float
    across: float
    within: float


def seed_agreement(first: SeedScores, second: SeedScores) -> SeedAgreement:
    """Compare scores and classes of two dictionaries.

    Args:
        first: the reference dictionary.
        second: another dictionary, reordered so that its feature i is the match of feature i of the first one. Its
            halves have to be those of the first one: the same groups and seed.

    Raises:
        ValueError: the dictionaries have different numbers of features or of halves.
    """
    require_equal("halves and features", tuple(first.halves.shape[1:]), tuple(second.halves.shape[1:]))
    live = first.live & second.live
    a, b = first.halves[..., live], second.halves[..., live]
    return SeedAgreement(
        features=int(live.sum()),
        rho=rank_correlation(first.scores[live], second.scores[live]),
        ari=adjusted_rand_index(first.partition, second.partition),
        across=(_correlation(a[0], b[1]) + _correlation(a[1], b[0])) / 2,
        within=math.prod(_reliable(_correlation(*of), int(live.sum())) for of in (a, b)) ** 0.5,
    )


def corrected_correlation(across: float, within: float, chance: float = 0.0) -> float:
    """Agreement of R(d) between seeds, corrected for noise and for chance: 0 is chance, 1 as much as noise allows.

    Noise: the pairs are a sample, so R(d) is noisy, and noise lowers a correlation. The usual correction (Spearman 1904)
    divides it by √(rel_a · rel_b), the reliabilities of both scores. That holds for independent errors; but features that
    are alike share their errors if they are scored on the same pairs, and two equal dictionaries would come out far above
    1. So one dictionary is scored on one half of the groups and the other one on the rest, and the reliability is that
    of halves too. With independent errors this equals the correlation on all pairs, divided by reliabilities that are
    stepped up to all pairs by the Spearman-Brown formula.

    Chance: even if two dictionaries share nothing, matching pairs features that vary in the same modality, and these have
    similar R(d). The agreement by this comes off numerator and denominator, as in Cohen's κ.

    Ranks: the correction holds for Pearson's correlation. So rank correlations become those of normal distributions with
    such ranks, 2 sin(π ρ / 6) (Pearson 1907), are corrected, and become rank correlations again.

    Args:
        across: see `SeedAgreement`.
        within: see `SeedAgreement`.
        chance: `across` after matching on shuffled pairs; 0 for the correction for noise alone.

    Returns:
        The rank correlation of normal distributions that correlate by (across − chance) / (within − chance), each taken as
        above; 3 if this is 2 or more, NaN if `within` is NaN, or not above chance.
    """
    across, within, chance = (2 * math.sin(math.pi * rho / 6) for rho in (across, within, chance))
    if not within > chance:
        return math.nan
    return 6 / math.pi * math.asin(min(1.0, max(-1.0, (across - chance) / (within - chance) / 2)))


def corrected_interval(
    first: SeedScores, others: Sequence[SeedScores], chance: float = 0.0, n_bootstrap: int = 1000, seed: int = 0
) -> Interval:
    """Return the mean agreement with several other seeds, corrected for noise and for chance, with its interval.

    The interval is normal on Fisher's (1921) scale, artanh, with the standard error of a bootstrap over the features of the
    reference: each resample takes the same features and their matches from all dictionaries. It holds the ranks of the
    scores, the pairs and `chance` fixed. Unlike a symmetric one it is longer towards 0, from where estimates that noise
    has raised come. Estimates beyond ±.95, where that scale has no end, have the interval of ±.95, shifted.

    Args:
        first: the reference dictionary.
        others: dictionaries of other seeds, reordered as the reference; see `seed_agreement`.
        chance: see `corrected_correlation`.
        n_bootstrap: resamples.
        seed: seed of the resamples.

    Returns:
        The estimate of `corrected_correlation` from the means of `across` and `within` over the other seeds. It has no
        bounds if it is NaN, or in more than 2.5 % of the resamples.
    """
    found = [seed_agreement(first, other) for other in others]
    across, within = (float(np.mean([getattr(one, of) for one in found])) for of in ("across", "within"))
    value = corrected_correlation(across, within, chance)
    features = len(first.scores)
    counts = np.random.default_rng(seed).multinomial(features, np.full(features, 1 / features), size=n_bootstrap)
    drawn = np.mean([_resampled(first, other, counts) for other in others], axis=0)
    corrected = np.array([corrected_correlation(across, within, chance) for across, within in drawn])
    low = high = math.nan
    if not math.isnan(value) and np.isnan(corrected).mean() <= 0.025:
        inside = min(FARTHEST, max(-FARTHEST, value))
        reach = float(norm.ppf(0.975) * np.nanstd(corrected)) / (1 - inside**2)
        low, high = (value - inside + math.tanh(math.atanh(inside) + side * reach) for side in (-1, 1))
    return Interval(value, low, high, method="Fisher's z, bootstrap over features")


def _resampled(first: SeedScores, second: SeedScores, counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`across` and `within` of two dictionaries on resampled features, [resamples, 2]."""
    live = (first.live & second.live).numpy()
    weights = counts[:, live].astype(np.float64)
    a, b = (_ranks(of.halves[..., torch.from_numpy(live)].numpy()) for of in (first, second))

    def correlation(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Correlation on each resample, averaged over halvings."""
        total = weights.sum(1, keepdims=True)
        means = [weights @ side.T / total for side in (x, y)]
        deviations = [weights @ (side**2).T / total - mean**2 for side, mean in zip((x, y), means, strict=True)]
        together = weights @ (x * y).T / total - means[0] * means[1]
        found: np.ndarray[Any, Any] = (together / np.sqrt(deviations[0] * deviations[1])).mean(1)
        return found

    across = (correlation(a[0], b[1]) + correlation(a[1], b[0])) / 2
    within = [np.where(found > 0, found, np.nan) for found in (correlation(*a), correlation(*b))]
    return np.stack([across, np.sqrt(within[0] * within[1])], axis=1)


def _ranks(halves: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ranks over features, from −1 to 1; features without a score are in the middle."""
    ranks = rankdata(halves, axis=-1, nan_policy="omit")
    middle = np.nanmean(ranks, axis=-1, keepdims=True)
    scaled: np.ndarray[Any, Any] = np.nan_to_num(ranks - middle) / max(1, halves.shape[-1] / 2)
    return scaled


def reliability(within: float) -> float:
    """Reliability of R(d) on all pairs, from its correlation between halves (Spearman-Brown formula, 2ρ / (1 + ρ))."""
    return 2 * within / (1 + within)


def consensus_features(
    correlations: Float[Tensor, "others features"], live: Bool[Tensor, "seeds features"], threshold: float = 0.7
) -> Bool[Tensor, " features"]:
    """Tell which features of a dictionary are found again under every other seed.

    Args:
        correlations: correlation of each feature with its match, one row for each other seed; see `match_features`.
        live: whether the feature, or its match, is live, one row for each seed, the reference too.
        threshold: a match counts if its correlation is above this.
    """
    return (correlations > threshold).all(0) & live.all(0)


def class_shares(partitions: Sequence[Partition]) -> dict[str, Float64[Tensor, " features"]]:
    """Share of partitions in which each feature is ImgD, TextD and CrossD; what is missing to 1 is dead.

    Args:
        partitions: partitions of the same features, or of matched features in the same order.

    Raises:
        ValueError: there are no partitions.
    """
    if not partitions:
        raise ValueError("no partitions to count classes in")
    classes = np.array([partition.class_of() for partition in partitions])
    return {name: torch.from_numpy((classes == name).mean(0)) for name in ("ImgD", "TextD", "CrossD")}


def _correlation(first: Float[Tensor, "n_halves features"], second: Float[Tensor, "n_halves features"]) -> float:
    """Mean rank correlation over halvings."""
    return float(np.mean([rank_correlation(one, other) for one, other in zip(first, second, strict=True)]))


def _reliable(correlation: float, features: int) -> float:
    """Return a correlation between halves if it is positive beyond chance (one-sided, 2.5 %), else NaN."""
    return correlation if correlation > 1.96 / max(features - 1, 1) ** 0.5 else math.nan
