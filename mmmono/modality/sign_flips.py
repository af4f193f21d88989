"""Permutation test of R(d) by its normal approximation, from the scores alone without a pass over the pairs."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64
from scipy.stats import norm
from torch import Tensor

from mmmono.core.finite import check_mask
from mmmono.modality.false_discoveries import q_values
from mmmono.modality.scores import DominanceScores


def sign_flip_p_values(
    dominance: DominanceScores, live: Bool[Tensor, " features"] | None = None
) -> tuple[Float64[Tensor, " features"], Float64[Tensor, " features"]]:
    """Two-sided p-values of the null that image and text are exchangeable within groups, and their q-values.

    Swapping image and text of all pairs of a group flips the sign of e_g = Σ (r − ½), where r is a pair's ratio in Eq. 1.
    Under the null, Σ e_g therefore has mean 0 and variance Σ e_g², and is normal for many groups. The p-value is at least
    2 / 2ᴳ, the smallest that the signs of G groups allow. `resample_dominance` samples the null distribution instead.

    Args:
        dominance: scores of Eq. 1. How they count silent pairs makes no difference.
        live: the features that are tested, the family of the q-values; by default all that a sample activates.

    Returns:
        p-values and q-values (Benjamini and Hochberg 1995); NaN for features that no sample activates, q-values also for
        those that are not live.

    Raises:
        TypeError, ValueError: `live` is no mask of these features.
    """
    if live is not None:
        check_mask(live, "live", len(dominance.scores))
    excess, error = dominance.scores - 0.5, dominance.null_error
    z = torch.where(error > 0, excess / error, 0.0)
    p_value = 2 * torch.from_numpy(norm.sf(z.abs().numpy()))
    p_value = torch.where(error.isnan(), torch.nan, p_value.maximum(2.0 ** (1 - dominance.informative_groups)))
    return p_value, q_values(p_value if live is None else torch.where(live, p_value, torch.nan))
