"""Embeddings as they are stored: converted, checked and normalized here, or left as they are for compiled loops."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
        start: position of the first row in the stream, for that error too.
    """

    values: Float[Tensor, "rows features"]
    normalize: bool
    source: str | Path
    start: int = 0

    @property
    def shape(self) -> torch.Size:
        """Rows and features."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def head(self, rows: int) -> StoredRows:
        """The first rows."""
        return replace(self, values=self.values[:rows])

    def numbers(self) -> Array:
        """The rows as the kernels take them."""
        from mmmono.core.kernels import stored

        return stored(self.values)

    def check(self, lengths: Iterable[tuple[float, float]]) -> None:
        """Raise StoreError if rows of these lengths, shortest and longest as kernels return them, are unusable."""
        if any(_unusable(shortest, longest, self.normalize) for shortest, longest in lengths):
            in_full(self)  # which names the row, unless only its length left the range of float32
            if self.normalize:
                raise StoreError(
                    f"{self.source} holds embeddings whose squares leave the range of float32: scale them, or extract again"
                )


Rows = Float[Tensor, "rows features"] | StoredRows


def in_full(rows: Rows) -> Float[Tensor, "rows features"]:
    """The activations as a tensor, in float32 where they were as stored."""
    if isinstance(rows, StoredRows):
        return prepare(rows.values, rows.normalize, "cpu", rows.source, rows.start)
    return rows


def prepare(
    embeddings: Float[Tensor, "rows dim"],
    normalize: bool,
    device: str | torch.device,
    source: str | Path,
    start: int = 0,
) -> Float[Tensor, "rows dim"]:
    """Stored rows as float32 on a device, L2-normalized if asked for.

    Args:
        embeddings: rows in the stored type.
        normalize: divide each by its length.
        device: where they are wanted.
        source: where they are stored, for the error.
        start: position of the first row among those that are read, for the error.

    Raises:
        StoreError: an embedding is not finite or, where it is to be normalized, zero.
    """
    values = embeddings.to(device=device, dtype=torch.float32)
    if not len(values):
        return values
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    shortest, longest = (float(norm) for norm in norms.aminmax())  # either is NaN where one is
    if _unusable(shortest, longest, normalize):
        _refuse(values, normalize, source, start)
        norms = torch.linalg.vector_norm(values, dim=1, keepdim=True, dtype=torch.float64).float()
    if not normalize:
        return values
    return values.mul_(norms.reciprocal_()) if values is not embeddings else values / norms


def _unusable(shortest: float, longest: float, normalize: bool) -> bool:
    """Whether rows of these lengths may hold something unusable, which `_refuse` looks for."""
    return not math.isfinite(longest) or (normalize and shortest == 0)


def _refuse(values: Tensor, normalize: bool, source: str | Path, start: int) -> None:
    finite = values.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        raise StoreError(
            f"{source} holds embeddings that are NaN or infinite, first row {start + row}, dimension {column}: "
            "extract again in precision 32"
        )
    silent = (values == 0).all(1)
    if normalize and bool(silent.any()):
        raise StoreError(
            f"{source} holds embeddings of length zero, first row {start + int(silent.nonzero()[0])}: set "
            "features.normalize=false or extract again"
        )
