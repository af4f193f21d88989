"""Preparation of values for metrics: finite, without gradient, and at least single precision."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Num
from torch import Tensor

from mmmono.core.errors import NonFiniteError


def check_tensor(values: object, name: str) -> None:
    """Raise TypeError, with the remedy, unless values are a dense tensor of real numbers; arrays and data frames are not.

    Args:
        values: what a caller gave.
        name: what they are, such as "image".
    """
    if not isinstance(values, Tensor):
        kind = f"{type(values).__module__}.{type(values).__name__}".removeprefix("builtins.")
        raise TypeError(f"{name}: a torch.Tensor expected, got {kind}: give torch.as_tensor(numpy.asarray(...)) of it")
    if values.layout != torch.strided or values.is_complex():
        raise TypeError(f"{name}: a dense tensor of real numbers expected, got {values.dtype}, {values.layout}")


def check_mask(mask: object, name: str, entries: int) -> None:
    """Raise TypeError or ValueError, with the remedy, unless a mask has one yes or no for each of several entries.

    Args:
        mask: what a caller gave.
        name: the argument's name.
        entries: number of entries.
    """
    check_tensor(mask, name)
    assert isinstance(mask, Tensor)
    if mask.dtype != torch.bool or mask.shape != (entries,):
        raise ValueError(
            f"{name}: a mask of {entries} features expected, got {mask.dtype} {tuple(mask.shape)}: give yes or no for each "
            "one, such as Partition.is_live"
        )


def check_finite(values: Float[Tensor, "rows columns"], row: str, start: int = 0, column: str = "feature") -> None:
    """Raise NonFiniteError, naming row and column, if a value is NaN or infinite; TypeError or ValueError if no matrix.

    Args:
        values: a block of rows.
        row: what a row is, such as "image".
        start: position of the block's first row in the stream.
        column: what a column is.
    """
    check_tensor(values, row)
    if values.ndim != 2:
        raise ValueError(f"[{row}s, {column}s] expected, got a tensor of shape {tuple(values.shape)}")
    if not values.numel() or is_finite(*values.detach().aminmax()):
        return
    i, j = (int(place) for place in (~values.isfinite()).nonzero()[0])
    what = "NaN" if bool(values[i, j].isnan()) else "not finite"
    raise NonFiniteError(
        f"values of {column} {j} are {what}, first at {row} {start + i}: look for the cause in the embeddings or in the "
        "dictionary, or leave that row out"
    )


def is_finite(low: Tensor, high: Tensor) -> bool:
    """Whether values with this minimum and maximum are all finite; NaN values make both NaN."""
    return math.isfinite(low) and math.isfinite(high)


def single(values: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Detach and return as float32; float64 stays, and integers become float64, exact up to 2⁵³."""
    check_tensor(values, "values")
    values = values.detach()
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.float() if values.is_floating_point() else values.double()


def double(values: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Detach and return as float64."""
    check_tensor(values, "values")
    return values.detach().double()


def unit_rows(values: Num[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Divide each row by its norm, in float64; zero rows stay zero."""
    values = double(values)
    # First by the largest value, because squares of very small or very large values leave the range of float64.
    largest = values.abs().amax(1, keepdim=True) if values.shape[1] else values.new_ones(len(values), 1)
    values = values / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return values / torch.where(length > 0, length, 1.0)
