"""Both sides of signed features in one pass: the most positive and the most negative samples, and the energy of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from mmmono.core.finite import single
from mmmono.core.parts import in_parts
from mmmono.core.streams import Stream, require_equal
from mmmono.features import KernelRows, Rows
from mmmono.interpretability.top_samples import CHUNK_ROWS, TopSamples, TopStream

Side = Literal["dominant", "positive"]
TIE = 1e-6  # energies closer than this, relatively, count as equal, and the positive side is taken
SIDES: tuple[Side, ...] = ("dominant", "positive")


@dataclass(frozen=True)
class BothSides:
    """The most activating samples of every feature on either side of 0, on one modality.

    Attributes:
        positive: samples with the largest positive activations.
        negative: samples with the most negative activations; None if no activation is negative.
        energy: sums of squared activations; of all samples in row 0, of those with negative activations in row 1.
    """

    positive: TopSamples
    negative: TopSamples | None
    energy: Float64[Tensor, "2 features"]

    def of(self, negative: Bool[Tensor, " features"]) -> TopSamples:
        """Return each feature's samples on one side: the negative side of the marked features."""
        if self.negative is None:
            if not bool(negative.any()):
                return self.positive
            nothing = negative[:, None]
            return TopSamples(self.positive.values.masked_fill(nothing, 0), self.positive.rows.masked_fill(nothing, -1))
        return TopSamples(
            torch.where(negative[:, None], self.negative.values, self.positive.values),
            torch.where(negative[:, None], self.negative.rows, self.positive.rows),
        )


class BothSidesStream(Stream[[Rows], BothSides]):
    """Running top m samples of every feature on either side of 0, in one pass.

    Blocks without a negative activation cost a minimum and a sum of squares more than `TopStream`.

    Args:
        m: samples per feature and side.

    Raises:
        ValueError: m is not positive.
    """

    def __init__(self, m: int) -> None:
        self.m = m
        self._above, self._below = TopStream(m), TopStream(m)
        self._energy: Tensor | None = None  # float64 [2, features]: of all activations, of negative ones

    def add(self, block: Rows) -> None:
        """Add the next rows of the stream. Raises NonFiniteError or StoreError, see `top_samples`."""
        if isinstance(block, KernelRows):
            self._add_compiled(block)
            return
        self._above.add(block)
        values = single(block)
        energy = self._room(values.shape[1], values.device)
        if not values.numel():
            return
        for chunk in values.split(CHUNK_ROWS):
            energy[0] += chunk.square().sum(0)
        if bool(values.amin() < 0):
            for chunk in values.split(CHUNK_ROWS):
                energy[1] += chunk.clamp_max(0).square_().sum(0)
            self._below.add(-values)
        else:
            self._below.skip(len(values))

    def merge(self, other: Self) -> None:
        """Add the samples of another stream; its first row follows this stream's last one. See `Stream.merge`."""
        require_equal("m", self.m, other.m)
        self._above.merge(other._above)
        self._below.merge(other._below)
        if other._energy is not None:
            energy = self._room(other._energy.shape[1], other._energy.device)
            energy += other._energy.to(energy.device)

    def result(self) -> BothSides:
        """Return both sides of all rows added so far. Raises ValueError if there are none."""
        positive = self._above.result()
        assert self._energy is not None
        negative = None
        if bool((self._energy[1] > 0).any()):
            mirrored = self._below.result()
            negative = TopSamples(0 - mirrored.values, mirrored.rows)  # not −0 where there is no sample
        return BothSides(positive, negative, self._energy.cpu())

    def _room(self, features: int, device: torch.device) -> Tensor:
        """Return the energies; the first call makes them."""
        if self._energy is None:
            self._energy = torch.zeros(2, features, dtype=torch.float64, device=device)
        return self._energy

    def _add_compiled(self, block: KernelRows) -> None:
        from mmmono.core.kernels import keep_best_of_both

        features, start, numbers = block.shape[1], self._above.count, block.numbers()
        above, below = self._above.of_threads(features), self._below.of_threads(features)
        energies = torch.zeros(len(above), 2, features, dtype=torch.float64)

        def work(part: int, first: int, end: int) -> tuple[float, float]:
            lengths: tuple[float, float] = keep_best_of_both(
                numbers[first:end], block.normalize, start + first, above[part], below[part], energies[part].numpy()
            )
            return lengths

        block.check(in_parts(work, len(block), len(above)), start)
        self._room(features, torch.device("cpu")).add_(energies.sum(0))
        self._above.skip(len(block))
        self._below.skip(len(block))


def negative_dominates(*sides: BothSides) -> Bool[Tensor, " features"]:
    """Whether a feature's negative activations hold more than half of its energy, Σ z² over all given modalities.

    One side is chosen for both modalities together, because a direction means the same in both: in 99 % of the
    dimensions of OpenAI's CLIP ViT-B/16, activations within pairs correlate positively (500 COCO pairs), but in 40 % the
    images' and the texts' larger halves have opposite signs, since the modality gap moves them apart. Chosen by modality,
    images and texts of opposite meaning would stand on one sheet. The larger energy is that of the modality that dominates
    the feature: the common side is the images' own for 96 % of ImgD and the texts' own for all TextD dimensions.
    """
    energy = torch.stack([side.energy for side in sides]).sum(0)
    return 2 * energy[1] > energy[0] * (1 + TIE)
