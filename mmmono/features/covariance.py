"""Square root of a covariance: what gives white noise the covariance of given vectors."""

from __future__ import annotations

import scipy.linalg
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mmmono.core.finite import double


def covariance_root(rows: Float[Tensor, "rows dim"]) -> Float64[Tensor, "dim dim"]:
    """Symmetric square root of the covariance of vectors, as large as that of white noise: its squared entries sum to dim.

    Raises:
        ValueError: there are fewer than two vectors, or all are the same.
    """
    if len(rows) < 2 or bool((rows == rows[0]).all()):
        raise ValueError("they do not vary")
    covariance = torch.cov(double(rows).T)
    values, vectors = _eigen(covariance)
    scale = (values.clamp_min(0) / values.clamp_min(0).mean()).sqrt()
    return (vectors * scale) @ vectors.T


def _eigen(symmetric: Float64[Tensor, "dim dim"]) -> tuple[Float64[Tensor, " dim"], Float64[Tensor, "dim dim"]]:
    """Eigenvalues and eigenvectors, by the slower QR iteration where divide and conquer fails, as it may on many zeros."""
    try:
        values, vectors = torch.linalg.eigh(symmetric)
    except torch.linalg.LinAlgError:
        values, vectors = map(torch.from_numpy, scipy.linalg.eigh(symmetric.numpy(), driver="ev"))
    return values, vectors
