"""Monosemanticity score (MS) of Pach et al. 2025, computed exactly over all samples in one pass.

MS is a weighted mean over all pairs of samples; its closed form needs only sums over samples.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, double, unit_rows

CHUNK_ROWS = 256  # a chunk's float64 activations fit into a core's L2 cache


def monosemanticity_score(
    blocks: Iterable[tuple[Float[Tensor, "samples features"], Float[Tensor, "samples dim"]]],
) -> Float64[Tensor, " features"]:
    """MS = Σ_{i<j} a_i a_j ⟨e_i, e_j⟩ / Σ_{i<j} a_i a_j for every feature, with a min-max scaled to [0, 1].

    Computed as (‖Σ a_i e_i‖² − Σ a_i²) / ((Σ a_i)² − Σ a_i²) from Σa, Σa², Σae and Σe of the unscaled activations, in
    one pass. Sums are float64, of activations minus the first sample's: in float32, the score would be lost to rounding
    if activations are large relative to their spread or one sample outweighs all others.

    Args:
        blocks: activations and embeddings of the same samples, row by row. Embeddings are L2-normalized here; an
            all-zero one has similarity 0 to all others.

    Returns:
        MS of each feature, at most 1; NaN if fewer than two samples lie above the feature's minimum.

    Raises:
        NonFiniteError: an activation or an embedding is NaN or infinite.
        ValueError: there are no samples, or activations and embeddings do not match.
    """
    sums: _Sums | None = None
    for activations, embeddings in blocks:
        if activations.ndim != 2 or embeddings.ndim != 2 or len(activations) != len(embeddings):
            raise ValueError(
                "activations [samples, features] and embeddings [samples, dim] expected, got "
                f"{tuple(activations.shape)} and {tuple(embeddings.shape)}"
            )
        for a, e in zip(activations.split(CHUNK_ROWS), embeddings.split(CHUNK_ROWS), strict=True):
            if len(a):
                sums = sums or _Sums(a[0], e.shape[1])
                sums.add(a, e)
    if sums is None:
        raise ValueError("no activations to score")
    return sums.score().cpu()


class _Sums:
    def __init__(self, origin: Tensor, dim: int) -> None:
        self.origin = double(origin)
        self.count = 0
        self.lowest, self.highest = torch.zeros_like(self.origin), torch.zeros_like(self.origin)
        self.at_lowest = torch.zeros_like(self.origin, dtype=torch.int64)
        self.a, self.a2 = torch.zeros_like(self.origin), torch.zeros_like(self.origin)
        # The same over samples with a non-zero embedding, whose similarity to themselves is 1 instead of 0.
        self.own, self.own2 = torch.zeros_like(self.origin), torch.zeros_like(self.origin)
        self.directed = self.origin.new_zeros(())
        self.ae = self.origin.new_zeros(len(origin), dim)
        self.e = self.origin.new_zeros(dim)

    def add(self, activations: Tensor, embeddings: Tensor) -> None:
        check_finite(activations, "sample", self.count)
        check_finite(embeddings, "embedding", self.count, "dimension")
        a = double(activations) - self.origin
        e = unit_rows(embeddings.to(a.device))
        self._note_extremes(a)
        self.count += len(a)
        squared = a.square()
        total, total2 = a.sum(0), squared.sum(0)
        self.a += total
        self.a2 += total2
        directed = (e != 0).any(1)
        if not bool(directed.all()):
            total, total2 = directed.double() @ a, directed.double() @ squared
        self.own += total
        self.own2 += total2
        self.directed += directed.sum()
        self.ae.addmm_(a.T, e)
        self.e += e.sum(0)

    def _note_extremes(self, a: Tensor) -> None:
        lowest, highest = a.aminmax(dim=0)
        low = torch.minimum(self.lowest, lowest)
        self.at_lowest = torch.where(low < self.lowest, 0, self.at_lowest) + (a == low).sum(0)
        self.lowest, self.highest = low, torch.maximum(self.highest, highest)

    def score(self) -> Tensor:
        low, span = self.lowest, self.highest - self.lowest
        scale = torch.where(span > 0, 1 / span, torch.nan)
        a = (self.a - self.count * low) * scale
        a2 = _squares(self.a2, self.a, self.count, low) * scale.square()
        own = _squares(self.own2, self.own, self.directed, low) * scale.square()
        ae = (self.ae - torch.outer(low, self.e)) * scale[:, None]
        denominator = a.square() - a2
        # With fewer than two active samples, the denominator is only rounding error.
        pairs = (self.count - self.at_lowest >= 2) & (denominator > 1e-9 * a.square())
        return torch.where(pairs, (ae.square().sum(1) - own) / denominator, torch.nan)


def _squares(a2: Tensor, a: Tensor, count: Tensor | int, low: Tensor) -> Tensor:
    """Σ (a − low)² over `count` samples, from Σ a² and Σ a."""
    return a2 - 2 * low * a + count * low.square()
