"""Sums of ratios over groups with random signs and weights: products, or of sparse codes loops over what is not 0."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.stats import norm
from torch import Tensor

from mmmono.core.extras import is_installed
from mmmono.core.parts import in_parts, num_parts
from mmmono.features.sparse_rows import SPARSE

MOST_DRAWN = 127  # largest weight that an int8 holds


class ResampledSums:
    """Sums of ratio − ½ over groups: with random signs (permutations) and random weights (bootstrap, halves)."""

    def __init__(self, features: int, draws: tuple[int, int, int], device: torch.device, seed: int) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.generator = torch.Generator(device).manual_seed(seed)
        n_permutations, n_bootstrap, n_halves = draws
        self.resamples = n_bootstrap, n_halves
        self.observed, self.magnitude, self.informative = zeros(features), zeros(features), zeros(features)
        self.squares = zeros(features)
        self.permuted = zeros(n_permutations, features)
        self.weighted, self.weights = (zeros(n_bootstrap + 2 * n_halves, features) for _ in range(2))
        self._sparse: bool | None = None  # whether the first groups are

    def add(self, excess: Tensor, pairs: Tensor) -> None:
        """Add groups: the sums of ratio − ½ over their informative pairs, and the number of these."""
        self.observed += excess.sum(0)
        self.magnitude += excess.abs().sum(0)
        self.squares += excess.square().sum(0)
        self.informative += pairs.sum(0)
        shape, device = (len(self.permuted), len(excess)), excess.device
        signs = torch.randint(0, 2, shape, generator=self.generator, device=device)
        resampled = _weights(len(excess), *self.resamples, self.generator)
        signs = 2 * signs - 1
        if self._is_sparse(pairs) and bool((resampled <= MOST_DRAWN).all()):
            add_sparse(excess, pairs, (signs, resampled), (self.permuted, self.weighted, self.weights))
            return
        resampled = resampled.double()
        self.permuted.addmm_(signs.double(), excess)
        self.weighted.addmm_(resampled, excess)
        self.weights.addmm_(resampled, pairs)

    def _is_sparse(self, pairs: Tensor) -> bool:
        """Whether these groups, and the first ones, are few for each feature: sums of a feature then lie side by side."""
        if self._sparse is None:
            self._sparse = few_are_active(pairs)
            if self._sparse:
                for name in ("permuted", "weighted", "weights"):
                    sums: Tensor = getattr(self, name)
                    setattr(self, name, sums.new_zeros(*reversed(sums.shape)).T)
        return self._sparse and few_are_active(pairs)

    def merge(self, other: ResampledSums) -> None:
        """Add the sums of other groups."""
        for name in ("observed", "magnitude", "informative", "squares", "permuted", "weighted", "weights"):
            mine: Tensor = getattr(self, name)
            mine += getattr(other, name).to(mine.device)

    def p_value(self) -> Float64[Tensor, " features"]:
        """Two-sided p-values; see `DominanceResamples`."""
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


def few_are_active(pairs: Tensor) -> bool:
    """Whether a compiled loop over the groups that activate each feature, `[groups, features]`, takes less than products."""
    if pairs.device.type != "cpu" or not is_installed("numba", "llvmlite"):
        return False
    return int(torch.count_nonzero(pairs)) < SPARSE * pairs.numel()


def add_sparse(
    excess: Tensor, pairs: Tensor, draws: tuple[Tensor, Tensor], sums: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Add products of random draws with sums of groups, of which few are not 0.

    Each feature is summed by one thread in the order of the groups: the bits do not depend on the number of threads.

    Args:
        excess, pairs: see `ResampledSums.add`.
        draws: signs and weights, `[draws, groups]`.
        sums: of signs · excess, weights · excess and weights · pairs, `[draws, features]`; each feature's side by side.
    """
    from mmmono.core.sparse_draws import add_drawn

    groups, features = (at.numpy() for at in pairs.nonzero(as_tuple=True))
    order = np.argsort(features, kind="stable")
    groups, features = groups[order], features[order]
    starts = np.searchsorted(features, np.arange(pairs.shape[1] + 1))
    of_excess, of_pairs = (values.numpy()[groups, features] for values in (excess, pairs))
    signs, weights = (drawn.to(torch.int8).T.contiguous().numpy() for drawn in draws)
    permuted, weighted, counted = (of.T.numpy() for of in sums)

    def work(_: int, first: int, end: int) -> None:
        places = starts[first : end + 1], groups
        add_drawn(*places, of_excess, signs, permuted[first:end])
        add_drawn(*places, of_excess, weights, weighted[first:end])
        add_drawn(*places, of_pairs, weights, counted[first:end])

    in_parts(work, pairs.shape[1], num_parts())


def _weights(
    groups: int, n_bootstrap: int, n_halves: int, generator: torch.Generator
) -> Float[Tensor, "resamples groups"]:
    """Weights of the next groups: Poisson(1) for bootstrap resamples, then 0/1 for first and for second halves."""
    ones = torch.ones(n_bootstrap, groups, device=generator.device)
    first = torch.randint(0, 2, (n_halves, groups), generator=generator, device=generator.device).float()
    return torch.cat([torch.poisson(ones, generator=generator), first, 1 - first])
