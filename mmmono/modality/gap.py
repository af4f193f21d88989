"""Modality gap of a model (Liang et al. 2022); the modality dominance score is its per-feature refinement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.finite import check_finite, double


@dataclass(frozen=True)
class ModalityGap:
    """Distance between the two modalities' embeddings.

    Attributes:
        centroid_distance: ‖mean(z_img) − mean(z_txt)‖₂ of L2-normalized embeddings, as Liang et al. define it.
        mean_norm_difference: mean ‖z_img‖₂ − mean ‖z_txt‖₂ of unnormalized embeddings, as printed in Section 2.1.
    """

    centroid_distance: float
    mean_norm_difference: float


def modality_gap(blocks: Iterable[tuple[Float[Tensor, "pairs dim"], Float[Tensor, "pairs dim"]]]) -> ModalityGap:
    """Compute both definitions of the modality gap over blocks of paired, unnormalized embeddings, in one pass.

    `centroid_distance` is NaN if an embedding is all zeros.

    Raises:
        NonFiniteError: an embedding is NaN or infinite.
        ValueError: there is no pair.
    """
    difference: Tensor | None = None
    norms = 0.0
    count = 0
    for image, text in blocks:
        check_finite(image, "image", count, "dimension")
        check_finite(text, "text", count, "dimension")
        image, text = double(image), double(text)
        lengths = [torch.linalg.vector_norm(z, dim=1, keepdim=True) for z in (image, text)]
        block = (image / lengths[0] - text / lengths[1]).sum(0)
        difference = block if difference is None else difference + block
        norms += float((lengths[0] - lengths[1]).sum())
        count += len(image)
    if difference is None or not count:
        raise ValueError("no embeddings to measure a gap on")
    return ModalityGap(float(torch.linalg.vector_norm(difference / count)), norms / count)
