"""Histograms of every feature's image and text activations, in one pass without knowing their range in advance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, single
from mmmono.core.ranges import check_whole
from mmmono.core.streams import Stream, require_equal, unpacked
from mmmono.features.rows import check_pairs

CHUNK_ROWS = 256  # rows binned at a time; limits the memory for the indices of active entries
SILENT = torch.iinfo(torch.int32).min
SMALLEST = -126  # exponent of the smallest range: that of float32's smallest normal number


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
        ValueError: image and text blocks differ in shape, there is no block, or `bins` is not a positive multiple of 4.
    """
    stream = HistogramStream(bins)
    for image, text in unpacked(blocks, "image, text"):
        stream.add(image, text)
    return stream.result()


class HistogramStream(Stream[[Tensor, Tensor], ActivationHistograms]):
    """Running histograms, for callers that compute several things in one pass; see `activation_histograms`.

    The range of a feature is ± the smallest power of two that holds all its activations. When a larger activation
    arrives, the range doubles and adjacent bins merge. Counts are therefore exact and independent of the order and the
    block size of the stream.

    Args:
        bins: number of bins.

    Raises:
        ValueError: `bins` is not a positive multiple of 4.
    """

    def __init__(self, bins: int = 64) -> None:
        check_whole("bins", bins, least=4)
        if bins % 4:
            raise ValueError(f"bins={bins}: give a positive multiple of 4")
        self.bins = bins
        self._samples = 0
        self._counts: Tensor | None = None  # int64 [2, features, bins]
        self._edge: Tensor  # int64 [2, features]: those of the last bin that equal its upper end
        self._exponent: Tensor  # int64 [features]: the range is 2 ** exponent; SILENT if all activations are 0

    def add(self, image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"]) -> None:
        """Add a block of pairs. Raises NonFiniteError if an activation is NaN or infinite, ValueError if shapes differ."""
        check_pairs(image, text, None if self._counts is None else self._counts.shape[1])
        if not len(image):
            return
        image, text = single(image), single(text)
        for name, side in (("image", image), ("text", text)):
            check_finite(side, name, self._samples)
        counts = self._room(image.shape[1], image.device)
        self._widen(_exponent(torch.maximum(image.abs().amax(0), text.abs().amax(0))))
        for modality, block in enumerate((image, text)):
            for chunk in block.split(CHUNK_ROWS):
                self._count(chunk, counts[modality], self._edge[modality])
        self._samples += len(image)

    def merge(self, other: Self) -> None:
        """Add the pairs of another stream, exactly; see `Stream.merge`."""
        require_equal("bins", self.bins, other.bins)
        if other._counts is None:
            return
        counts = self._room(other._counts.shape[1], other._counts.device)
        same = HistogramStream(self.bins)  # the other histograms, with the ranges that hold both
        same._counts, same._edge, same._exponent = (
            x.to(counts.device, copy=True) for x in (other._counts, other._edge, other._exponent)
        )
        same._widen(self._exponent)
        self._widen(same._exponent)
        counts += same._counts
        self._edge += same._edge
        self._samples += other._samples

    def _room(self, features: int, device: torch.device) -> Tensor:
        """Return the counts; the first call makes them."""
        if self._counts is None:
            self._counts = torch.zeros(2, features, self.bins, dtype=torch.int64, device=device)
            self._edge = torch.zeros(2, features, dtype=torch.int64, device=device)
            self._exponent = torch.full((features,), SILENT, device=device)
        return self._counts

    def _widen(self, exponent: Int64[Tensor, " features"]) -> None:
        """Double ranges, merging adjacent bins, until they are at least 2 ** exponent."""
        assert self._counts is not None
        silent = self._exponent == SILENT
        self._exponent[silent] = exponent[silent]
        steps = (exponent - self._exponent).clamp_min(0)
        while bool((steps > 0).any()):
            growing = (steps > 0).nonzero().squeeze(1)
            pairs = self._counts[:, growing].unflatten(-1, (self.bins // 2, 2)).sum(-1)
            wider = torch.zeros_like(self._counts[:, growing])
            wider[..., self.bins // 4 : 3 * self.bins // 4] = pairs
            # What equals the upper end of the last bin belongs to the next one as soon as there is one.
            wider[..., 3 * self.bins // 4 - 1] -= self._edge[:, growing]
            wider[..., 3 * self.bins // 4] += self._edge[:, growing]
            self._counts[:, growing] = wider
            self._edge[:, growing] = 0
            self._exponent[growing] += 1
            steps[growing] -= 1

    def _count(self, chunk: Tensor, counts: Tensor, edge: Tensor) -> None:
        row, feature = chunk.nonzero(as_tuple=True)
        # The width is a power of two, so dividing by it is exact.
        place = (chunk[row, feature] / self._width()[feature]).floor().long() + self.bins // 2
        beyond = place == self.bins
        if bool(beyond.any()):
            edge += torch.bincount(feature[beyond], minlength=len(edge))
        index = feature * self.bins + place.clamp_max(self.bins - 1)
        counts += torch.bincount(index, minlength=counts.numel()).view_as(counts)

    def _width(self) -> Tensor:
        return torch.exp2(self._exponent.clamp_min(SMALLEST).float()) / (self.bins // 2)

    def result(self) -> ActivationHistograms:
        """Return the histograms of all pairs added so far. Raises ValueError if there are none."""
        if self._counts is None:
            raise ValueError("no activations to make histograms of")
        return ActivationHistograms(self._counts.cpu(), self._width().cpu(), self._samples)


def _exponent(peak: Float[Tensor, " features"]) -> Int64[Tensor, " features"]:
    """Exponent of the smallest power of two that is at least `peak`; SILENT for 0."""
    mantissa, exponent = torch.frexp(peak)  # peak = mantissa · 2 ** exponent, ½ ≤ mantissa < 1
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent).long()
    return torch.where(peak > 0, exponent.clamp_min(SMALLEST), SILENT)
