"""Modality gap of a model (Liang et al. 2022); the modality dominance score is its per-feature refinement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.finite import check_finite, double
from mmmono.core.streams import Stream, unpacked
from mmmono.features.rows import check_pairs


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
        ValueError: image and text blocks differ in shape, or there is no pair.
    """
    stream = GapStream()
    for image, text in unpacked(blocks, "image, text"):
        stream.add(image, text)
    return stream.result()


class GapStream(Stream[[Tensor, Tensor], ModalityGap]):
    """Running modality gap, for callers that compute several things in one pass; see `modality_gap`."""

    def __init__(self) -> None:
        self._difference: Tensor | None = None  # float64 [dim]: Σ z_img / ‖z_img‖ − z_txt / ‖z_txt‖
        self._norms = 0.0  # Σ ‖z_img‖ − ‖z_txt‖
        self._count = 0

    def add(self, image: Float[Tensor, "pairs dim"], text: Float[Tensor, "pairs dim"]) -> None:
        """Add a block of paired, unnormalized embeddings.

        Raises:
            NonFiniteError: a number is NaN or infinite.
            ValueError: the sides differ in shape.
        """
        check_pairs(image, text, None if self._difference is None else len(self._difference))
        check_finite(image, "image", self._count, "dimension")
        check_finite(text, "text", self._count, "dimension")
        image, text = double(image), double(text)
        lengths = [torch.linalg.vector_norm(z, dim=1, keepdim=True) for z in (image, text)]
        difference = (image / lengths[0] - text / lengths[1]).sum(0)
        self._difference = difference if self._difference is None else self._difference + difference
        self._norms += float((lengths[0] - lengths[1]).sum())
        self._count += len(image)

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream; see `Stream.merge`."""
        if other._difference is not None:
            mine = self._difference
            self._difference = other._difference if mine is None else mine + other._difference.to(mine.device)
            self._norms += other._norms
            self._count += other._count

    def result(self) -> ModalityGap:
        """Return both definitions of the gap over all pairs added so far. Raises ValueError if there are none."""
        if self._difference is None or not self._count:
            raise ValueError("no embeddings to measure a gap on")
        return ModalityGap(float(torch.linalg.vector_norm(self._difference / self._count)), self._norms / self._count)
