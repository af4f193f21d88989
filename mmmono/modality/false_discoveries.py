"""False discovery rate: q-values of many tests at once."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from scipy.stats import false_discovery_control
from torch import Tensor


def q_values(p_value: Float64[Tensor, " features"]) -> Float64[Tensor, " features"]:
    """Adjust p-values for the false discovery rate (Benjamini and Hochberg 1995); NaN where the p-value is NaN."""
    adjusted = p_value.clone()
    known = ~p_value.isnan()
    if bool(known.any()):
        adjusted[known] = torch.from_numpy(false_discovery_control(p_value[known].numpy()))
    return adjusted
