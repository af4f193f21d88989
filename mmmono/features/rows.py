"""Rows of stored embeddings: converted, checked and normalized here, or passed unchanged to the numba kernels."""

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
from mmmono.core.finite import check_tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Origin:
    """Where rows of a view come from, for errors about unusable ones.

    Attributes:
        store: path of the store.
        side: image or text.
        positions: position of each row in the view; of consecutive rows that of the first.
        selected: row of the store at each position of the view; None if the view has all.
    """

    store: str | Path
    side: str
    positions: int | Array = 0
    selected: Array | None = None

    def __str__(self) -> str:
        return f"{self.store} holds {self.side} embeddings"

    def row(self, number: int) -> int:
        """Return the row of the store that one of the rows is."""
        position = self.positions + number if isinstance(self.positions, int) else int(self.positions[number])
        return position if self.selected is None else int(self.selected[position])


@dataclass(frozen=True)
class StoredRows:
    """Activations of raw features for consecutive samples of one modality, on the CPU and in the stored type.

    `mmmono.core.kernels` processes them, whereas tensors go through tensor operations. The kernels read every value
    once from the mapped file, and normalize and check rows at the same time.

    Attributes:
        values: float32 or float16.
        normalize: whether activations are these values divided by the row's norm.
        origin: where they come from, for errors about unusable rows.
    """

    values: Float[Tensor, "rows features"]
    normalize: bool
    origin: str | Origin

    @property
    def shape(self) -> torch.Size:
        """(rows, features)."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def head(self, rows: int) -> StoredRows:
        """Return the first rows."""
        return replace(self, values=self.values[:rows])

    def numbers(self) -> Array:
        """Return the rows as the kernels take them."""
        from mmmono.core.kernels import raw_array

        return raw_array(self.values)

    def check(self, lengths: Iterable[tuple[float, float]]) -> None:
        """Raise StoreError if any (min, max) of row norms, as the kernels return them, shows unusable rows."""
        if any(_unusable(shortest, longest, self.normalize) for shortest, longest in lengths):
            to_float32(self)  # raises with the row's position, unless only the squared norm overflowed float32
            if self.normalize:
                raise StoreError(
                    f"{_named(self.origin)} whose squares leave the range of float32: scale them, or compute them anew"
                )


Rows = Float[Tensor, "rows features"] | StoredRows


def check_pairs(image: Rows, text: Rows, features: int | None = None) -> None:
    """Check that the two sides of a block of pairs fit together, and the blocks before it.

    Args:
        image, text: activations; row i of both belongs to the same pair.
        features: number of features of the blocks before; None for the first one.

    Raises:
        TypeError: a side is no tensor.
        ValueError: the sides differ in shape, or have other features than the blocks before.
    """
    for side, name in ((image, "image"), (text, "text")):
        if not isinstance(side, StoredRows):
            check_tensor(side, name)
    if image.shape != text.shape or len(image.shape) != 2:
        raise ValueError(f"paired blocks [pairs, features] expected, got {tuple(image.shape)}, {tuple(text.shape)}")
    if features is not None and image.shape[1] != features:
        raise ValueError(
            f"a block of {image.shape[1]} features after blocks of {features}: all must have the same ones"
        )


def to_float32(rows: Rows) -> Float[Tensor, "rows features"]:
    """Return stored rows as a float32 tensor, normalized if requested; tensors pass through."""
    if isinstance(rows, StoredRows):
        return prepare(rows.values, rows.normalize, "cpu", rows.origin)
    return rows


def prepare(
    embeddings: Float[Tensor, "rows dim"],
    normalize: bool,
    device: str | torch.device,
    origin: str | Origin,
) -> Float[Tensor, "rows dim"]:
    """Convert stored rows to float32 on a device, L2-normalized if requested.

    Args:
        embeddings: rows in the stored type.
        normalize: divide each row by its norm.
        device: of the result.
        origin: where they come from, for errors; text if it is no store.

    Raises:
        StoreError: an embedding is not finite or, if it is to be normalized, zero.
    """
    values = embeddings.to(device=device, dtype=torch.float32)
    if not len(values):
        return values
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    shortest, longest = (float(norm) for norm in norms.aminmax())  # both are NaN if any norm is
    if _unusable(shortest, longest, normalize):
        _refuse(values, normalize, origin)
        norms = torch.linalg.vector_norm(values, dim=1, keepdim=True, dtype=torch.float64).float()
    if not normalize:
        return values
    return values.mul_(norms.reciprocal_()) if values is not embeddings else values / norms


def _unusable(shortest: float, longest: float, normalize: bool) -> bool:
    """Whether rows with these (min, max) norms may contain unusable values, which `_refuse` then looks for."""
    return not math.isfinite(longest) or (normalize and shortest == 0)


def _refuse(values: Tensor, normalize: bool, origin: str | Origin) -> None:
    finite = values.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        raise StoreError(
            f"{_named(origin)} that are NaN or infinite, first row {_row(origin, row)}, dimension {column}: leave that pair "
            "out, or compute them anew in float32 (experiments/extract.py … extraction.precision=32)"
        )
    silent = (values == 0).all(1)
    if normalize and bool(silent.any()):
        raise StoreError(
            f"{_named(origin)} of length zero, first row {_row(origin, int(silent.nonzero()[0]))}: set "
            "features.normalize=false, leave that pair out, or compute them anew"
        )


def _named(origin: str | Origin) -> str:
    return str(origin) if isinstance(origin, Origin) else f"{origin} holds embeddings"


def _row(origin: str | Origin, number: int) -> int:
    return origin.row(number) if isinstance(origin, Origin) else number
