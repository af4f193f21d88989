"""The monosemanticity score MS of Pach et al. 2025, exactly, over all samples, in one pass.

Their definition is a mean over all pairs of samples; its closed form needs sums over samples alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def monosemanticity_score(
    blocks: Iterable[tuple[Float[Tensor, "samples features"], Float[Tensor, "samples dim"]]],
) -> Float64[Tensor, " features"]:
    """MS = Σ_{i<j} a_i a_j ⟨e_i, e_j⟩ / Σ_{i<j} a_i a_j, with a scaled to [0, 1] over the samples, for every feature.

    Computed as (‖Σ a_i e_i‖² − Σ a_i²) / ((Σ a_i)² − Σ a_i²), from Σa, Σa², Σae and Σe of the unscaled activations, so
    that a single pass is enough.

    Args:
        blocks: activations of some samples with the same samples' embeddings, which are L2-normalized here.

    Returns:
        At most 1; NaN for features that fewer than two samples activate, or all equally.

    Raises:
        ValueError: there is no block, or its two parts do not match.
    """
    sums: _Sums | None = None
    for activations, embeddings in blocks:
        if activations.ndim != 2 or embeddings.ndim != 2 or len(activations) != len(embeddings):
            raise ValueError(
                "activations [samples, features] and embeddings [samples, dim] expected, got "
                f"{tuple(activations.shape)} and {tuple(embeddings.shape)}"
            )
        sums = sums or _Sums(activations.shape[1], embeddings.shape[1], activations.device)
        sums.add(activations, embeddings)
    if sums is None:
        raise ValueError("no activations to score")
    return sums.score().cpu()


class _Sums:
    def __init__(self, features: int, dim: int, device: torch.device) -> None:
        self.count = 0
        self.lowest = torch.full((features,), torch.inf, device=device)
        self.highest = torch.full((features,), -torch.inf, device=device)
        zeros = torch.zeros(features, dtype=torch.float64, device=device)
        self.a, self.a2 = zeros, zeros.clone()
        self.ae = torch.zeros(features, dim, dtype=torch.float64, device=device)
        self.e = torch.zeros(dim, dtype=torch.float64, device=device)

    def add(self, a: Tensor, e: Tensor) -> None:
        e = torch.nn.functional.normalize(e.to(a.dtype), dim=1)
        self.count += len(a)
        self.lowest = torch.minimum(self.lowest, a.amin(0))
        self.highest = torch.maximum(self.highest, a.amax(0))
        self.a += a.sum(0, dtype=torch.float64)
        self.a2 += a.square().sum(0, dtype=torch.float64)
        self.ae += a.T @ e
        self.e += e.sum(0, dtype=torch.float64)

    def score(self) -> Tensor:
        low, span = self.lowest.double(), (self.highest - self.lowest).double()
        scale = torch.where(span > 0, 1 / span, torch.nan)
        a = (self.a - self.count * low) * scale
        a2 = (self.a2 - 2 * low * self.a + self.count * low.square()) * scale.square()
        ae = (self.ae - torch.outer(low, self.e)) * scale[:, None]
        denominator = a.square() - a2
        # One active sample leaves nothing but rounding in the denominator.
        pairs = denominator > 1e-9 * a.square()
        return torch.where(pairs, (ae.square().sum(1) - a2) / denominator, torch.nan)
