"""Confidence intervals of R(d) whose coverage holds for dense, sparse and lopsided features; groups are the unit."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mmmono.core.proportions import wilson
from mmmono.modality.scores import DominanceScores

PSEUDO_SCATTER = 1 / 16  # of Σ (r − R)²; see effective_trials


def effective_trials(dominance: DominanceScores) -> Float64[Tensor, " features"]:
    """Number of coin flips with probability R(d) whose share would be as uncertain as R(d).

    With the standard error s by group, that is R (1 − R) / s²: informative pairs over the design effect if ratios are 0 or
    1, and more if they lie in between. If nearly all ratios are equal, s says little; the scatter that numerator and
    denominator stand for therefore gets a little of a coin flip's added, n R (1 − R) + 1/16 over n² s² + 1/16 with n
    effective groups. A feature with ratios of 1 alone has as many trials as effective groups. Simulations chose the 1/16
    (tests/modality/test_intervals.py). 0 for features that nothing activates.
    """
    groups, scores = dominance.effective_groups, dominance.scores
    flips = groups * scores * (1 - scores)
    scatter = (groups * dominance.standard_error).square()
    trials = groups * (flips + PSEUDO_SCATTER) / (scatter + PSEUDO_SCATTER)
    return torch.where(scatter.isnan(), groups, trials).nan_to_num(0.0)  # one group has no standard error: one trial


def score_intervals(dominance: DominanceScores, level: float = 0.95) -> Float64[Tensor, "2 features"]:
    """Intervals of R(d): Wilson's for a share, with `effective_trials` as number of trials.

    Unlike bootstrap and normal intervals, they keep their width where one modality wins nearly every pair.

    Args:
        dominance: scores of Eq. 1.
        level: confidence level.

    Returns:
        Lower bounds in row 0, upper bounds in row 1; NaN for features that nothing activates.

    Raises:
        ValueError: `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1, such as 0.95")
    trials = effective_trials(dominance)
    low, high = wilson((dominance.scores * trials).numpy(), trials.numpy(), level)
    bounds = torch.from_numpy(np.stack([low, high]))
    return torch.where(dominance.scores.isnan(), torch.nan, bounds)
