"""Pareto front over the costs of several runs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def pareto_front(costs: Float[np.ndarray, "runs costs"]) -> Bool[np.ndarray, " runs"]:
    """Mask of the runs on the Pareto front: no other run is at least as good in every cost and better in one.

    Smaller costs are better. A run with a NaN cost is not on the front and dominates no other run.
    """
    at_least = (costs[:, None] <= costs[None]).all(2)
    better = (costs[:, None] < costs[None]).any(2)
    known = ~np.isnan(costs).any(1)
    return known & ~(at_least & better).any(0)
