"""EmbSim and WinRate (Eq. 5): how similar the samples that activate a feature are to each other."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, check_tensor, double
from mmmono.core.ranges import check_number

Form = Literal["printed", "pooled"]

FLOOR = 1e-2  # smallest magnitude of a denominator in EmbSim
TIE = 5e-7  # similarities closer than this, for unit vectors, count as equal: rounding error of float32


def embsim(
    active: Float[Tensor, "features m dim"],
    random: Float[Tensor, "features m dim"],
    form: Form = "printed",
    floor: float = FLOOR,
) -> Float64[Tensor, " features"]:
    """EmbSim I(z): relative excess similarity of a feature's top samples over random samples (Eq. 5, left).

    With S₊ = Z₊Z₊ᵀ and S₋ = Z₋Z₋ᵀ over the pairs i ≠ j, `printed` is the mean of (S₊ − S₋) / S₋ and `pooled` is
    mean(S₊ − S₋) / mean(S₋). A single, nearly orthogonal random pair can dominate `printed` but not `pooled`.

    Args:
        active: embeddings of the m most activating samples of each feature; unit vectors for cosine similarity.
        random: embeddings of m random samples for each feature, or `[1, m, dim]` for the same ones for all features.
        form: `printed` or `pooled`.
        floor: denominators in (−floor, floor) become ±floor, so that the ratio stays finite.

    Returns:
        EmbSim in float64, without upper bound. Equal samples on both sides give 0, but other random samples in place of
        the top ones do not: the mean of 1 / S₋ is not 1 / mean(S₋). On texts, whose S₋ are near 0, `printed` is about
        +0.3 by chance with MiniLM and floor 0.01, +0.6 with 0.0001; with more negative S₋ it is below 0. Compare it with
        the chance level that `mmmono.interpretability.chance.chance_level` measures.

    Raises:
        NonFiniteError: an embedding is NaN or infinite.
        ValueError: the shapes do not match, m < 2, or `form` is unknown.
    """
    check_number("floor", floor, above=0)
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
    """WinRate W(z): share of pairs i ≠ j of top samples more similar than random pair (i, j) (Eq. 5, right).

    Args:
        active: see `embsim`.
        random: see `embsim`.

    Returns:
        WinRate in [0, 1], float64; 0.5 on average if top samples are as similar as random ones, less the share of ties,
        which count as losses, by half.

    Raises:
        NonFiniteError: an embedding is NaN or infinite.
        ValueError: the shapes do not match, or m < 2.
    """
    positive, negative, pairs = _similarities(active, random)
    longest = torch.maximum(*(s.diagonal(dim1=1, dim2=2).amax(1) for s in (positive, negative)))  # squared lengths
    return _mean((positive - negative > TIE * longest[:, None, None]).double(), pairs)


def _similarities(active: Tensor, random: Tensor) -> tuple[Tensor, Tensor, Bool[Tensor, "m m"]]:
    for values, name in ((active, "active"), (random, "random")):
        check_tensor(values, name)
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
    # The similarity matrices are symmetric, so averaging over one triangle equals Eq. 5's average over i ≠ j.
    pairs = torch.ones(active.shape[1], active.shape[1], dtype=torch.bool, device=active.device).triu(1)
    return active @ active.mT, random @ random.mT, pairs


def _mean(matrix: Float[Tensor, "features m m"], pairs: Bool[Tensor, "m m"]) -> Float[Tensor, " features"]:
    return matrix.masked_fill(~pairs, 0).sum((1, 2)) / pairs.sum()


def _away_from_zero(values: Tensor, floor: float) -> Tensor:
    nearest = torch.full_like(values, floor)
    return torch.where(values.abs() >= floor, values, torch.where(values < 0, -nearest, nearest))
