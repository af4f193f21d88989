"""Numbers as metrics take them: finite, without gradient, and in at least single precision."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor

from mmmono.core.errors import NonFiniteError


def check_finite(values: Float[Tensor, "rows columns"], name: str, start: int = 0) -> None:
    """Raise NonFiniteError if a number is NaN or infinite.

    Args:
        values: a block of rows.
        name: what a row is called in the message, such as "image".
        start: position of the first row in the stream that the block belongs to.
    """
    if values.numel() and not is_finite(*values.detach().aminmax()):
        row, column = (int(i) for i in (~values.isfinite()).nonzero()[0])
        raise NonFiniteError(
            f"{name} {start + row}, dimension {column} is {float(values[row, column])}, and a score would hide it: look for "
            "its cause in the embeddings or in the dictionary, or leave the row out"
        )


def is_finite(low: Tensor, high: Tensor) -> bool:
    """Whether numbers with this minimum and maximum, either of which is NaN where one number is, are all finite."""
    return math.isfinite(low) and math.isfinite(high)


def single(values: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Without gradient, and in float32 unless they are float64 already; integers become float64, which holds them."""
    values = values.detach()
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.float() if values.is_floating_point() else values.double()


def double(values: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Without gradient, in float64."""
    return values.detach().double()


def unit_rows(values: Num[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Rows divided by their lengths, in float64; rows of zeros stay zeros, and rows of any other length become 1 long."""
    values = double(values)
    # Twice, because squares of very small or very large numbers leave the range of float64.
    largest = values.abs().amax(1, keepdim=True) if values.shape[1] else values.new_ones(len(values), 1)
    values = values / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return values / torch.where(length > 0, length, 1.0)
