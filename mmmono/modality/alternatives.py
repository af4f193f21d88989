"""Alternative scores of a feature's modality, for comparison with the modality dominance score."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from jaxtyping import Float, Float64
from scipy.stats import rankdata
from torch import Tensor

from mmmono.core.finite import check_finite, double, single
from mmmono.core.streams import Stream, unpacked
from mmmono.features.rows import check_pairs

CHUNK_FEATURES = 32  # features ranked at a time; limits the memory for their ranks


def energy_ratio(
    blocks: Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]],
) -> Float64[Tensor, " features"]:
    """Share of each feature's energy on images: Σ z_img² / (Σ z_img² + Σ z_txt²) over all pairs.

    Eq. 1 averages ratios; this is a ratio of sums, so strong activations weigh more. In [0, 1]: 1 if only images
    activate the feature, NaN if nothing does.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: image and text blocks differ in shape, or there is no block.
    """
    stream = EnergyStream()
    for image, text in unpacked(blocks, "image, text"):
        stream.add(image, text)
    return stream.result()


class EnergyStream(Stream[[Tensor, Tensor], Tensor]):
    """Running energies of both modalities, for callers that compute several things in one pass; see `energy_ratio`."""

    def __init__(self) -> None:
        self._energy: Tensor | None = None  # float64 [2, features]: Σ z² of images and of texts
        self._pairs = 0

    def add(self, image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"]) -> None:
        """Add a block of activations. Raises NonFiniteError if one is NaN or infinite, ValueError if shapes differ."""
        check_pairs(image, text, None if self._energy is None else self._energy.shape[1])
        check_finite(image, "image", self._pairs)
        check_finite(text, "text", self._pairs)
        energy = torch.stack([double(side).square().sum(0) for side in (image, text)])
        self._energy = energy if self._energy is None else self._energy + energy
        self._pairs += len(image)

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream; see `Stream.merge`."""
        if other._energy is not None:
            mine = self._energy
            self._energy = other._energy if mine is None else mine + other._energy.to(mine.device)
            self._pairs += other._pairs

    def result(self) -> Float64[Tensor, " features"]:
        """Return the image modality's share of each feature's energy. Raises ValueError if no block was added."""
        if self._energy is None:
            raise ValueError("no activations to score")
        return (self._energy[0] / self._energy.sum(0)).cpu()


def image_auroc(
    image: Float[Tensor, "images features"], text: Float[Tensor, "texts features"]
) -> Float64[Tensor, " features"]:
    """AUROC of classifying image against text by a feature's magnitude: P(|z_img| > |z_txt|) + ½ P(equal).

    1 if every image activates the feature more than any text, 0.5 if the magnitude carries no information, NaN if
    there are no images or no texts.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: both modalities have different features.
    """
    check_finite(image, "image")
    check_finite(text, "text")
    if image.ndim != 2 or image.shape[1:] != text.shape[1:]:
        raise ValueError(f"activations [samples, features] expected, got {tuple(image.shape)} and {tuple(text.shape)}")
    if not len(image) or not len(text):
        return torch.full((image.shape[1],), torch.nan, dtype=torch.float64)
    images, texts = len(image), len(text)
    scores = []
    for sides in zip(image.split(CHUNK_FEATURES, 1), text.split(CHUNK_FEATURES, 1), strict=True):
        magnitude = torch.cat([single(side) for side in sides]).abs().T.contiguous().cpu()
        ranks = torch.from_numpy(rankdata(magnitude, axis=1))[:, :images]  # equal ones share their mean rank
        wins = ranks.sum(1) - images * (images + 1) / 2  # Mann-Whitney U: pairs in which the image is above
        scores.append(wins / images / texts)
    return torch.cat(scores)
