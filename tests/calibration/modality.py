"""Intervals and tests of modality dominance and sharedness: each experiment has many independent features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmmono.modality import dominance_scores, partition_by_margin, partition_by_sigma, resample_dominance
from mmmono.modality.confirmation import class_certainty
from mmmono.modality.intervals import score_intervals
from mmmono.modality.seed_agreement import SeedScores, corrected_interval
from mmmono.modality.sharedness import sharedness_scores

Array = np.ndarray[Any, Any]
Pair = tuple[Tensor, Tensor]
FEATURES = 200
VARIANTS = np.repeat(
    np.arange(150), np.random.default_rng(7).choice([1, 1, 1, 2, 4, 6], 150)
)  # as emoji with skin tones


def pairs_of(ratio: Array, active: Array | None = None) -> Pair:
    """Activations with these ratios |z_img| / (|z_img| + |z_txt|); both sides are silent where not active."""
    there = np.ones_like(ratio) if active is None else active
    return torch.from_numpy(ratio * there), torch.from_numpy((1 - ratio) * there)


def dense(rng: np.random.Generator, pairs: int, mean: float) -> Pair:
    """Ratios as those of raw dimensions, spread around a mean."""
    return pairs_of(rng.beta(4 * mean, 4 * (1 - mean), (pairs, FEATURES)))


def latents(rng: np.random.Generator, pairs: int, mean: float, share: float) -> Pair:
    """Latents of an SAE: silent in most pairs, else active on one side."""
    shape = (pairs, FEATURES)
    return pairs_of((rng.random(shape) < mean).astype(float), (rng.random(shape) < share).astype(float))


def variants(rng: np.random.Generator, mean: float) -> Pair:
    """Ratios of variants of one drawing, four of five of which are those of the drawing."""
    own, shared = (rng.beta(4 * mean, 4 * (1 - mean), (len(VARIANTS), FEATURES)) for _ in range(2))
    return pairs_of(
        np.where(rng.random(own.shape) < 0.8, shared[np.unique(VARIANTS, return_index=True)[1]][VARIANTS], own)
    )


def interval(draw: Callable[[np.random.Generator], Pair], mean: float, groups: Array | None = None) -> Any:
    """Whether the intervals of R(d) cover it; features with fewer than ten informative pairs are dead."""

    def simulate(rng: np.random.Generator) -> Array:
        scores = dominance_scores([draw(rng)], groups=groups)
        low, high = (bound[scores.informative_pairs >= 10].numpy() for bound in score_intervals(scores))
        return (low <= mean) & (mean <= high)

    return simulate


def permutation(draw: Callable[[np.random.Generator], Pair], groups: Array | None = None) -> Any:
    """Whether the permutation test finds a preference where there is none."""

    def simulate(rng: np.random.Generator) -> Array:
        more = {"groups": groups} if groups is not None else {}
        found = resample_dominance([draw(rng)], 999, 2, 2, int(rng.integers(1 << 30)), **more)
        p_value = found.p_value[~found.p_value.isnan()]
        return (p_value <= 0.05).numpy()

    return simulate


def confirmed(draw: Callable[[np.random.Generator], Pair], groups: Array | None = None, margin: float = 0.1) -> Any:
    """Whether features whose R(d) is the upper border, ½ + margin, are found to lie beyond a border."""

    def simulate(rng: np.random.Generator) -> Array:
        pair = draw(rng)
        scores = dominance_scores([pair], groups=groups)
        resampled = resample_dominance([pair], 2, 300, 2, int(rng.integers(1 << 30)), groups=groups)
        live = scores.informative_pairs >= 10
        found = class_certainty(scores, resampled.bootstrap, lambda s, m: partition_by_margin(s, margin, m), live)
        return (found.border_p_value[live] <= 0.05).numpy()

    return simulate


def unshared(sparse: bool, groups: Array | None = None) -> Any:
    """Whether sharedness is found where image and text of a pair are independent."""

    def simulate(rng: np.random.Generator) -> Array:
        rows = 400 if groups is None else len(groups)
        z = rng.standard_normal((2, rows, FEATURES))
        if groups is not None:
            z = 0.9 * rng.standard_normal((2, groups.max() + 1, FEATURES))[:, groups] + 0.4 * z
        sides = torch.from_numpy(np.maximum(z - 1, 0) if sparse else z)
        found = sharedness_scores([(sides[0], sides[1])], groups)
        return (found.p_value <= 0.05).numpy()

    return simulate


def shared(rng: np.random.Generator) -> Array:
    """Whether the interval of a dense feature's sharedness covers its correlation across pairs, .4."""
    z = rng.standard_normal((2, 400, FEATURES))
    image, text = (torch.from_numpy(side) for side in (z[0], 0.4 * z[0] + np.sqrt(1 - 0.16) * z[1]))
    found = sharedness_scores([(image, text)])
    return ((found.low <= 0.4) & (found.high >= 0.4)).numpy()


