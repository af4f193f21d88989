"""Effective rank: how many directions a set of vectors spreads over."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.finite import check_finite, double


def effective_rank(rows: Float[Tensor, "rows dim"]) -> float:
    """Return exp(H(p)) with p_k = σ_k / Σ σ, for the singular values σ of a matrix and the entropy H in nats.

    Between 1 and min(rows, dim); n if n singular values are equal and the others 0 (Roy and Vetterli 2007, The effective
    rank, Section 2). NaN if all values are 0. Rows are taken as they are: center them first if their mean is not to count.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    check_finite(rows, "sample", column="dimension")
    rows = double(rows)
    rows = rows / (rows.abs().amax() if rows.numel() and bool(rows.any()) else 1.0)
    gram = rows.T @ rows if rows.shape[1] <= rows.shape[0] else rows @ rows.T
    if not gram.numel():
        return float("nan")
    values = torch.linalg.eigvalsh(gram)
    # Rounding makes eigenvalues of 0 as large as this; their roots would count as directions.
    rounding = len(gram) * torch.finfo(gram.dtype).eps * values.amax()
    singular = torch.where(values > rounding, values, 0.0).clamp_min(0).sqrt()
    shares = singular / singular.sum()
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))


def paired_effective_rank(image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> float:
    """Effective rank of both sides' unit vectors together, each minus the mean of its side, so that the gap is none."""
    sides = [torch.nn.functional.normalize(double(side), dim=1) for side in (image, text)]
    return effective_rank(torch.cat([side - side.mean(0) for side in sides]))
