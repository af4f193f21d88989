"""How sure the modality dominance scores are: a permutation null, bootstrap intervals, and agreement of data halves.

All three are sums of the pairs' ratios under other weights, so that one pass over the pairs serves them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from scipy.stats import false_discovery_control
from torch import Tensor

from mmmono.modality.dominance import paired_ratio


@dataclass(frozen=True)
class DominanceResamples:
    """What resampling the pairs says about R(d).

    Attributes:
        p_value: two-sided, of the null that image and text are exchangeable within pairs, so that R(d) is ½ in
            expectation; its resolution is 1 / (n_permutations + 1). NaN for features without an informative pair.
        q_value: the same with the false discovery rate controlled over all features (Benjamini and Hochberg 1995).
        bootstrap: R(d) over Poisson resamples of the pairs, NaN where a resample has no informative pair.
        halves: R(d) over the first and over the second half of random halvings of the pairs.
    """

    p_value: Float64[Tensor, " features"]
    q_value: Float64[Tensor, " features"]
    bootstrap: Float64[Tensor, "n_bootstrap features"]
    halves: Float64[Tensor, "2 n_halves features"]

    def interval(self, level: float = 0.95) -> Float64[Tensor, "2 features"]:
        """Percentile interval of R(d), lower and upper end."""
        tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        return torch.nanquantile(self.bootstrap, tails, dim=0)


def resample_dominance(
    blocks: Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]],
    n_permutations: int = 10_000,
    n_bootstrap: int = 1000,
    n_halves: int = 20,
    seed: int = 0,
) -> DominanceResamples:
    """Permutations, bootstrap and halvings of Eq. 1 over blocks of paired activations, in one pass.

    A permutation swaps image and text of every pair with probability ½. Pairs in which both sides are silent say
    nothing, as in `dominance_scores(undefined="skip")`.

    Raises:
        ValueError: there is no block.
    """
    generator: torch.Generator | None = None
    for image, text in blocks:
        if generator is None:
            device, features = image.device, image.shape[1]
            generator = torch.Generator(device).manual_seed(seed)
            observed = torch.zeros(features, dtype=torch.float64, device=device)
            permuted = torch.zeros(n_permutations, features, device=device)
            informative = torch.zeros(features, dtype=torch.int64, device=device)
            weighted, weights = (torch.zeros(n_bootstrap + 2 * n_halves, features, device=device) for _ in range(2))
        ratio = paired_ratio(image, text).float()
        known = ~ratio.isnan()
        excess = (ratio - 0.5).masked_fill_(~known, 0)
        observed += excess.sum(0, dtype=torch.float64)
        informative += known.sum(0)
        signs = torch.randint(0, 2, (n_permutations, len(image)), generator=generator, device=device)
        permuted += (2 * signs - 1).float() @ excess
        resampled = _weights(len(image), n_bootstrap, n_halves, generator)
        weighted += resampled @ excess
        weights += resampled @ known.float()
    if generator is None:
        raise ValueError("no activations to resample")
    # Equal sums must count as reached, however their last digits were rounded.
    reached = (permuted.abs() >= observed.abs().float() * (1 - 1e-5)).sum(0)
    p_value = torch.where(informative > 0, (1 + reached).double() / (1 + n_permutations), torch.nan).cpu()
    q_value = p_value.clone()
    known = ~p_value.isnan()
    if bool(known.any()):
        q_value[known] = torch.from_numpy(false_discovery_control(p_value[known].numpy()))
    scores = (0.5 + weighted.double() / weights.double()).cpu()
    return DominanceResamples(p_value, q_value, scores[:n_bootstrap], scores[n_bootstrap:].unflatten(0, (2, n_halves)))


def _weights(
    pairs: int, n_bootstrap: int, n_halves: int, generator: torch.Generator
) -> Float[Tensor, "resamples pairs"]:
    """Weights of the next pairs: Poisson(1) for each bootstrap resample, then 0/1 for halves, then their complements."""
    ones = torch.ones(n_bootstrap, pairs, device=generator.device)
    first = torch.randint(0, 2, (n_halves, pairs), generator=generator, device=generator.device).float()
    return torch.cat([torch.poisson(ones, generator=generator), first, 1 - first])
