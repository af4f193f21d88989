"""Histograms of every feature's image and text activations, in one pass without knowing their range in advance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, single

CHUNK_ROWS = 256  # rows binned at a time; limits the memory for the indices of active entries


@dataclass(frozen=True)
class ActivationHistograms:
    """Histograms of the non-zero activations of every feature, with bins symmetric around 0.

    Of 2n bins, bin b holds `(b − n) · width ≤ activation < (b − n + 1) · width`; the last bin includes its upper end.

    Attributes:
        counts: number of samples per bin; images in row 0, texts in row 1.
        width: bin width of each feature, a power of two; the same for both modalities.
        samples: number of samples of each modality, including those with activation 0.
    """

    counts: Int64[Tensor, "2 features bins"]
    width: Float[Tensor, " features"]
    samples: int

    @property
    def positive(self) -> Int64[Tensor, "2 features"]:
        """Number of images (row 0) and texts (row 1) with a positive activation."""
        return self.counts[..., self.counts.shape[-1] // 2 :].sum(-1)


def activation_histograms(
    blocks: Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]], bins: int = 64
) -> ActivationHistograms:
    """Compute histograms of image and text activations for all features in one pass.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        bins: number of bins, a multiple of 4.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there is no block, or `bins` is not a positive multiple of 4.
    """
    stream = HistogramStream(bins)
    for image, text in blocks:
        stream.add(image, text)
    return stream.result()


class HistogramStream:
    """Running histograms, for callers that compute several things in one pass; see `activation_histograms`.

    The range of a feature is ± the smallest power of two that holds all its activations. When a larger activation
    arrives, the range doubles and adjacent bins merge. Counts are therefore exact and independent of the order and the
    block size of the stream.
    """

    def __init__(self, bins: int = 64) -> None:
        if bins < 4 or bins % 4:
            raise ValueError(f"bins={bins}: give a positive multiple of 4")
        self.bins = bins
        self._samples = 0
        self._counts: Tensor | None = None
        self._exponent: Tensor  # the range is 2 ** exponent

    def add(self, image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"]) -> None:
        """Add a block of pairs. Raises NonFiniteError if an activation is NaN or infinite."""
        if not len(image) and not len(text):
            return
        image, text = single(image), single(text)
        for name, side in (("image", image), ("text", text)):
            check_finite(side, name, self._samples)
        if self._counts is None:
            features = image.shape[1]
            self._counts = torch.zeros(2, features, self.bins, dtype=torch.int64, device=image.device)
            self._exponent = torch.full((features,), torch.iinfo(torch.int32).min, device=image.device)
        self._widen(torch.maximum(image.abs().amax(0), text.abs().amax(0)))
        for modality, block in enumerate((image, text)):
            for chunk in block.split(CHUNK_ROWS):
                self._count(modality, chunk)
        self._samples += len(image)

    def _widen(self, peak: Tensor) -> None:
        assert self._counts is not None
        mantissa, exponent = torch.frexp(peak)  # peak = mantissa · 2 ** exponent, ½ ≤ mantissa < 1
        exponent = torch.where(mantissa == 0.5, exponent - 1, exponent).long()
        silent = self._exponent == torch.iinfo(torch.int32).min
        first = silent & (peak > 0)
        self._exponent[first] = exponent[first]
        steps = torch.where((peak > 0) & ~silent, exponent - self._exponent, 0).clamp_min(0)
        while bool((steps > 0).any()):
            growing = (steps > 0).nonzero().squeeze(1)
            pairs = self._counts[:, growing].unflatten(-1, (self.bins // 2, 2)).sum(-1)
            wider = torch.zeros_like(self._counts[:, growing])
            wider[..., self.bins // 4 : 3 * self.bins // 4] = pairs
            self._counts[:, growing] = wider
            self._exponent[growing] += 1
            steps[growing] -= 1

    def _count(self, modality: int, chunk: Tensor) -> None:
        assert self._counts is not None
        row, feature = chunk.nonzero(as_tuple=True)
        half = self.bins // 2
        # The width is a power of two, so dividing by it is exact.
        place = (chunk[row, feature] / self._width()[feature]).floor().long() + half
        index = feature * self.bins + place.clamp_max(self.bins - 1)
        counts = self._counts[modality]
        counts += torch.bincount(index, minlength=counts.numel()).view_as(counts)

    def _width(self) -> Tensor:
        return torch.exp2(self._exponent.clamp_min(-126).float()) / (self.bins // 2)

    def result(self) -> ActivationHistograms:
        """Return the histograms of all pairs added so far. Raises ValueError if there are none."""
        if self._counts is None:
            raise ValueError("no activations to make histograms of")
        return ActivationHistograms(self._counts.cpu(), self._width().cpu(), self._samples)
