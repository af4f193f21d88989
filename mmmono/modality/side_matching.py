"""Match the latents of two autoencoders, one of images and one of texts, by their codes of the same pairs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmmono.modality.agreement import CorrelationStream

NEVER = -1e3  # what a silent latent counts as with a live one: less than any correlation


def match_sides(
    pairs: Iterable[tuple[Float[Tensor, "pairs latents"], Float[Tensor, "pairs latents"]]],
) -> tuple[Int64[Tensor, " latents"], Float64[Tensor, " latents"]]:
    """Assign one latent of the texts to each of the images, with the largest sum of correlations across pairs.

    Latents that fire are assigned among each other as far as their numbers allow; the others get what is left, in order.

    Args:
        pairs: codes of images and of texts; row i of both belongs to the same pair.

    Returns:
        For each latent of the images, its partner, and their correlation; 0 if one of the two is silent.

    Raises:
        NonFiniteError: a code is NaN or infinite.
        ValueError: there are no pairs, or the sides differ in pairs or latents.
    """
    stream = CorrelationStream()
    fired: list[Tensor] = []
    for image, text in pairs:
        stream.add(image, text)
        active = [(side != 0).any(0).cpu() for side in (image, text)]
        fired = active if not fired else [before | now for before, now in zip(fired, active, strict=True)]
    correlation = stream.result()
    if correlation.shape[0] != correlation.shape[1]:
        raise ValueError(
            f"{correlation.shape[0]} latents of images cannot be matched with {correlation.shape[1]} of texts"
        )
    mixed = fired[0].unsqueeze(1) != fired[1]
    rows, columns = linear_sum_assignment(correlation.masked_fill(mixed, NEVER).numpy(), maximize=True)
    partners = torch.from_numpy(columns)
    # Any order of those without a match is as good: the last bits of the others are not to choose.
    left = ~(fired[0] & fired[1][partners])
    partners[left] = partners[left].sort().values
    return partners, correlation[rows, partners]
