"""Rows of activations that are left as they are stored, for compiled loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StoredRows:
    """Activations of consecutive samples of one modality on the CPU: stored numbers times a factor a row.

    What comes as these is worked on by `mmmono.core.kernels`, what comes as a tensor by tensor operations. Two passes
    over half-precision numbers in the cache cost less than one over their float32 copies in memory.

    Attributes:
        values: float32 or float16, all of them finite.
        factors: what each row is multiplied by.
    """

    values: Float[Tensor, "rows features"]
    factors: Float[Tensor, " rows"]

    @property
    def shape(self) -> torch.Size:
        """Rows and features."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def arrays(self) -> tuple[Array, Array]:
        """Rows and factors as the kernels take them."""
        from mmmono.core.kernels import stored

        return stored(self.values), self.factors.numpy()


Rows = Float[Tensor, "rows features"] | StoredRows


def in_full(rows: Rows) -> Float[Tensor, "rows features"]:
    """The activations as a tensor, of their own and in float32 where they were as stored."""
    return rows.values.float() * rows.factors[:, None] if isinstance(rows, StoredRows) else rows
