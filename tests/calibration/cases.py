"""The intervals and tests that mmmono prints, each in the regime in which it is used.

A case simulates one experiment with a known truth and says whether the interval covered it, or whether the test found
something though there was nothing. To add one, append a `Case` to `CASES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import norm

from mmmono.case_studies.adversarial.success import Crossing, success_rate
from mmmono.core.crossed import crossed_mean
from mmmono.core.statistics import Estimate, group_mean, holm, t_mean, wilson
from mmmono.features.removal import Composition, PairedCompositions
from mmmono.modality.consequences import difference, grouped_rate, interval_of
from mmmono.modality.removal_outcomes import Outcome as Removed
from mmmono.modality.removal_outcomes import RemovalBench
from mmmono.modality.trainings import holm_by_family, over_trainings
from tests.calibration import modality
from tests.calibration.studies import concept_study, enrichment_study, pair_sums

Array = np.ndarray[Any, Any]
Kind = Literal["coverage", "false positives"]
Outcome = bool | np.bool_ | Array  # of one experiment: covered or rejected; an array if it asks several times
NORMAL = norm.ppf((np.arange(1000) + 0.5) / 1000)
BOUNDS: dict[Kind, tuple[float, float]] = {"coverage": (0.93, 0.97), "false positives": (0.04, 0.06)}


@dataclass(frozen=True)
class Case:
    """An interval or a test in a regime.

    Attributes:
        name: what is printed, and where.
        regime: how many samples of which kind.
        kind: `coverage` of a nominal .95, or `false positives` of a nominal .05.
        simulate: does one experiment, and says whether the interval covered, or the test rejected.
        share: simulations relative to the other cases; less for slow ones.
        conservative: why the rate may lie on the safe side of its bounds (coverage above, false positives below), or
            empty; such a row is not out of bounds, and the table shows why.
    """

    name: str
    regime: str
    kind: Kind
    simulate: Callable[[np.random.Generator], Outcome]
    share: float = 1.0
    conservative: str = ""


def covers(estimate: Estimate, truth: float) -> bool:
    """Whether the interval of an estimate covers the truth."""
    interval = estimate.interval()
    return interval.low <= truth <= interval.high


def sigmoid(x: Array) -> Array:
    """Probability of log odds."""
    return 1 / (1 + np.exp(-x))


# Generation: one value a seed.
def seeds(rng: np.random.Generator) -> Outcome:
    """Mean over eight seeds, as skewed as distances are."""
    return covers(t_mean(rng.gamma(4.0, size=8)), 4.0)


def contrasts(rng: np.random.Generator) -> Outcome:
    """Sixteen contrasts of eight seeds, none of which is real: any that Holm rejects."""
    return min(holm([t_mean(x).p_value for x in rng.standard_normal((16, 8))])) <= 0.05


def trained(trainings: int, ratio: bool = False) -> Callable[[np.random.Generator], Outcome]:
    """One number of each training."""

    def simulate(rng: np.random.Generator) -> Outcome:
        values = rng.normal(0.04, 0.02, trainings)
        found = over_trainings(np.exp(values) if ratio else values, 1.0 if ratio else 0.0, ratio).mean
        return found.low <= (math.exp(0.04) if ratio else 0.04) <= found.high

    return simulate


def trained_contrasts(rng: np.random.Generator) -> Outcome:
    """Six contrasts of five trainings, none of which is real; as of classes dropped and kept they depend on each other."""
    values = rng.standard_normal((6, 5)) + rng.standard_normal(5)
    p_values = [over_trainings(own).p for own in values]
    return min(holm_by_family(p_values, ["one"] * 6)) <= 0.05


def equivalent(rng: np.random.Generator) -> Outcome:
    """The truth is 1, and is shown to be smaller than 1."""
    return t_mean(1 + 0.4 * rng.standard_normal(16)).equivalence_bound() < 1


# Groups, such as five captions of an image.
def captions(rng: np.random.Generator) -> Outcome:
    """Forty images with two to six captions each."""
    groups = np.repeat(np.arange(40), rng.integers(2, 7, 40))
    return covers(group_mean(rng.standard_normal(40)[groups] + rng.standard_normal(len(groups)), groups), 0.0)


# Table 1: test samples and random sets.
def ablation(rng: np.random.Generator) -> Outcome:
    """Accuracy of a class against five random sets, of which each loses another share of the 386 test samples."""
    ease = rng.standard_normal(386)
    own = rng.random(386) < sigmoid(1 + 2 * ease)
    random = rng.random((5, 386)) < sigmoid(1 + 2 * ease + 0.3 * rng.standard_normal((5, 1)))
    sets, samples = np.indices(random.shape)
    values = (own * 1.0 - random).ravel()
    found = crossed_mean(values, samples.ravel(), sets.ravel()).of_outcomes(386)
    return covers(found, _ablation_truth())


@cache
def _ablation_truth() -> float:
    x = np.random.default_rng(0).standard_normal((2, 2_000_000))
    return float((sigmoid(1 + 2 * x[0]) - sigmoid(1 + 2 * x[0] + 0.3 * x[1])).mean())


def accuracy(rng: np.random.Generator) -> Outcome:
    """Accuracy over 386 test samples, whatever it is."""
    rate = rng.uniform(0.05, 0.95)
    low, high = wilson(int(rng.binomial(386, rate)), 386)
    return low <= rate <= high


# Table 2: samples and references.
def concept(per_concept: int, draws: int) -> Callable[[np.random.Generator], Outcome]:
    """Fall of accuracy of one concept's samples."""
    return lambda rng: covers(concept_study(per_concept, draws, rng), _concept_truth())


