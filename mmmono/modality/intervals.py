"""Confidence intervals of R(d) whose coverage holds for dense, sparse and lopsided features; groups are the unit."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.core.proportions import wilson
from mmmono.core.ranges import check_number
from mmmono.modality.scores import DominanceScores

PSEUDO_SCATTER = 1 / 16  # of Σ (r − R)²; see effective_trials
EQUAL = 1e-9  # groups differ less in size than that: rounding


def effective_trials(dominance: DominanceScores) -> Float64[Tensor, " features"]:
    """Number of coin flips with probability R(d) whose share would be as uncertain as R(d).

    With the standard error s by group, that is R (1 − R) / s²: informative pairs over the design effect if ratios are 0 or
    1, and more if they lie in between. If nearly all ratios are equal, s says little; the scatter that numerator and
    denominator stand for therefore gets a little of a coin flip's added, n R (1 − R) + 1/16 over n² s² + 1/16 with n
    effective groups. A feature with ratios of 1 alone has as many trials as effective groups. Simulations chose the 1/16
    (tests/modality/test_intervals.py). 0 for features that nothing activates.
    """
    groups, count, scores = dominance.effective_groups, dominance.informative_groups, dominance.scores
    flips = groups * scores * (1 - scores)
    # The factor G / (G − 1) of the squared error, with effective groups in place of all of them.
    larger = _inflation(groups) / _inflation(count.double())
    scatter = (groups * dominance.standard_error).square() * larger
    trials = groups * (flips + PSEUDO_SCATTER) / (scatter + PSEUDO_SCATTER)
    return torch.where(scatter.isnan(), groups, trials).nan_to_num(0.0)  # one group has no standard error: one trial


def _inflation(groups: Float64[Tensor, " features"]) -> Float64[Tensor, " features"]:
    """n / (n − 1) for n groups: by how much scatter around their own mean is too small; for fewer than 1.1 as for 1.1."""
    return groups / (groups - 1).clamp_min(0.1)


def error_freedom(dominance: DominanceScores) -> Float64[Tensor, " features"]:
    """Degrees of freedom of R(d)'s error, for Student's t in place of the normal distribution; at least 1.

    If few large groups decide, it hangs on chance whether their ratios differ, and with them the standard error. With G
    groups that activate a feature, n of them effective, the freedom is (n − 1) / (1 − n / G): infinite where groups have
    equal size, for which the scatter that `effective_trials` adds is enough. No theory stands behind this rule; simulations
    show what it covers (`make calibrate`).
    """
    groups, count = dominance.effective_groups, dominance.informative_groups
    unequal = 1 - groups / count
    return torch.where(unequal > EQUAL, ((groups - 1) / unequal).clamp_min(1.0), torch.inf)


def score_intervals(dominance: DominanceScores, level: float = 0.95) -> Float64[Tensor, "2 features"]:
    """Intervals of R(d): Wilson's for a share, with `effective_trials` as number of trials.

    The quantile is that of Student's t with `error_freedom`. Unlike bootstrap and normal intervals, they keep their width
    where one modality wins nearly every pair.

    Args:
        dominance: scores of Eq. 1.
        level: confidence level.

    Returns:
        Lower bounds in row 0, upper bounds in row 1; NaN for features that nothing activates.

    Raises:
        ValueError: `level` is not between 0 and 1.
    """
    check_number("level", level, above=0, below=1)
    trials = effective_trials(dominance)
    low, high = wilson((dominance.scores * trials).numpy(), trials.numpy(), level, error_freedom(dominance).numpy())
    bounds = torch.from_numpy(np.stack([low, high]))
    return torch.where(dominance.scores.isnan(), torch.nan, bounds)
