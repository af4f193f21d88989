"""Embeddings as they are stored: converted, checked and normalized here, or left as they are for compiled loops."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import StoreError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StoredRows:
    """Activations of raw features for consecutive samples of one modality on the CPU, as they are stored.

    What comes as these is worked on by `mmmono.core.kernels`, what comes as a tensor by tensor operations. The loops
    read every number once, where it lies in the file's cache, and normalize and check rows on the way.

    Attributes:
        values: float32 or float16.
        normalize: whether activations are these numbers divided by their row's length.
        source: where they are stored, for the error that unusable ones get.
    """

    values: Float[Tensor, "rows features"]
    normalize: bool
    source: str | Path

    @property
    def shape(self) -> torch.Size:
        """Rows and features."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def numbers(self) -> Array:
        """The rows as the kernels take them."""
        from mmmono.core.kernels import stored

        return stored(self.values)

    def check(self, lengths: Iterable[tuple[float, float]]) -> None:
        """Raise StoreError if rows of these lengths, shortest and longest as kernels return them, are unusable."""
        for shortest, longest in lengths:
            _check(shortest, longest, self.normalize, self.source)


Rows = Float[Tensor, "rows features"] | StoredRows


def in_full(rows: Rows) -> Float[Tensor, "rows features"]:
    """The activations as a tensor, in float32 where they were as stored."""
    return prepare(rows.values, rows.normalize, "cpu", rows.source) if isinstance(rows, StoredRows) else rows


def prepare(
    embeddings: Float[Tensor, "rows dim"], normalize: bool, device: str | torch.device, source: str | Path
) -> Float[Tensor, "rows dim"]:
    """Stored rows as float32 on a device, L2-normalized if asked for.

    Args:
        embeddings: rows in the stored type.
        normalize: divide each by its length.
        device: where they are wanted.
        source: where they are stored, for the error.

    Raises:
        StoreError: an embedding is not finite or, where it is to be normalized, zero.
    """
    values = embeddings.to(device=device, dtype=torch.float32)
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    shortest, longest = (float(norm) for norm in norms.aminmax())  # either is NaN where one is
    _check(shortest, longest, normalize, source)
    if not normalize:
        return values
    return values.mul_(norms.reciprocal_()) if values is not embeddings else values / norms


def _check(shortest: float, longest: float, normalize: bool, source: str | Path) -> None:
    if not math.isfinite(longest):
        raise StoreError(f"{source} holds embeddings that are NaN or infinite: extract again in precision 32")
    if normalize and shortest == 0:
        raise StoreError(f"{source} holds embeddings of length zero: set features.normalize=false or extract again")
