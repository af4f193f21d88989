"""Alternative scores of a feature's modality, for comparison with the modality dominance score."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mmmono.core.finite import check_finite, double


def energy_ratio(
    blocks: Iterable[tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]],
) -> Float64[Tensor, " features"]:
    """Share of each feature's energy on images: Σ z_img² / (Σ z_img² + Σ z_txt²) over all pairs.

    Eq. 1 averages ratios; this is a ratio of sums, so strong activations weigh more. In [0, 1]: 1 if only images
    activate the feature, NaN if nothing does.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there is no block.
    """
    total: Tensor | None = None
    pairs = 0
    for image, text in blocks:
        check_finite(image, "image", pairs)
        check_finite(text, "text", pairs)
        pairs += len(image)
        block = torch.stack([double(side).square().sum(0) for side in (image, text)])
        total = block if total is None else total + block
    if total is None:
        raise ValueError("no activations to score")
    return (total[0] / total.sum(0)).cpu()


def image_auroc(
    image: Float[Tensor, "images features"], text: Float[Tensor, "texts features"]
) -> Float64[Tensor, " features"]:
    """AUROC of classifying image against text by a feature's magnitude: P(|z_img| > |z_txt|) + ½ P(equal).

    1 if every image activates the feature more than any text, 0.5 if the magnitude carries no information, NaN if
    there are no images or no texts.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
    """
    check_finite(image, "image")
    check_finite(text, "text")
    if not len(image) or not len(text):
        return torch.full((image.shape[1],), torch.nan, dtype=torch.float64)
    image, text = _same_type(image.detach(), text.detach())
    scores = torch.empty(image.shape[1], dtype=torch.float64)
    for feature in range(image.shape[1]):
        sorted_text = text[:, feature].abs().sort().values
        magnitude = image[:, feature].abs().contiguous()
        below = torch.searchsorted(sorted_text, magnitude, right=False).double()
        not_above = torch.searchsorted(sorted_text, magnitude, right=True).double()
        scores[feature] = ((below + not_above) / 2).mean() / len(text)
    return scores


def _same_type(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)
