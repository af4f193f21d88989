"""Uncertainty of modality dominance scores: permutation test, bootstrap intervals, and scores on halves of the data.

All three are sums of the groups' ratios with different random weights, so that one pass over the pairs computes them.
This is no `Stream`: the weights are drawn in the order of the groups, and a part walked separately would draw other ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.stats import norm
from torch import Tensor

from mmmono.core.finite import check_finite, double
from mmmono.modality.dominance import paired_ratio
from mmmono.modality.false_discoveries import q_values
from mmmono.modality.groups import GroupsLike, OpenGroups, group_codes, group_sizes, rechunked

CHUNK_PAIRS = 512  # pairs, and groups, per draw of random numbers, independent of the block size
QUANTILE_LIMIT = 1 << 24  # largest input of torch.nanquantile
KEPT = 1000  # permutations whose scores are kept

Blocks = Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]]


@dataclass(frozen=True)
class DominanceResamples:
    """Permutation p-values of R(d), and R(d) on resamples of the groups of pairs.

    Attributes:
        p_value: two-sided p-value of the null that image and text are exchangeable within groups, under which R(d) is ½
            in expectation. Where no permutation reaches the observed score, it is the normal tail of
            `sign_flip_p_values`, at most 1 / (n_permutations + 1), and at least 2 / 2ⁿ, the smallest that n equal groups
            allow, with n = (Σ |e_g|)² / Σ e_g² for the sums e_g of ratio − ½ over groups.
            NaN for features that no sample activates.
        q_value: p-value adjusted for the false discovery rate over all features (Benjamini and Hochberg 1995).
        bootstrap: R(d) on Poisson bootstrap resamples; NaN if no sample of a resample activates the feature.
        halves: R(d) on both halves of random splits of the groups.
        permuted: R(d) on the first 1,000 permutations.
    """

    p_value: Float64[Tensor, " features"]
    q_value: Float64[Tensor, " features"]
    bootstrap: Float64[Tensor, "n_bootstrap features"]
    halves: Float64[Tensor, "2 n_halves features"]
    permuted: Float64[Tensor, "n_kept features"]

    def q_values(self, live: Bool[Tensor, " features"]) -> Float64[Tensor, " features"]:
        """q-values over the live features alone, which is the family of tests that is reported; NaN for the others."""
        return q_values(torch.where(live, self.p_value, torch.nan))

    def null_std(self, live: Bool[Tensor, " features"]) -> float:
        """Standard deviation of the live features' R(d) if no feature preferred a modality; NaN without live features.

        The root of the mean, over permutations, of the scores' (population) variance over features. A permutation swaps
        the same groups for all features, so that correlated features stay correlated.
        """
        if not bool(live.any()):
            return float("nan")
        return float(self.permuted[:, live].var(1, correction=0).mean().sqrt())

    def interval(self, level: float = 0.95) -> Float64[Tensor, "2 features"]:
        """Bootstrap percentile interval of R(d): lower bounds in row 0, upper bounds in row 1.

        It is too short, or has no width, for features that few pairs activate and one modality wins nearly always;
        `score_intervals` covers these.
        """
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        features = max(1, QUANTILE_LIMIT // max(1, len(self.bootstrap)))
        return torch.cat([torch.nanquantile(b, tails, dim=0) for b in self.bootstrap.split(features, dim=1)], dim=1)


def resample_dominance(
    blocks: Blocks,
    n_permutations: int = 10_000,
    n_bootstrap: int = 1000,
    n_halves: int = 20,
    seed: int = 0,
    groups: GroupsLike | None = None,
) -> DominanceResamples:
    """Test and resample Eq. 1 over blocks of paired activations, in one pass.

    A permutation swaps image and text of all pairs of a group with probability ½; the bootstrap and the halves take
    groups as a whole (Cameron, Gelbach and Miller 2008). Pairs in which both activations are 0 are left out, as in
    `dominance_scores(undefined="skip")`. Sums are float64. Random numbers are drawn for the groups in the order of their
    last pairs: results depend on the seed and the device type, not on the block size.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        n_permutations: permutations of the null.
        n_bootstrap: bootstrap resamples.
        n_halves: random splits into two halves.
        seed: seed of all draws.
        groups: the group of each pair of all blocks, as a number from 0 on (`FeatureView.groups`); by default, each pair
            is a group of its own. Memory holds the sums of groups that have begun and not ended.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there is no block, or there are more or fewer groups than pairs.
    """
    sums: _Sums | None = None
    for rows in rechunked(_by_group(_ratios(blocks), groups), CHUNK_PAIRS):
        excess, pairs = rows.chunk(2, 1)
        sums = sums or _Sums(excess.shape[1], n_permutations, n_bootstrap, n_halves, excess.device, seed)
        sums.add(excess, pairs)
    if sums is None:
        raise ValueError("no activations to resample")
    p_value = sums.p_value().cpu()
    scores = (0.5 + sums.weighted / sums.weights).cpu()
    return DominanceResamples(
        p_value,
        q_values(p_value),
        scores[:n_bootstrap],
        scores[n_bootstrap:].unflatten(0, (2, n_halves)),
        (0.5 + sums.permuted[:KEPT] / sums.informative).cpu(),
    )


def _ratios(blocks: Blocks) -> Iterator[Tensor]:
    """Yield ratio − ½ (0 if undefined) and whether it is defined, as one float64 tensor [pairs, 2 · features]."""
    start = 0
    for image, text in blocks:
        for image_chunk, text_chunk in zip(image.split(CHUNK_PAIRS), text.split(CHUNK_PAIRS), strict=True):
            check_finite(image_chunk, "image", start)
            check_finite(text_chunk, "text", start)
            ratio = paired_ratio(double(image_chunk), double(text_chunk))
            known = ~ratio.isnan()
            yield torch.cat([(ratio - 0.5).masked_fill_(~known, 0), known.double()], 1)
            start += len(image_chunk)


def _by_group(parts: Iterator[Tensor], groups: GroupsLike | None) -> Iterator[Tensor]:
    """Add up the rows of each group."""
    if groups is None:
        yield from parts
        return
    codes = group_codes(groups)
    sizes = group_sizes(codes)
    open_groups = OpenGroups(sizes)
    alone = not bool((sizes > 1).any())
    start = 0
    for rows in parts:
        mine = codes[start : start + len(rows)]
        start += len(rows)
        if len(mine) < len(rows):
            break
        yield rows if alone else open_groups.add(mine, rows)
    if start != len(codes):
        raise ValueError(f"groups of {len(codes)} pairs, but the blocks have {start}: both must be of the same pairs")


class _Sums:
    """Sums of ratio − ½ over groups: with random signs (permutations) and random weights (bootstrap, halves)."""

    def __init__(
        self, features: int, n_permutations: int, n_bootstrap: int, n_halves: int, device: torch.device, seed: int
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.generator = torch.Generator(device).manual_seed(seed)
        self.resamples = n_bootstrap, n_halves
        self.observed, self.magnitude, self.informative = zeros(features), zeros(features), zeros(features)
        self.squares = zeros(features)
        self.permuted = zeros(n_permutations, features)
        self.weighted, self.weights = (zeros(n_bootstrap + 2 * n_halves, features) for _ in range(2))

    def add(self, excess: Tensor, pairs: Tensor) -> None:
        """Add groups: the sums of ratio − ½ over their informative pairs, and the number of these."""
        self.observed += excess.sum(0)
        self.magnitude += excess.abs().sum(0)
        self.squares += excess.square().sum(0)
        self.informative += pairs.sum(0)
        shape, device = (len(self.permuted), len(excess)), excess.device
        signs = torch.randint(0, 2, shape, generator=self.generator, device=device)
        self.permuted.addmm_((2 * signs - 1).double(), excess)
        resampled = _weights(len(excess), *self.resamples, self.generator).double()
        self.weighted.addmm_(resampled, excess)
        self.weights.addmm_(resampled, pairs)

    def p_value(self) -> Float64[Tensor, " features"]:
        # The tolerance makes sums that differ only by rounding errors count as equal.
        bar = self.observed.abs() - 1e-12 * self.magnitude
        reached = sum(((part.abs() >= bar).sum(0) for part in self.permuted.split(1024)), torch.zeros_like(bar))
        counted = (1 + reached) / (1 + len(self.permuted))
        tail = self._tail().to(counted.device).minimum(counted)
        return torch.where(self.informative > 0, torch.where(reached > 0, counted, tail), torch.nan)

    def _tail(self) -> Float64[Tensor, " features"]:
        """Normal tail of the observed sums, at least the smallest p-value that so many signs of equal weight allow."""
        signs = (self.magnitude.square() / self.squares).nan_to_num(1.0).cpu().numpy()
        z = torch.where(self.squares > 0, self.observed.abs() / self.squares.sqrt(), 0.0).cpu().numpy()
        return torch.from_numpy(np.maximum(2 * norm.sf(z), np.exp2(1 - signs)))


def _weights(
    groups: int, n_bootstrap: int, n_halves: int, generator: torch.Generator
) -> Float[Tensor, "resamples groups"]:
    """Weights of the next groups: Poisson(1) for bootstrap resamples, then 0/1 for first and for second halves."""
    ones = torch.ones(n_bootstrap, groups, device=generator.device)
    first = torch.randint(0, 2, (n_halves, groups), generator=generator, device=generator.device).float()
    return torch.cat([torch.poisson(ones, generator=generator), first, 1 - first])
