"""Histograms of every feature's activations, image and text apart, in one pass over pairs that nobody has measured yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.finite import check_finite, single

CHUNK_ROWS = 256  # rows binned together, so that the index of a chunk's active entries stays small


@dataclass(frozen=True)
class ActivationHistograms:
    """How often each feature takes which activation; bin b of 2n holds `(b − n) · width ≤ activation < (b − n + 1) · width`.

    Attributes:
        counts: of samples whose activation is not 0, images first, texts second; the highest bin holds its upper end too.
        width: of a feature's bins, a power of two; the same for both modalities.
        samples: how many samples of each modality were seen, silent ones among them.
    """

    counts: Int64[Tensor, "2 features bins"]
    width: Float[Tensor, " features"]
    samples: int

    @property
    def positive(self) -> Int64[Tensor, "2 features"]:
        """Samples of either modality with a positive activation."""
        return self.counts[..., self.counts.shape[-1] // 2 :].sum(-1)


def activation_histograms(
    blocks: Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]], bins: int = 64
) -> ActivationHistograms:
    """Histograms of image and text activations, for every feature at once.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there is no block, or `bins` is not a positive multiple of 4.
    """
    stream = HistogramStream(bins)
    for image, text in blocks:
        stream.add(image, text)
    return stream.result()


class HistogramStream:
    """Running histograms, for callers that do more than one thing with a stream.

    A feature's range, symmetric around 0, is the smallest power of two that holds all its activations. It doubles, two
    bins becoming one, when a larger one arrives; so counts are exact and depend neither on the order of the stream nor
    on its blocks.
    """

    def __init__(self, bins: int = 64) -> None:
        if bins < 4 or bins % 4:
            raise ValueError(f"bins={bins}: give a positive multiple of 4")
        self.bins = bins
        self._samples = 0
        self._counts: Tensor | None = None
        self._exponent: Tensor  # the range is 2 ** exponent

    def add(self, image: Float[Tensor, "pairs features"], text: Float[Tensor, "pairs features"]) -> None:
        """Look at the next pairs. Raises NonFiniteError if an activation is NaN or infinite."""
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
        # Exact: width is a power of two, so that dividing by it rounds nothing.
        place = (chunk[row, feature] / self._width()[feature]).floor().long() + half
        index = feature * self.bins + place.clamp_max(self.bins - 1)
        counts = self._counts[modality]
        counts += torch.bincount(index, minlength=counts.numel()).view_as(counts)

    def _width(self) -> Tensor:
        return torch.exp2(self._exponent.clamp_min(-126).float()) / (self.bins // 2)

    def result(self) -> ActivationHistograms:
        """The histograms of everything seen so far. Raises ValueError if that is nothing."""
        if self._counts is None:
            raise ValueError("no activations to make histograms of")
        return ActivationHistograms(self._counts.cpu(), self._width().cpu(), self._samples)
