"""Which of several dictionaries no other one beats."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def pareto_front(costs: Float[np.ndarray, "runs costs"]) -> Bool[np.ndarray, " runs"]:
    """Rows that no other row is at least as good as in every cost and better in one; smaller is better.

    Rows with an unknown cost (NaN) are not on the front and beat nobody.
    """
    at_least = (costs[:, None] <= costs[None]).all(2)
    better = (costs[:, None] < costs[None]).any(2)
    known = ~np.isnan(costs).any(1)
    return known & ~(at_least & better).any(0)
