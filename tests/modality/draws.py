"""Pairs of activations whose ratios have known means."""

from __future__ import annotations

import numpy as np
import torch

Pair = tuple[torch.Tensor, torch.Tensor]


def pair_of(ratio: np.ndarray, active: np.ndarray | None = None) -> Pair:
    """Activations with these ratios of Eq. 1; pairs that are not active are silent."""
    active = np.ones(ratio.shape, bool) if active is None else active
    return torch.from_numpy(np.where(active, ratio, 0.0)), torch.from_numpy(np.where(active, 1 - ratio, 0.0))


def dense(rng: np.random.Generator, pairs: int, features: int, mean: float, sd: float = 0.25) -> Pair:
    """Ratios with a mean and a standard deviation (Beta); CLIP's have about 0.25."""
    concentration = mean * (1 - mean) / sd**2 - 1
    return pair_of(rng.beta(mean * concentration, (1 - mean) * concentration, (pairs, features)))


def latents(rng: np.random.Generator, pairs: int, features: int, mean: float, share: float) -> Pair:
    """Ratios of 0 or 1 in the share of the pairs that is informative, as nearly all of an SAE are."""
    return pair_of((rng.random((pairs, features)) < mean).astype(float), rng.random((pairs, features)) < share)


def repeated(pair: Pair, times: int) -> tuple[Pair, np.ndarray]:
    """Each pair several times, and the groups of the copies."""
    image, text = (side.repeat_interleave(times, 0) for side in pair)
    return (image, text), np.repeat(np.arange(len(pair[0])), times)


def families(rng: np.random.Generator, features: int, mean: float) -> tuple[Pair, np.ndarray]:
    """Latents of emoji, and their groups, whose sizes differ much: a latent is active in a group or not.

    Four of five ratios of a group are the same.
    """
    sizes = np.array([1] * 317 + [6] * 14 + [18] * 15 + [78])
    groups = np.repeat(np.arange(len(sizes)), sizes)
    shared, own = (rng.random((count, features)) < mean for count in (len(sizes), len(groups)))
    ratio = np.where(rng.random((len(groups), features)) < 0.8, shared[groups], own).astype(float)
    active = (rng.random((len(sizes), features)) < 0.1)[groups] & (rng.random((len(groups), features)) < 0.8)
    return pair_of(ratio, active), groups
