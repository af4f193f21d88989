"""Rows of activations that are left as they are stored until somebody wants them in full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ScaledRows:
    """Activations of consecutive samples of one modality on the CPU: stored numbers times a factor a row.

    Two passes over half-precision numbers in the cache cost less than one over their float32 copies in memory.
    """

    values: Float[Tensor, "rows features"]
    factors: Float[Tensor, " rows"]

    @property
    def shape(self) -> torch.Size:
        """Rows and features."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)


Rows = Float[Tensor, "rows features"] | ScaledRows


def in_full(rows: Rows) -> Float[Tensor, "rows features"]:
    """The activations as a tensor of their own, float32 where they were stored."""
    return rows.values.float() * rows.factors[:, None] if isinstance(rows, ScaledRows) else rows


def as_stored(rows: Rows) -> tuple[Array, Array] | None:
    """Rows and their factors as `mmmono.core.kernels` take them; None if these do not."""
    from mmmono.core import kernels  # compiles, which takes its time: only where it is needed

    if isinstance(rows, Tensor):
        rows = ScaledRows(rows, torch.ones(len(rows)))
    return (kernels.stored(rows.values), rows.factors.numpy()) if kernels.takes(rows.values) else None
