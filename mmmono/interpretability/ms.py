"""Monosemanticity score (MS) of Pach et al. 2025, computed exactly over all samples in one pass.

MS is a weighted mean over all pairs of samples; its closed form needs only sums over samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, double, unit_rows
from mmmono.core.streams import Stream

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
    stream = MonosemanticityStream()
    for activations, embeddings in blocks:
        stream.add(activations, embeddings)
    return stream.result()


class MonosemanticityStream(Stream[[Tensor, Tensor], Tensor]):
    """Running MS, for callers that compute several things in one pass; see `monosemanticity_score`."""

    def __init__(self) -> None:
        self._sums: _Sums | None = None

    def add(self, activations: Float[Tensor, "samples features"], embeddings: Float[Tensor, "samples dim"]) -> None:
        """Add a block of samples with their embeddings. Errors: see `monosemanticity_score`."""
        if activations.ndim != 2 or embeddings.ndim != 2 or len(activations) != len(embeddings):
            raise ValueError(
                "activations [samples, features] and embeddings [samples, dim] expected, got "
                f"{tuple(activations.shape)} and {tuple(embeddings.shape)}"
            )
        for a, e in zip(activations.split(CHUNK_ROWS), embeddings.split(CHUNK_ROWS), strict=True):
            if len(a):
                self._sums = self._sums or _Sums(double(a[0]), e.shape[1])
                self._sums.add(a, e)

    def merge(self, other: Self) -> None:
        """Add the samples of another stream; see `Stream.merge`."""
        if other._sums is not None:
            self._sums = self._sums or _Sums(other._sums.origin, len(other._sums.e))
            self._sums.merge(other._sums)

    def result(self) -> Float64[Tensor, " features"]:
        """Return the MS of each feature over all samples added so far. Raises ValueError if there are none."""
        if self._sums is None:
            raise ValueError("no activations to score")
        return self._sums.score().cpu()


class _Sums:
    """Sums of activations minus `origin`, and the extremes of the activations themselves."""

    def __init__(self, origin: Float64[Tensor, " features"], dim: int) -> None:
        self.origin = origin
        self.count = 0
        self.lowest, self.highest = origin.clone(), origin.clone()
        self.at_lowest = torch.zeros_like(origin, dtype=torch.int64)
        self.a, self.a2 = torch.zeros_like(origin), torch.zeros_like(origin)
        # The same over samples with a non-zero embedding, whose similarity to themselves is 1 instead of 0.
        self.own, self.own2 = torch.zeros_like(origin), torch.zeros_like(origin)
        self.directed = origin.new_zeros(())
        self.ae = origin.new_zeros(len(origin), dim)
        self.e = origin.new_zeros(dim)

    def add(self, activations: Tensor, embeddings: Tensor) -> None:
        check_finite(activations, "sample", self.count)
        check_finite(embeddings, "embedding", self.count, "dimension")
        a = double(activations)
        e = unit_rows(embeddings.to(a.device))
        lowest, highest = a.aminmax(dim=0)
        self._note_extremes(lowest, (a == lowest).sum(0), highest)
        a = a - self.origin
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

    def merge(self, other: _Sums) -> None:
        """Add other sums, moved to this origin."""
        device = self.origin.device
        a, a2, own, own2, ae, e, directed, origin = (
            x.to(device)
            for x in (other.a, other.a2, other.own, other.own2, other.ae, other.e, other.directed, other.origin)
        )
        moved = self.origin - origin
        self._note_extremes(*(x.to(device) for x in (other.lowest, other.at_lowest, other.highest)))
        self.count += other.count
        self.a += a - other.count * moved
        self.a2 += _squares(a2, a, other.count, moved)
        self.own += own - directed * moved
        self.own2 += _squares(own2, own, directed, moved)
        self.directed += directed
        self.ae += ae - torch.outer(moved, e)
        self.e += e

    def _note_extremes(self, lowest: Tensor, at_lowest: Tensor, highest: Tensor) -> None:
        low = torch.minimum(self.lowest, lowest)
        self.at_lowest = torch.where(low < self.lowest, 0, self.at_lowest) + torch.where(low < lowest, 0, at_lowest)
        self.lowest, self.highest = low, torch.maximum(self.highest, highest)

    def score(self) -> Tensor:
        low = self.lowest - self.origin
        span = (self.highest - self.origin) - low
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