@cache
def _concept_truth() -> float:
    return float(np.mean([concept_study(2000, 200, np.random.default_rng(seed)).value for seed in range(100)]))


def concept_without_effect(rng: np.random.Generator) -> Outcome:
    """Two features of the same gap: neither loss is larger."""
    return concept_study(60, 50, rng, alike=True).p_value <= 0.05


def enrichment(pairs: int) -> Callable[[np.random.Generator], Outcome]:
    """Enrichment of a class in the difference of minimal pairs."""
    return lambda rng: bool((found := enrichment_study(pairs, rng)).low <= _enrichment_truth() <= found.high)


@cache
def _enrichment_truth() -> float:
    sums = np.mean([pair_sums(20_000, np.random.default_rng(seed)).sum(1) for seed in range(10)], axis=0)
    return float(sums[0] / sums[1] / (sums[2] / sums[3]))


# Table 3: requests and benign images.
def design(requests: int, images: int, runs: int) -> Crossing:
    """Every request with another image in each run, as `draw_cases` has it."""
    request = np.tile(np.arange(requests), runs)
    return Crossing(request, (request + np.repeat(np.arange(runs), requests)) % images)


def attack_rate(requests: int, images: int, runs: int, base: float) -> Callable[[np.random.Generator], Outcome]:
    """Success rate; requests and images differ by one unit of log odds."""
    crossing = design(requests, images, runs)

    def simulate(rng: np.random.Generator) -> Outcome:
        chance = sigmoid(
            base + rng.standard_normal(requests)[crossing.requests] + rng.standard_normal(images)[crossing.images]
        )
        rate = success_rate([[bool(hit)] for hit in rng.random(len(chance)) < chance], crossing).rate
        return rate.low <= _attack_truth(base) <= rate.high

    return simulate


@cache
def _attack_truth(base: float) -> float:
    return float(sigmoid(base + 2**0.5 * np.random.default_rng(0).standard_normal(2_000_000)).mean())


def independent_rate(low: float, high: float) -> Callable[[np.random.Generator], Outcome]:
    """Success rate if neither request nor image matters.

    The rate is drawn, since counts are whole: at one rate coverage jumps up and down with the number of trials (Brown, Cai
    and DasGupta 2001, Section 2).
    """
    crossing = design(16, 8, 2)

    def simulate(rng: np.random.Generator) -> Outcome:
        rate = rng.uniform(low, high)
        found = success_rate([[bool(hit)] for hit in rng.random(32) < rate], crossing).rate
        return found.low <= rate <= found.high

    return simulate


def images_alone(rng: np.random.Generator) -> Outcome:
    """Success rate, another one in each experiment, if images matter and requests do not."""
    crossing, base = design(16, 8, 5), rng.uniform(-2.5, -1.5)
    hits = rng.random(80) < sigmoid(base + rng.standard_normal(8)[crossing.images])
    found = success_rate([[bool(hit)] for hit in hits], crossing).rate
    return found.low <= sigmoid(base + NORMAL).mean() <= found.high


