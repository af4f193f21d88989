"""Activations of chosen pairs, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.features.feature_set import FeatureSet
from mmmono.features.rows import prepare
from mmmono.features.selection import FeatureView
from mmmono.features.store import Modality

BLOCK_ROWS = 4096
BLOCK_VALUES = 2**26  # activations of a block at most: 256 MB


def encoded_rows(
    view: FeatureView,
    feature_set: FeatureSet,
    modality: Modality,
    positions: np.ndarray[Any, Any],
    normalize: bool,
    device: str,
) -> Iterator[Float[Tensor, "rows features"]]:
    """Compute a feature set's activations on some pairs, in the given order, in blocks on the CPU.

    Args:
        view: the pairs.
        feature_set: the feature set.
        modality: image or text.
        positions: positions of the pairs in the view.
        normalize: whether the feature set takes embeddings of unit length.
        device: where the feature set is.
    """
    size = max(1, min(BLOCK_ROWS, BLOCK_VALUES // feature_set.num_features))
    for start in range(0, len(positions), size):
        chosen = positions[start : start + size]
        stored, origin = view.gather(modality, chosen), view.origin(modality, chosen)
        with torch.inference_mode():
            yield feature_set.encode(prepare(stored, normalize, device, origin), modality).cpu()