def agreeing_seeds(rng: np.random.Generator) -> bool:
    """Whether the interval of the corrected agreement of seeds covers it: true scores correlate with .7 between seeds.

    R(d) of 200 features on 60 groups, with errors that features of different seeds partly share.
    """
    features, groups, halvings, together, noise = 200, 60, 10, 0.7, 0.7 * 60**0.5
    reference, errors = rng.standard_normal(features), rng.standard_normal((groups, features))
    first = np.stack([rng.permutation(groups) < groups // 2 for _ in range(halvings)]).astype(float)
    seeds = []
    for number in range(3):
        own = together * reference + np.sqrt(1 - together**2) * rng.standard_normal(features)
        truth = reference if number == 0 else own
        ratios = truth + noise * (0.6 * errors + 0.8 * rng.standard_normal((groups, features)))
        halves = np.stack([side @ ratios / side.sum(1, keepdims=True) for side in (first, 1 - first)])
        scores = torch.from_numpy(ratios.mean(0))
        seeds.append(SeedScores(scores, partition_by_sigma(scores), torch.from_numpy(halves)))
    found = corrected_interval(seeds[0], seeds[1:], n_bootstrap=200, seed=int(rng.integers(1 << 30)))
    truth = 6 / np.pi * np.arcsin(together / 2)  # Spearman's rho of a normal distribution with this correlation
    return bool(found.low <= truth <= found.high)


def unshared_score(rng: np.random.Generator) -> Array:
    """Whether the interval of the score covers 0: all samples fire independently, and large groups more often."""
    sides = torch.from_numpy((rng.random((2, len(VARIANTS), FEATURES)) < 0.1).astype(float))
    found = sharedness_scores([(sides[0], sides[1])], VARIANTS)
    return ((found.low <= 0) & (found.high >= 0)).numpy()


Row = tuple[str, str, Any]
COVERAGE: list[Row] = [
    ("sharedness: score", "dense, 400 pairs", shared),
    ("sharedness: score", "sparse, 150 groups of 1 to 6", unshared_score),
    ("R(d): interval", "dense, 50 pairs", interval(partial(dense, pairs=50, mean=0.6), 0.6)),
    (
        "R(d): interval",
        "latents, 40 informative pairs",
        interval(partial(latents, pairs=400, mean=0.7, share=0.1), 0.7),
    ),
    (
        "R(d): interval",
        "latents, R .95, 24 informative",
        interval(partial(latents, pairs=400, mean=0.95, share=0.06), 0.95),
    ),
    ("R(d): interval", "150 groups of 1 to 6 variants", interval(partial(variants, mean=0.6), 0.6, VARIANTS)),
]
FALSE_POSITIVES: list[Row] = [
    ("sharedness: p", "sparse, 400 pairs", unshared(sparse=True)),
    ("sharedness: p", "dense, 400 pairs", unshared(sparse=False)),
    ("sharedness: p", "dense, 150 groups of 1 to 6", unshared(sparse=False, groups=VARIANTS)),
    ("R(d): permutation p", "dense, 200 pairs", permutation(partial(dense, pairs=200, mean=0.5))),
    ("R(d): permutation p", "150 groups of 1 to 6 variants", permutation(partial(variants, mean=0.5), VARIANTS)),
    ("R(d): confirmed beyond a border", "dense, 200 pairs", confirmed(partial(dense, pairs=200, mean=0.6))),
    (
        "R(d): confirmed beyond a border",
        "dense, 200 pairs, borders ½ ± .01",
        confirmed(partial(dense, pairs=200, mean=0.51), margin=0.01),
    ),
    (
        "R(d): confirmed beyond a border",
        "150 groups of 1 to 6 variants",
        confirmed(partial(variants, mean=0.6), VARIANTS),
    ),
]