def below_random(base: float) -> Callable[[np.random.Generator], Outcome]:
    """A class that defends as well as random features do, with two answers for each image."""
    crossing = design(16, 8, 2)

    def simulate(rng: np.random.Generator) -> Outcome:
        chance = sigmoid(base + rng.standard_normal(16)[crossing.requests] + rng.standard_normal(8)[crossing.images])
        own, random = (rng.binomial(2, chance) / 2 for _ in range(2))
        return crossing.mean(random - own).of_outcomes(len(own)).p_value <= 0.05

    return simulate


def margins(rng: np.random.Generator) -> Outcome:
    """Margins of cosines: requests, images and their cells differ."""
    crossing = design(16, 8, 2)
    values = rng.standard_normal(16)[crossing.requests] + rng.standard_normal(8)[crossing.images]
    return covers(crossing.mean(values + rng.standard_normal(32)), 0.0)


# Consequences: all queries search the same pairs, and a class is one of many sets like it.


def removal(rng: np.random.Generator, spread: float, random: bool = True) -> list[Removed]:
    """Outcomes without ten of forty features that are all alike, and, if wanted, without five random sets of the others."""
    shared = rng.standard_normal((120, 40))
    sides = [
        Composition(torch.from_numpy(shared + spread * rng.standard_normal(shared.shape) + at)) for at in (0.1, -0.1)
    ]
    bench = RemovalBench(PairedCompositions(*sides))
    others = [rng.choice(np.arange(10, 40), 10, replace=False) for _ in range(5)]
    sets = (np.arange(10), *others) if random else (np.arange(10),)
    return [bench.outcome(torch.from_numpy(np.sort(members)), False) for members in sets]


@cache
def _removals(spread: float) -> list[list[Removed]]:
    rng = np.random.default_rng(5)
    return [removal(rng, spread, random=False) for _ in range(1500)]


@cache
def _removal_truth(measure: str, spread: float) -> float:
    return float(np.mean([interval_of(removed, measure).value for removed in _removals(spread)]))


def recall(measure: str, spread: float) -> Callable[[np.random.Generator], Outcome]:
    def simulate(rng: np.random.Generator) -> Outcome:
        interval = interval_of(removal(rng, spread, random=False), measure)
        return interval.low <= _removal_truth(measure, spread) <= interval.high

    return simulate


def class_like_others(rng: np.random.Generator) -> Outcome:
    own, *like = removal(rng, 0.9)
    found = difference([own], like, "r1")
    assert found is not None
    return found.p_value <= 0.05


def rate_of_unequal_groups(rng: np.random.Generator) -> Outcome:
    """Rate near nine in ten of pairs in groups as of emoji, four of five of which are as their group is."""
    groups, rate = np.repeat(np.arange(len(EMOJI)), EMOJI), rng.uniform(0.87, 0.93)
    own, shared = rng.random(len(groups)) < rate, (rng.random(len(EMOJI)) < rate)[groups]
    values = np.where(rng.random(len(groups)) < 0.8, shared, own).astype(float)
    found = grouped_rate(group_mean(values, groups), groups)
    return found.low <= rate <= found.high


def sets_of_unequal_groups(rng: np.random.Generator) -> Outcome:
    """Change of values of pairs in groups as of emoji without ten sets: half of the variance is that of the groups."""
    groups = np.repeat(np.arange(len(EMOJI)), EMOJI)
    sets, pairs = np.indices((10, len(groups)))
    own = rng.standard_normal(len(EMOJI))[groups] + rng.standard_normal(len(groups))
    values = own + 0.2 * rng.standard_normal((10, 1)) + 0.5 * rng.standard_normal((10, len(groups)))
    return covers(crossed_mean(values.ravel(), groups[pairs].ravel(), sets.ravel()), 0.0)


