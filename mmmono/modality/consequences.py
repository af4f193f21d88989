"""What a model loses without a class of features: removal, its mirror, and single features, beside matched random sets.

Section 2.2 asks whether classification of one modality suffers. Here the question is what ties the modalities together.
Dropping the unimodal features of a dictionary and keeping the shared ones alone is the experiment of IsoEnergy (arXiv
2602.06218, 2026, "bimodal" features).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from mmmono.core.crossed import crossed_mean
from mmmono.core.ranges import check_whole
from mmmono.core.statistics import Estimate, Interval, effective_groups, group_mean, jackknife, t_mean
from mmmono.modality.intervals import PSEUDO_SCATTER
from mmmono.modality.partition import LIVE_CLASSES, FeatureClass, Partition
from mmmono.modality.random_sets import Activity, Match, check_match, random_pool, random_set
from mmmono.modality.removal_outcomes import Outcome, RemovalBench, SampleMeasure

Array = np.ndarray[Any, Any]
UNEQUAL_SCATTER = 7 / 16  # see `grouped_rate`
Change = Literal["drop", "keep"]
CHANGES: tuple[Change, ...] = ("drop", "keep")


@dataclass(frozen=True)
class RemovalPlan:
    """Which sets of features are dropped, or kept alone.

    Attributes:
        shares: shares of a class, ascending, the last of them 1. Below 1, each draw takes other features at random, and
            the features of a smaller share are among those of a larger one.
        n_random: draws of features of a class at shares below 1, and of random sets like them at every share.
        random_sets: what random sets have in common with the features of the class besides their number: `energy`,
            `frequency`, or only the `size`; see `mmmono.modality.random_sets`.
        seed: of all draws.
        changes: whether the sets are dropped, kept alone, or both.
        ranked: random sets of a whole class of which the effective rank is measured, which takes longer than all the
            rest; 0: it is measured of no set, not even of the class.

    Raises:
        ValueError: a setting is out of range.
    """

    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0)
    n_random: int = 10
    random_sets: Match = "energy"
    seed: int = 0
    changes: Sequence[Change] = CHANGES
    ranked: int = 5

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip([0.0, *self.shares], self.shares, strict=False))
        if not self.shares or not ascending or self.shares[-1] != 1:
            raise ValueError(f"shares={list(self.shares)} must ascend from above 0 to 1")
        check_whole("n_random", self.n_random, least=2)
        check_whole("ranked", self.ranked, least=0)
        check_match(self.random_sets)


@dataclass(frozen=True)
class Removal:
    """A class, or a share of it, that was dropped or kept alone, beside random sets like it.

    Attributes:
        change: `drop`, or `keep`: all features but these are removed.
        of: the class.
        share: share of its features.
        features: their number.
        own: outcomes with the class: one, or one for each draw if the share is below 1.
        random: outcomes with random sets; none if the class holds all live features, see `random_pool`.
        energy, random_energy: share of Σ z² over both modalities that the features carry, on average over draws; None
            without random sets.
        mismatch: largest mismatch of the random sets, see `RandomSet`; None without them.
    """

    change: Change
    of: FeatureClass
    share: float
    features: int
    own: Sequence[Outcome]
    random: Sequence[Outcome]
    energy: float
    random_energy: float | None
    mismatch: float | None


def removals(
    bench: RemovalBench,
    partition: Partition,
    activity: Activity,
    plan: RemovalPlan = RemovalPlan(),
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Removal]:
    """Drop each class, and keep each class alone, at every share; classes without features are left out.

    Args:
        bench: measures what is left.
        partition: the classes.
        activity: of the features, over both modalities (`Activity.__add__`), in which random sets are matched.
        plan: which sets.
        advance: called after each of `number_of_sets` measurements.
    """
    weights = activity.weights(plan.random_sets)
    for of in LIVE_CLASSES:
        rng = np.random.default_rng(plan.seed)
        members = partition[of].numpy()
        if not len(members):
            continue
        orders = [rng.permutation(members) for _ in range(plan.n_random)]
        for share in plan.shares:
            size = max(1, round(share * len(members)))
            own = [np.sort(order[:size]) for order in orders[: 1 if share == 1 else None]]
            pool = random_pool(partition, of, size, plan.random_sets)
            like = [own[draw % len(own)] for draw in range(plan.n_random)] if len(pool) else []
            drawn = [random_set(pool, mine, weights, rng) for mine in like]
            ranked = plan.ranked if share == 1 else 0
            for change in plan.changes:
                yield Removal(
                    change, of, share, size,
                    own=_measured(bench, change, own, ranked, advance),
                    random=_measured(bench, change, [s.members for s in drawn], ranked, advance),
                    energy=_energy(activity, own),
                    random_energy=_energy(activity, [s.members for s in drawn]) if drawn else None,
                    mismatch=max((s.mismatch for s in drawn), default=None),
                )  # fmt: skip


def number_of_sets(partition: Partition, plan: RemovalPlan) -> int:
    """Number of measurements that `removals` takes."""
    sizes = [len(partition[of]) for of in LIVE_CLASSES if len(partition[of])]
    own = plan.n_random * (len(plan.shares) - 1) + 1
    random = plan.n_random * len(plan.shares)
    return len(plan.changes) * sum(own + (random if size < len(partition.live) else 0) for size in sizes)


def _measured(
    bench: RemovalBench, change: Change, sets: Sequence[Array], ranked: int, advance: Callable[[], None]
) -> list[Outcome]:
    outcomes = []
    for number, members in enumerate(sets):
        removed = members if change == "drop" else np.setdiff1d(np.arange(bench.features), members)
        outcomes.append(bench.outcome(torch.from_numpy(removed), number < ranked))
        advance()
    return outcomes


def _energy(activity: Activity, sets: Sequence[Array]) -> float:
    return float(np.mean([activity.share(members) for members in sets]))


def mean_of(outcomes: Sequence[Outcome], measure: str) -> Estimate | None:
    """Mean of a measure over outcomes, with its error over groups and, of several outcomes, over sets as well.

    Both are crossed factors. The effective rank has no error. None if the measure was not, or cannot be, measured.
    """
    if measure in outcomes[0].samples:
        return _over_samples(_values(outcomes, measure), outcomes[0].samples[measure])
    if measure == "gap":
        return _of_gaps(outcomes, ())
    found = [number for outcome in outcomes if (number := outcome.number(measure)) is not None]
    return Estimate(float(np.mean(found))) if found else None


def interval_of(outcomes: Sequence[Outcome], measure: str) -> Interval:
    """Interval of `mean_of`: Wilson's of rates, else Student's t; without bounds, or a value, where there are none."""
    found = mean_of(outcomes, measure)
    if found is None:
        return Interval(float("nan"))
    if measure in outcomes[0].samples and measure != "contrastive_loss":
        return grouped_rate(found, outcomes[0].samples[measure].groups.numpy())
    return found.interval()


def grouped_rate(found: Estimate, groups: Int[Array, " values"]) -> Interval:
    """Interval of a rate over groups of several values: `Estimate.rate_interval`, with scatter added.

    If few large groups decide, they often agree with each other by chance, and the error is far too small. So the more
    unequal the groups are, the more scatter is added: 1/16 to 1/2, chosen among a few values by the coverage in simulations
    of groups like those of emoji; `make calibrate` checks one of them.

    Args:
        found: the rate, with its error by `group_mean` or `crossed_mean`.
        groups: group of each value.
    """
    effective, count = effective_groups(groups), len(np.unique(groups))
    scatter = PSEUDO_SCATTER + UNEQUAL_SCATTER * (1 - effective / count)
    return found.rate_interval(effective, scatter=scatter if count < len(groups) else 0.0)


def difference(outcomes: Sequence[Outcome], others: Sequence[Outcome], measure: str) -> Estimate | None:
    """Mean of a measure minus that of other outcomes, of which one side may have several, paired by sample.

    Errors are as in `mean_of`. None if either side lacks the measure.
    """
    if measure in outcomes[0].samples and measure in others[0].samples:
        first = outcomes[0].samples[measure]
        found = _over_samples(_values(outcomes, measure) - _values(others, measure), first)
        return found if measure == "contrastive_loss" else found.of_outcomes(len(np.unique(first.groups.numpy())))
    if measure == "gap":
        return _of_gaps(outcomes, others)
    means = [mean_of(side, measure) for side in (outcomes, others)]
    if means[0] is None or means[1] is None:
        return None
    return Estimate(means[0].value - means[1].value)


def _values(outcomes: Sequence[Outcome], measure: str) -> Float[Array, "sets samples"]:
    return np.stack([outcome.samples[measure].values.numpy() for outcome in outcomes])


def _over_samples(values: Float[Array, "sets samples"], like: SampleMeasure) -> Estimate:
    groups = like.groups.numpy()
    if len(values) == 1:
        return group_mean(values[0], groups)
    sets = np.repeat(np.arange(len(values)), values.shape[1])
    return crossed_mean(values.ravel(), np.tile(groups, len(values)), sets, "groups and sets")


def _of_gaps(outcomes: Sequence[Outcome], others: Sequence[Outcome]) -> Estimate | None:
    """Mean gap of outcomes, minus that of others if there are any; both kinds of error are added as variances."""
    sides = [[outcome.gap for outcome in side if outcome.gap is not None] for side in (outcomes, others)]
    if not sides[0] or (others and not sides[1]):
        return None
    signs = list(zip(sides, (1, -1), strict=True))[: 2 if others else 1]
    value = sum(sign * float(np.mean([gap.value for gap in gaps])) for gaps, sign in signs)
    without = sum(sign * torch.stack([gap.without for gap in gaps]).mean(0) for gaps, sign in signs)
    assert isinstance(without, torch.Tensor)
    found = jackknife(value, without.numpy())
    for gaps, _ in signs:
        if len(gaps) > 1:
            sets = t_mean(np.array([gap.value for gap in gaps]))
            found = Estimate(value, float(np.hypot(found.error, sets.error)), min(found.freedom, sets.freedom))
    return found


@dataclass(frozen=True)
class SingleRemovals:
    """What retrieval loses without each feature alone, as changes of the mean reciprocal rank (MRR) of both ways.

    Features with the largest effect are found on half of the groups of queries, so that the effects on the others are
    not the largest by choice.

    Attributes:
        features: indices of the features.
        everything: change over all queries; negative if retrieval suffers.
        selecting: change over the first half.
        held_out: change over the second half.
        second_half: mask of the queries of the second half.
    """

    features: Int[Tensor, " features"]
    everything: Float64[Tensor, " features"]
    selecting: Float64[Tensor, " features"]
    held_out: Float64[Tensor, " features"]
    second_half: Bool[Tensor, " queries"]

    @property
    def agreement(self) -> float:
        """Correlation of the changes on both halves; NaN with fewer than two features, or if a half has equal changes."""
        table = torch.stack([self.selecting, self.held_out])
        if len(self.features) < 2 or bool((table.amax(1) == table.amin(1)).any()):
            return float("nan")
        return float(torch.corrcoef(table)[0, 1])

    def most(self, k: int) -> list[int]:
        """Places of the k features that change most, in either direction, on the first half; the largest first."""
        return self.selecting.abs().argsort(descending=True, stable=True)[:k].tolist()


def single_removals(
    bench: RemovalBench, features: Int[Tensor, " features"], seed: int = 0, advance: Callable[[], None] = lambda: None
) -> SingleRemovals:
    """Remove each feature alone and rank again; each removal changes the products by a matrix of rank 1 or 2.

    Args:
        bench: measures retrieval.
        features: indices of the features, such as the live ones.
        seed: of the halves of the groups.
        advance: called after each feature.
    """
    before = bench.retrieved(torch.empty(0, dtype=torch.int64))
    groups = torch.unique(before.groups)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(groups)))
    second = torch.isin(before.groups, groups[order[len(groups) // 2 :]])
    rows = []
    active = bench.pairs.active()
    for feature in features.tolist():
        if not active[feature]:  # most latents of a wide dictionary: what none of these pairs activates changes nothing
            rows.append([0.0, 0.0, 0.0])
            advance()
            continue
        change = bench.retrieved(torch.tensor([feature])).reciprocal() - before.reciprocal()
        rows.append([float(change[part].mean()) for part in (torch.ones_like(second), ~second, second)])
        advance()
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    return SingleRemovals(features, table[:, 0], table[:, 1], table[:, 2], second)


def held_out_change(bench: RemovalBench, singles: SingleRemovals, feature: int) -> tuple[Estimate, Estimate]:
    """Changes of MRR and of R@1 (both ways) without a feature on the second half of the queries, with errors over groups."""
    before, after = (bench.retrieved(torch.tensor(removed, dtype=torch.int64)) for removed in ([], [feature]))
    groups = before.groups[singles.second_half].numpy()
    changes = (after.reciprocal() - before.reciprocal(), after.recall(1) - before.recall(1))
    mrr, recall = (group_mean(change[singles.second_half].numpy(), groups) for change in changes)
    count = len(np.unique(groups))
    return mrr.of_shares(count, limit=1.0), recall.of_outcomes(count)
