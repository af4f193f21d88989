"""Activations of which few are not 0, kept without the zeros: 65,536 latents of 10,000 samples take 5 GB with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array, vstack
from torch import Tensor

Array = np.ndarray[Any, Any]
SPARSE = 0.1  # share of activations other than 0 below which those alone are kept


def compact(block: Float[Tensor, "samples features"]) -> Array | csr_array:
    """Return activations as a matrix of those that are not 0 if they are few, else as an array; of the same type."""
    block = block.detach().cpu()
    if not block.numel() or int(torch.count_nonzero(block)) >= SPARSE * block.numel():
        dense: Array = block.numpy()
        return dense
    return csr_array(block.numpy())


def compact_rows(blocks: Iterable[Float[Tensor, "samples features"]]) -> Array | csr_array:
    """Join blocks of activations, each of them `compact`, under one another; an array if one of them is."""
    parts = [compact(block) for block in blocks]
    if all(isinstance(part, csr_array) for part in parts):
        joined: csr_array = vstack(parts, format="csr")
        return joined
    return np.concatenate([part.toarray() if isinstance(part, csr_array) else part for part in parts])
