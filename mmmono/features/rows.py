"""Rows of embeddings and activations: converted, checked and normalized here, or passed as they are to the kernels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import NonFiniteError, StoreError
from mmmono.core.finite import check_finite, check_tensor

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
class KernelRows(ABC):
    """Activations of consecutive samples of one modality on the CPU, for the compiled loops of `mmmono.core.kernels`.

    These read every value once, and check and normalize rows at the same time; tensors go through tensor operations.

    Attributes:
        values: float32 or float16.
        normalize: whether activations are these values divided by the row's norm.
    """

    values: Float[Tensor, "rows features"]
    normalize: bool

    @abstractmethod
    def tensor(self) -> Float[Tensor, "rows features"]:
        """Return the activations as a float32 tensor."""

    @abstractmethod
    def checked(self, start: int) -> Float[Tensor, "rows features"]:
        """Return the activations as a float32 tensor.

        Args:
            start: position of the first row in what is read.

        Raises:
            NonFiniteError, StoreError: an activation is NaN or infinite, or a stored embedding is unusable.
        """

    @abstractmethod
    def check(self, lengths: Iterable[tuple[float, float]], start: int) -> None:
        """Raise an error if any (min, max) of row norms, as the kernels return them, shows unusable rows.

        Args:
            lengths: the norms.
            start: position of the first row in what is read.
        """

    @property
    def shape(self) -> torch.Size:
        """(rows, features)."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def chosen(self, rows: slice | Tensor) -> Self:
        """Return some of the rows."""
        return replace(self, values=self.values[rows])

    def numbers(self) -> Array:
        """Return the rows as the kernels take them."""
        from mmmono.core.kernels import raw_array

        return raw_array(self.values)


@dataclass(frozen=True)
class StoredRows(KernelRows):
    """Activations of raw features: the stored embeddings in the stored type, from the mapped file.

    Attributes:
        origin: where they come from, for errors about unusable rows.
    """

    origin: str | Origin

    def tensor(self) -> Float[Tensor, "rows features"]:
        """Return the activations as a float32 tensor. Errors: see `prepare`."""
        return prepare(self.values, self.normalize, "cpu", self.origin)

    def checked(self, start: int) -> Float[Tensor, "rows features"]:
        """Return the activations as a float32 tensor. Errors: see `prepare`."""
        return self.tensor()

    def check(self, lengths: Iterable[tuple[float, float]], start: int) -> None:
        """Raise StoreError if norms show unusable rows; see `KernelRows.check`."""
        if any(_unusable(shortest, longest, self.normalize) for shortest, longest in lengths):
            self.tensor()  # raises with the row's position, unless only the squared norm overflowed float32
            if self.normalize:
                raise StoreError(
                    f"{_named(self.origin)} whose squares leave the range of float32: scale them, or compute them anew"
                )


@dataclass(frozen=True)
class EncodedRows(KernelRows):
    """Activations that a feature set has computed, in float32.

    Attributes:
        modality: of the samples, for errors.
    """

    normalize: bool = field(default=False, init=False)
    modality: str

    def tensor(self) -> Float[Tensor, "rows features"]:
        """Return the activations, which are not checked."""
        return self.values

    def checked(self, start: int) -> Float[Tensor, "rows features"]:
        """Return the activations. Raises NonFiniteError if one is NaN or infinite."""
        check_finite(self.values, self.modality, start)
        return self.values

    def check(self, lengths: Iterable[tuple[float, float]], start: int) -> None:
        """Raise NonFiniteError if norms show values that are NaN or infinite; see `KernelRows.check`."""
        if any(_unusable(shortest, longest, False) for shortest, longest in lengths):
            self.checked(start)


Rows = Float[Tensor, "rows features"] | KernelRows


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
        if not isinstance(side, KernelRows):
            check_tensor(side, name)
    if image.shape != text.shape or len(image.shape) != 2:
        raise ValueError(f"paired blocks [pairs, features] expected, got {tuple(image.shape)}, {tuple(text.shape)}")
    if features is not None and image.shape[1] != features:
        raise ValueError(
            f"a block of {image.shape[1]} features after blocks of {features}: all must have the same ones"
        )


def to_float32(rows: Rows) -> Float[Tensor, "rows features"]:
    """Return rows for the kernels as a float32 tensor, normalized if requested; tensors pass through."""
    return rows.tensor() if isinstance(rows, KernelRows) else rows


def picked(rows: KernelRows, places: Array, start: int) -> Float[Tensor, "picked features"]:
    """Return some rows of a block as a float32 tensor.

    Args:
        rows: the block.
        places: positions in it.
        start: position of its first row in what is read, for errors.

    Raises:
        NonFiniteError, StoreError: a value is unusable; its row is named by its position among all.
    """
    try:
        return rows.chosen(torch.from_numpy(places)).checked(start)
    except (NonFiniteError, StoreError):
        rows.checked(start)
        raise


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
