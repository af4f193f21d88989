"""Small experiments with a known truth, as the analyses would see them."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmmono.case_studies.drawn_accuracy import DrawnAccuracy
from mmmono.case_studies.gender import enrichment
from mmmono.core.statistics import Estimate, Interval

Array = np.ndarray[Any, Any]
GAP = np.array([0.8, 0.6, 0.2, 0.1])  # half the distance of the concepts' means, feature by feature


def concept_study(per_concept: int, draws: int, rng: np.random.Generator, alike: bool = False) -> Estimate:
    """Table 2 in small: fall of accuracy when the first feature is removed; a reference for each concept and draw.

    Args:
        per_concept: samples of each concept.
        draws: draws of references.
        rng: random generator.
        alike: compare with the loss of a second feature of the same gap instead of with no loss.
    """
    gap = np.array([0.6, 0.6, 0.2, 0.1]) if alike else GAP
    is_a = np.arange(2 * per_concept) < per_concept
    z = rng.standard_normal((2 * per_concept, len(gap))) + np.where(is_a[:, None], gap, -gap)
    accuracy = DrawnAccuracy((is_a, ~is_a), 2)
    for _ in range(draws):
        a, b = rng.integers(per_concept), per_concept + rng.integers(per_concept)
        anchors = z[[a, b]] / np.linalg.norm(z[[a, b]], axis=1, keepdims=True)
        lean = z * (anchors[0] - anchors[1])
        leads = lean.sum(1) - np.stack([lean[:, 1] if alike else 0 * lean[:, 1], lean[:, 0]])
        accuracy.add((leads > 0).astype(float), np.array([a]), np.array([b]))
    return accuracy.mean(np.array([1.0, -1.0]))


def pair_sums(pairs: int, rng: np.random.Generator) -> Array:
    """Squared differences and energies of minimal pairs of sparse codes, within a class of 8 of 24 features and in all."""
    a = rng.gamma(0.5, size=(pairs, 24)) * (rng.random((pairs, 24)) < 0.3)
    more = (rng.random((pairs, 24)) < 0.05) * rng.gamma(1.0, size=(pairs, 24))
    b = a * rng.uniform(0.3, 1.7, (pairs, 24)) + more
    difference, energy = (a - b) ** 2, a**2 + b**2
    return np.stack([difference[:, :8].sum(1), difference.sum(1), energy[:, :8].sum(1), energy.sum(1)])


def enrichment_study(pairs: int, rng: np.random.Generator) -> Interval:
    """Enrichment of that class."""
    return enrichment(pair_sums(pairs, rng))
