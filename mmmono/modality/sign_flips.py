"""Permutation test of R(d) by its normal approximation, from the scores alone without a pass over the pairs."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from scipy.stats import norm
from torch import Tensor

from mmmono.modality.dominance import DominanceScores, Undefined
from mmmono.modality.false_discoveries import q_values


def sign_flip_p_values(
    dominance: DominanceScores, undefined: Undefined = "skip"
) -> tuple[Float64[Tensor, " features"], Float64[Tensor, " features"]]:
    """Two-sided p-values of the null that image and text are exchangeable within pairs, and their q-values.

    Swapping image and text of a pair flips the sign of r − ½, where r is the pair's ratio in Eq. 1. Under the null,
    Σ(r − ½) therefore has mean 0 and variance Σ(r − ½)², and is normal for many pairs. `resample_dominance` samples the
    null distribution instead.

    Args:
        dominance: scores of Eq. 1.
        undefined: the rule with which they were computed.

    Returns:
        p-values and q-values (Benjamini and Hochberg 1995); NaN for features that no sample activates.
    """
    informative = dominance.informative_pairs.double()
    count = informative if undefined == "skip" else torch.full_like(informative, dominance.num_pairs)
    excess = count * (dominance.scores - 0.5)
    scatter = (dominance.standard_error.square() * count * (count - 1)).nan_to_num(0)
    squares = scatter + excess.square() / count
    z = torch.where(squares > 0, excess / squares.sqrt(), 0.0)
    p_value = torch.where(informative > 0, 2 * torch.from_numpy(norm.sf(z.abs().numpy())), torch.nan)
    return p_value, q_values(p_value)
