"""Small experiments with a known truth, as the analyses would see them."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmmono.case_studies.drawn_accuracy import DrawnAccuracy
from mmmono.core.statistics import Estimate

Array = np.ndarray[Any, Any]
GAP = np.array([0.8, 0.6, 0.2, 0.1])  # half the distance of the concepts' means, feature by feature


def concept_study(per_concept: int, draws: int, rng: np.random.Generator) -> Estimate:
    """Table 2 in small: fall of accuracy when the first feature is removed; a reference for each concept and draw."""
    is_a = np.arange(2 * per_concept) < per_concept
    z = rng.standard_normal((2 * per_concept, len(GAP))) + np.where(is_a[:, None], GAP, -GAP)
    accuracy = DrawnAccuracy((is_a, ~is_a), 2)
    for _ in range(draws):
        a, b = rng.integers(per_concept), per_concept + rng.integers(per_concept)
        anchors = z[[a, b]] / np.linalg.norm(z[[a, b]], axis=1, keepdims=True)
        leads = np.stack([z @ (anchors[0] - anchors[1]), z[:, 1:] @ (anchors[0] - anchors[1])[1:]])
        accuracy.add((leads > 0).astype(float), np.array([a]), np.array([b]))
    return accuracy.mean(np.array([1.0, -1.0]))
