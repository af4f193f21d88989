"""Alignment: optimize the pixels of images towards target features, for the attack and for the defense.

The attack aligns a benign image to a contrast image on all dimensions of the encoder. The defense aligns the attacked
image to a benign one on the features I, with L = ‖F_adv[:, I] − F_ben[:, I]‖₂ (Section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmmono.core.errors import ConfigError, ModelError

Features = Callable[[Float[Tensor, "batch 3 height width"]], Float[Tensor, "batch features"]]


@dataclass(frozen=True)
class Alignment:
    """Settings of the alignment.

    Attributes:
        steps: number of Adam steps.
        lr: learning rate, for pixels in [0, 1].
        epsilon: maximum change of a pixel (L∞); None for no limit within [0, 1].

    Raises:
        ConfigError: a setting is out of range.
    """

    steps: int
    lr: float
    epsilon: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} moves no image: give at least 1")
        if not self.lr > 0:
            raise ConfigError(f"lr={self.lr} must be positive")
        if self.epsilon is not None and not 0 < self.epsilon <= 1:
            raise ConfigError(
                f"epsilon={self.epsilon} must lie in (0, 1], pixels being between 0 and 1; null is no limit"
            )


@dataclass(frozen=True)
class Aligned:
    """Optimized images.

    Attributes:
        pixels: images in [0, 1], rounded to 8-bit levels.
        distances: ‖F[:, I] − target[:, I]‖₂ before each step and, for the rounded images, after the last one.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    distances: Float[Tensor, "batch steps"]


def align(
    start: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch features"],
    features: Features,
    plan: Alignment,
    chosen: Int[Tensor, " chosen"] | None = None,
) -> Aligned:
    """Minimize the distance of each image to its target features with Adam on the pixels.

    Images are optimized independently of each other, so the result does not depend on the batch.

    Args:
        start: images to start from, in [0, 1].
        target: target features of each image.
        features: differentiable function from images to features.
        plan: settings of the alignment.
        chosen: indices of the features to align, I; None for all.

    Raises:
        ModelError: the gradient does not reach the pixels, or is not finite.
        ConfigError: `chosen` is empty.
    """
    if chosen is None:
        chosen = torch.arange(target.shape[1], device=target.device)
    if not len(chosen):
        raise ConfigError("no feature is chosen to align: the class is empty")
    desired = target[:, chosen].detach()
    reach = 1.0 if plan.epsilon is None else plan.epsilon
    low, high = (start - reach).clamp(min=0), (start + reach).clamp(max=1)
    pixels = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([pixels], lr=plan.lr)
    distances = []
    for _ in range(plan.steps):
        distance = torch.linalg.vector_norm(features(pixels)[:, chosen] - desired, dim=1)
        distances.append(distance.detach())
        if not distance.requires_grad:
            raise ModelError("the encoder passes no gradient to the pixels: choose another model= or features=")
        (pixels.grad,) = torch.autograd.grad(distance.sum(), pixels)
        if not bool(pixels.grad.isfinite().all()):
            raise ModelError("the encoder's gradient is not finite: run in precision 32, or choose another model=")
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(low, high)
    with torch.no_grad():
        rounded = _round(pixels, low, high)
        distances.append(torch.linalg.vector_norm(features(rounded)[:, chosen] - desired, dim=1))
    return Aligned(rounded, torch.stack(distances, dim=1))


def _round(pixels: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round pixels to multiples of 1/255 within the limits, which need not be multiples themselves."""
    slack = 1e-3  # in units of 1/255: tolerates rounding errors in limits that are multiples
    levels = pixels.detach().mul(255).round()
    return levels.clamp((255 * low - slack).ceil(), (255 * high + slack).floor()).div(255)
