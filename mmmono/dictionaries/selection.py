"""Which pre-activations become codes: the k largest of each sample, or as many as that over a whole batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.core.ranges import check_number
from mmmono.dictionaries.parallel import place, rows_of_all_processes, sum_over_processes
from mmmono.dictionaries.sparse import CHUNK_ELEMENTS, Pattern, SparseCodes, sampled_product, select_latents, topk

MARGIN = 0.95  # the next batch's threshold is looked for above this share of the last one's


class Selection(nn.Module, ABC):
    """How many of the largest pre-activations become codes.

    Args:
        k: active latents per sample, or on average.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    @abstractmethod
    def choose(
        self,
        z: Float[Tensor, "batch dim"],
        weight: Float[Tensor, "latents dim"],
        bias: Float[Tensor, " latents"] | None,
    ) -> SparseCodes:
        """Codes of a training batch from W z + bias, without gradients and without a matrix of all pre-activations."""

    @abstractmethod
    def of(self, activations: Float[Tensor, "batch latents"]) -> SparseCodes:
        """Codes of a training batch from its pre-activations, with gradients."""


class PerSample(Selection):
    """The k largest pre-activations of each sample, if they are positive."""

    def choose(self, z: Tensor, weight: Tensor, bias: Tensor | None) -> SparseCodes:
        """See `Selection.choose`."""
        values, indices = select_latents(z, weight, bias, self.k)
        return SparseCodes(values.relu_(), Pattern(indices, len(weight)))

    def of(self, activations: Tensor) -> SparseCodes:
        """See `Selection.of`."""
        values, indices = topk(activations, self.k)
        return SparseCodes(values.relu(), Pattern(indices, activations.shape[1]))


class PerBatch(Selection):
    """The k · b largest pre-activations of a batch of b samples, if they are positive.

    Later there is no batch to choose from. The smallest chosen pre-activation of each batch is therefore averaged over
    the batches of training, and what exceeds this threshold becomes a code.

    If several processes share a batch, they choose from all of it.

    Args:
        k: active latents per sample, on average.
        rate: weight of the newest batch in the running mean of the threshold.

    Attributes:
        threshold: the running mean; negative before the first batch.
    """

    threshold: Tensor

    def __init__(self, k: int, rate: float = 0.01) -> None:
        super().__init__(k)
        check_number("threshold_rate", rate, above=0, most=1)
        self.rate = rate
        self.register_buffer("threshold", torch.tensor(-1.0, dtype=torch.float32))
        self._last: float | None = None  # threshold of the last batch; only speeds up the search for the next

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Convert as other modules do, but keep the threshold at least float32: a coarser running mean stops moving."""
        before = self.threshold
        super()._apply(fn, recurse)
        if torch.finfo(self.threshold.dtype).bits < 32:
            self.threshold = before.to(self.threshold.device, torch.promote_types(before.dtype, torch.float32))
        return self

    def choose(self, z: Tensor, weight: Tensor, bias: Tensor | None) -> SparseCodes:
        """See `Selection.choose`."""
        with torch.no_grad():
            low = self._guess(z, weight, bias)
            while True:
                values, indices, counts = _above(z, weight, bias, low)
                threshold = self._smallest_chosen(values, len(z))
                if threshold is not None or low == 0:
                    break
                low = low / 2 if 1e-6 < low < math.inf else 0.0
            starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            if threshold is not None:  # else all positive ones are kept
                kept = values >= threshold
                starts = torch.cat([starts.new_zeros(1), kept.cumsum(0)])[starts]
                values, indices = values[kept], indices[kept]
            newest = self._follow(threshold, values)
            self._last = self._last if newest is None else float(newest)
            return SparseCodes(values, Pattern(indices, len(weight), starts))

    def of(self, activations: Tensor) -> SparseCodes:
        """See `Selection.of`."""
        positive = activations.relu()
        flat = positive.detach().flatten()
        largest = flat.topk(min(len(flat), self.k * len(activations) * place()[1]), sorted=False).values
        threshold = self._smallest_chosen(largest[largest > 0], len(activations))
        chosen = positive > 0 if threshold is None else positive >= threshold
        rows, indices = chosen.nonzero(as_tuple=True)
        starts = torch.cat([rows.new_zeros(1), chosen.sum(1).cumsum(0)])
        values = positive[rows, indices]
        self._follow(threshold, values.detach())
        return SparseCodes(values, Pattern(indices, activations.shape[1], starts))

    def _smallest_chosen(self, candidates: Tensor, samples: int) -> Tensor | None:
        """The k · b-th largest of all processes' candidates; None if there are fewer."""
        wanted = self.k * samples * place()[1]
        candidates = rows_of_all_processes(candidates)
        if len(candidates) < wanted:
            return None
        return candidates.topk(wanted, sorted=False).values.min()

    @torch.no_grad()
    def _follow(self, threshold: Tensor | None, values: Tensor) -> Tensor | None:
        """Move the running mean towards this batch's threshold, and return it.

        If all positive values were kept, it is the smallest of them; None if there are none.
        """
        if threshold is None:
            values = rows_of_all_processes(values)
            if not len(values):
                return None
            threshold = values.min()
        newest = threshold.to(self.threshold.dtype)
        self.threshold.copy_(torch.where(self.threshold < 0, newest, self.threshold.lerp(newest, self.rate)))
        return newest

    def _guess(self, z: Tensor, weight: Tensor, bias: Tensor | None) -> float:
        """A value below which the batch's threshold is not expected."""
        if self._last is None:
            sample = z[: max(1, CHUNK_ELEMENTS // len(weight))]
            with torch.autocast(z.device.type, enabled=False):
                found = F.linear(sample, weight, bias).flatten()
            found = found.topk(min(self.k * len(sample), len(found)), sorted=False).values.min().clamp_min(0)
            self._last = float(sum_over_processes(found)) / place()[1] * MARGIN
        return self._last * MARGIN


def _above(
    z: Float[Tensor, "batch dim"],
    weight: Float[Tensor, "latents dim"],
    bias: Float[Tensor, " latents"] | None,
    low: float,
) -> tuple[Float[Tensor, " active"], Int64[Tensor, " active"], Int64[Tensor, " batch"]]:
    """Values, latents and numbers per sample of the entries of W z + bias above `low`, sample by sample.

    Under autocast, a bfloat16 product finds them, and float32 products give their values.
    """
    halves = torch.is_autocast_enabled(z.device.type)
    with torch.autocast(z.device.type, enabled=False):
        factors = (z, weight, bias)
        if halves:
            factors = (z.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16())
        values, indices, counts = _above_by_chunks(*factors, low)
        if not halves:
            return values, indices, counts
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        values = sampled_product(z, weight, indices, starts)
        return (values if bias is None else values + bias[indices]).relu_(), indices, counts


def _above_by_chunks(z: Tensor, weight: Tensor, bias: Tensor | None, low: float) -> tuple[Tensor, Tensor, Tensor]:
    rows = max(1, CHUNK_ELEMENTS // len(weight))
    buffer = z.new_empty(min(rows, len(z)), len(weight))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for chunk in z.split(rows):
        activation = torch.mm(chunk, weight.T, out=buffer[: len(chunk)])
        if bias is not None:
            activation += bias
        above = activation > low
        places = above.flatten().nonzero().squeeze(1)
        parts.append((activation.flatten()[places], places.remainder(len(weight)), above.sum(1)))
    values, indices, counts = (torch.cat(part) for part in zip(*parts, strict=True))
    return values, indices, counts