EMOJI = [1] * 158 + [6] * 7 + [18] * 8 + [40]  # sizes of groups
RARE = "conservative: in half of the experiments five cells or fewer differ, where no exact test can reject"
CASES = [
    Case("generation: change (t)", "8 seeds, skewed", "coverage", seeds),
    Case("generation: contrasts (t, Holm)", "16 contrasts of 8 seeds", "false positives", contrasts),
    Case("equivalence bound (TOST)", "16 values at the bound", "false positives", equivalent),
    Case("mean by group (t)", "40 images, 2 to 6 captions", "coverage", captions),
    Case("Table 1: Δ random (crossed t)", "386 samples × 5 sets", "coverage", ablation, 0.5),
    Case("Table 1: accuracy (Wilson)", "386 samples", "coverage", accuracy),
    Case("Table 2: drop (samples, references)", "30 a concept, 50 draws", "coverage", concept(30, 50), 0.5),
    Case("Table 2: drop (samples, references)", "100 a concept, 50 draws", "coverage", concept(100, 50), 0.5),
    Case("Table 2: drop (samples, references)", "30 a concept, 400 draws", "coverage", concept(30, 400), 0.25),
    Case("Table 2: difference of drops", "60 a concept, 50 draws", "false positives", concept_without_effect, 0.5),
    Case("Paired test: enrichment (jackknife)", "10 pairs", "coverage", enrichment(10)),
    Case("Paired test: enrichment (jackknife)", "30 pairs", "coverage", enrichment(30)),
    Case("Paired test: enrichment (jackknife)", "100 pairs", "coverage", enrichment(100)),
    Case(
        "Table 3: rate (Wilson, crossed)",
        "16 requests × 8 images, 2 runs, rate .18",
        "coverage",
        attack_rate(16, 8, 2, -2.0),
    ),
    Case(
        "Table 3: rate (Wilson, crossed)",
        "16 requests × 8 images, 2 runs, rate .5",
        "coverage",
        attack_rate(16, 8, 2, 0.0),
    ),
    Case(
        "Table 3: rate (Wilson, crossed)",
        "16 requests × 8 images, 5 runs, rate .5",
        "coverage",
        attack_rate(16, 8, 5, 0.0),
    ),
    Case(
        "Table 3: below random (crossed t)",
        "16 requests × 8 images, 2 runs, rate .18",
        "false positives",
        below_random(-2.0),
    ),
    Case(
        "Table 3: below random (crossed t)",
        "16 requests × 8 images, 2 runs, rate .5",
        "false positives",
        below_random(0.0),
    ),
    Case(
        "Table 3: rate (Wilson, crossed)",
        "50 requests × 8 images, 2 runs, rate .5",
        "coverage",
        attack_rate(50, 8, 2, 0.0),
    ),
    Case(
        "Table 3: rate (Wilson, crossed)",
        "24 requests × 6 images, 3 runs, rate .68",
        "coverage",
        attack_rate(24, 6, 3, 1.0),
    ),
    Case("Table 3: rate (Wilson, crossed)", "neither matters, rates .1 to .3", "coverage", independent_rate(0.1, 0.3)),
    Case("Table 3: rate (Wilson, crossed)", "neither matters, rates .4 to .6", "coverage", independent_rate(0.4, 0.6)),
    Case("Table 3: rate (Wilson, crossed)", "16 × 8, 5 runs, images alone, rates .1 to .2", "coverage", images_alone),
    Case(
        "Table 3: below random (crossed t)",
        "16 × 8, 2 runs, rate .06",
        "false positives",
        below_random(-3.5),
        1.0,
        RARE,
    ),
    Case("Table 3: margin (crossed t)", "16 requests × 8 images, 2 runs", "coverage", margins),
]
CASES += [
    Case("Consequences: R@1 (Wilson)", "120 pairs, R@1 .7", "coverage", recall("r1", 0.9), 0.25),
    Case("Consequences: R@10 (Wilson)", "120 pairs, R@10 .97", "coverage", recall("r10", 0.9), 0.25),
    Case("Consequences: R@1 − random (crossed t)", "120 pairs, 5 sets", "false positives", class_like_others, 0.5),
]
# Two hundred features at a time.
CASES.append(Case("consensus: corrected agreement", "200 features, 3 seeds", "coverage", modality.agreeing_seeds, 0.25))
CASES += [Case(*row[:2], "coverage", row[2], 0.005) for row in modality.COVERAGE]
CASES += [Case(*row[:2], "false positives", row[2], 0.005) for row in modality.FALSE_POSITIVES]
CASES += [
    Case("trainings: mean (t)", "5 trainings, normal", "coverage", trained(5)),
    Case("trainings: mean (t)", "2 trainings, normal", "coverage", trained(2)),
    Case("trainings: mean of ratios (t of logarithms)", "5 trainings, lognormal", "coverage", trained(5, ratio=True)),
    Case("trainings: contrasts (t, Holm)", "six of 5 trainings", "false positives", trained_contrasts),
]
CASES += [
    Case("rate by group (Wilson)", "groups of 1 to 40, rates .87 to .93", "coverage", rate_of_unequal_groups, 0.5),
    Case("change by group (crossed t)", "groups of 1 to 40, 10 sets", "coverage", sets_of_unequal_groups, 0.5),
]
