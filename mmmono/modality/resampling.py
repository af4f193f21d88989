"""Uncertainty of modality dominance scores: permutation test, bootstrap intervals, and scores on halves of the data.

All three are sums of the pairs' ratios with different random weights, so that one pass over the pairs computes them. This
is no `Stream`: the weights are drawn in the order of the pairs, and a part walked separately would draw other ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, double
from mmmono.modality.dominance import paired_ratio
from mmmono.modality.false_discoveries import q_values

CHUNK_PAIRS = 512  # pairs per draw of random numbers, independent of the block size
QUANTILE_LIMIT = 1 << 24  # largest input of torch.nanquantile


@dataclass(frozen=True)
class DominanceResamples:
    """Permutation p-values of R(d), and R(d) on resamples of the pairs.

    Attributes:
        p_value: two-sided p-value of the null that image and text are exchangeable within pairs, under which R(d) is ½
            in expectation. At least 1 / (n_permutations + 1); NaN for features that no sample activates.
        q_value: p-value adjusted for the false discovery rate over all features (Benjamini and Hochberg 1995).
        bootstrap: R(d) on Poisson bootstrap resamples; NaN if no sample of a resample activates the feature.
        halves: R(d) on both halves of random splits of the pairs.
    """

    p_value: Float64[Tensor, " features"]
    q_value: Float64[Tensor, " features"]
    bootstrap: Float64[Tensor, "n_bootstrap features"]
    halves: Float64[Tensor, "2 n_halves features"]

    def interval(self, level: float = 0.95) -> Float64[Tensor, "2 features"]:
        """Bootstrap percentile interval of R(d): lower bounds in row 0, upper bounds in row 1."""
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        features = max(1, QUANTILE_LIMIT // max(1, len(self.bootstrap)))
        return torch.cat([torch.nanquantile(b, tails, dim=0) for b in self.bootstrap.split(features, dim=1)], dim=1)


def resample_dominance(
    blocks: Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]],
    n_permutations: int = 10_000,
    n_bootstrap: int = 1000,
    n_halves: int = 20,
    seed: int = 0,
) -> DominanceResamples:
    """Test and resample Eq. 1 over blocks of paired activations, in one pass.

    A permutation swaps image and text of each pair with probability ½. Pairs in which both activations are 0 are left
    out, as in `dominance_scores(undefined="skip")`. Sums are float64. Results depend on the seed and the device type,
    not on the block size.

    Args:
        blocks: activations of images and of texts; row i of both belongs to the same pair.
        n_permutations: permutations of the null.
        n_bootstrap: bootstrap resamples.
        n_halves: random splits into two halves.
        seed: seed of all draws.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there is no block.
    """
    sums: _Sums | None = None
    for start, image, text in _chunks(blocks):
        check_finite(image, "image", start)
        check_finite(text, "text", start)
        sums = sums or _Sums(image.shape[1], n_permutations, n_bootstrap, n_halves, image.device, seed)
        sums.add(double(image), double(text))
    if sums is None:
        raise ValueError("no activations to resample")
    p_value = sums.p_value().cpu()
    scores = (0.5 + sums.weighted / sums.weights).cpu()
    return DominanceResamples(
        p_value, q_values(p_value), scores[:n_bootstrap], scores[n_bootstrap:].unflatten(0, (2, n_halves))
    )


def _chunks(blocks: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Regroup blocks into chunks of CHUNK_PAIRS pairs (the last may be shorter), with the index of the first pair."""
    start = 0
    rest: tuple[Tensor, Tensor] | None = None
    for image, text in blocks:
        if rest is not None and len(rest[0]):
            image, text = torch.cat([rest[0], image]), torch.cat([rest[1], text])
        whole = len(image) // CHUNK_PAIRS * CHUNK_PAIRS
        for first in range(0, whole, CHUNK_PAIRS):
            yield start + first, image[first : first + CHUNK_PAIRS], text[first : first + CHUNK_PAIRS]
        start, rest = start + whole, (image[whole:], text[whole:])
    if rest is not None and len(rest[0]):
        yield start, rest[0], rest[1]


class _Sums:
    """Sums of ratio − ½ over pairs: with random signs (permutations) and random weights (bootstrap, halves)."""

    def __init__(
        self, features: int, n_permutations: int, n_bootstrap: int, n_halves: int, device: torch.device, seed: int
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.generator = torch.Generator(device).manual_seed(seed)
        self.resamples = n_bootstrap, n_halves
        self.observed, self.magnitude, self.informative = zeros(features), zeros(features), zeros(features)
        self.permuted = zeros(n_permutations, features)
        self.weighted, self.weights = (zeros(n_bootstrap + 2 * n_halves, features) for _ in range(2))

    def add(self, image: Tensor, text: Tensor) -> None:
        ratio = paired_ratio(image, text)
        known = ~ratio.isnan()
        excess = (ratio - 0.5).masked_fill_(~known, 0)
        self.observed += excess.sum(0)
        self.magnitude += excess.abs().sum(0)
        self.informative += known.sum(0)
        shape, device = (len(self.permuted), len(image)), image.device
        signs = torch.randint(0, 2, shape, generator=self.generator, device=device)
        self.permuted.addmm_((2 * signs - 1).double(), excess)
        resampled = _weights(len(image), *self.resamples, self.generator).double()
        self.weighted.addmm_(resampled, excess)
        self.weights.addmm_(resampled, known.double())

    def p_value(self) -> Float64[Tensor, " features"]:
        # The tolerance makes sums that differ only by rounding errors count as equal.
        bar = self.observed.abs() - 1e-12 * self.magnitude
        reached = sum(((part.abs() >= bar).sum(0) for part in self.permuted.split(1024)), torch.zeros_like(bar))
        return torch.where(self.informative > 0, (1 + reached) / (1 + len(self.permuted)), torch.nan)


def _weights(
    pairs: int, n_bootstrap: int, n_halves: int, generator: torch.Generator
) -> Float[Tensor, "resamples pairs"]:
    """Weights of the next pairs: Poisson(1) for bootstrap resamples, then 0/1 for first and for second halves."""
    ones = torch.ones(n_bootstrap, pairs, device=generator.device)
    first = torch.randint(0, 2, (n_halves, pairs), generator=generator, device=generator.device).float()
    return torch.cat([torch.poisson(ones, generator=generator), first, 1 - first])
