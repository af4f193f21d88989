"""Mean embedding of each modality, where an autoencoder's pre-bias starts and what centering subtracts."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch

from mmmono.features import FeatureView
from mmmono.features.rows import prepare

_MEANS: WeakKeyDictionary[FeatureView, dict[bool, tuple[torch.Tensor, torch.Tensor]]] = WeakKeyDictionary()


def modality_means(view: FeatureView, normalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean image embedding and mean text embedding, float32 of shape `[dim]` each, in one pass for each view."""
    known = _MEANS.setdefault(view, {})
    if normalize not in known:
        known[normalize] = _modality_means(view, normalize)
    return known[normalize]


def _modality_means(view: FeatureView, normalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.zeros(view.dim, dtype=torch.float64)
    text = torch.zeros_like(image)
    for block in view.blocks():
        image += prepare(block.image, normalize, "cpu", view.origin("image", block.start)).sum(0, dtype=torch.float64)
        text += prepare(block.text, normalize, "cpu", view.origin("text", block.start)).sum(0, dtype=torch.float64)
    return (image / len(view)).float(), (text / len(view)).float()
