"""EmbSim and WinRate, Eq. 5 of the paper: are the samples that activate a feature alike?"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, double

Form = Literal["printed", "pooled"]

FLOOR = 1e-2  # smallest magnitude of a random pair's similarity that "printed" divides by
TIE = 5e-7  # similarities that differ by less are equal: float32 vectors of unit length tell no more


def embsim(
    active: Float[Tensor, "features m dim"],
    random: Float[Tensor, "features m dim"],
    form: Form = "printed",
    floor: float = FLOOR,
) -> Float64[Tensor, " features"]:
    """I(z), how much more similar a feature's top samples are to each other than random ones; Eq. 5, left.

    With S₊ = Z₊Z₊ᵀ and S₋ = Z₋Z₋ᵀ, both over the pairs i ≠ j:
    `printed` is the mean of (S₊ − S₋) / S₋, entry by entry; `pooled` is mean(S₊ − S₋) / mean(S₋), which a single random
    pair that happens to be orthogonal cannot blow up.

    Args:
        active: embeddings of the m most activating samples of each feature; of unit length for cosine similarities.
        random: embeddings of m random samples for each feature, or `[1, m, dim]`, the same for all.
        form: which of the two.
        floor: denominators nearer to 0 are moved to ±floor, so that `printed` stays finite.

    Returns:
        0 where top samples are as alike as random ones; unbounded above. Computed in float64.

    Raises:
        NonFiniteError: an embedding is NaN or infinite.
        ValueError: the shapes do not match, or m < 2.
    """
    positive, negative, pairs = _similarities(active, random)
    if form == "pooled":
        mean = _mean(negative, pairs)
        return (_mean(positive, pairs) - mean) / _away_from_zero(mean, floor)
    if form != "printed":
        raise ValueError(f"form={form!r} is neither 'printed' nor 'pooled'")
    return _mean((positive - negative) / _away_from_zero(negative, floor), pairs)


def winrate(
    active: Float[Tensor, "features m dim"], random: Float[Tensor, "features m dim"]
) -> Float64[Tensor, " features"]:
    """W(z), the share of pairs i ≠ j whose similarity exceeds that of the random pair at the same place; Eq. 5, right.

    Args:
        active: as for `embsim`.
        random: as for `embsim`.

    Returns:
        In [0, 1]; 0.5 where top samples are as alike as random ones. Equal similarities are no win. Computed in float64.

    Raises:
        NonFiniteError: an embedding is NaN or infinite.
        ValueError: the shapes do not match, or m < 2.
    """
    positive, negative, pairs = _similarities(active, random)
    return _mean((positive - negative > TIE).double(), pairs)


def _similarities(active: Tensor, random: Tensor) -> tuple[Tensor, Tensor, Bool[Tensor, "m m"]]:
    if active.ndim != 3 or random.ndim != 3 or random.shape[1:] != active.shape[1:] or active.shape[1] < 2:
        raise ValueError(
            f"active and random embeddings must both be [features, m, dim] with m ≥ 2, got {tuple(active.shape)} and "
            f"{tuple(random.shape)}"
        )
    if len(random) not in (1, len(active)):
        raise ValueError(
            f"{len(active)} features but random samples for {len(random)}: give one set each, or one for all"
        )
    check_finite(active.flatten(0, 1), "active sample", column="dimension")
    check_finite(random.flatten(0, 1), "random sample", column="dimension")
    active, random = double(active), double(random)
    # Both triangles hold the same numbers, and Eq. 5 averages over both: one is enough.
    pairs = torch.ones(active.shape[1], active.shape[1], dtype=torch.bool, device=active.device).triu(1)
    return active @ active.mT, random @ random.mT, pairs


def _mean(matrix: Float[Tensor, "features m m"], pairs: Bool[Tensor, "m m"]) -> Float[Tensor, " features"]:
    return matrix.masked_fill(~pairs, 0).sum((1, 2)) / pairs.sum()


def _away_from_zero(values: Tensor, floor: float) -> Tensor:
    nearest = torch.full_like(values, floor)
    return torch.where(values.abs() >= floor, values, torch.where(values < 0, -nearest, nearest))
