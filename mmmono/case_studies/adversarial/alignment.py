"""Moves pictures in pixel space until some of their features equal those of others: the attack, and the defense.

The attack aligns a benign picture to a contrast picture on all of an encoder's dimensions; the defense aligns the
attacked picture to a benign one on chosen features, L = ‖F_adv[:, I] − F_ben[:, I]‖₂ (Section 4.2).
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
    """How pictures are moved.

    Attributes:
        steps: of Adam on the pixels.
        lr: its step size; pixels lie between 0 and 1.
        epsilon: most that a pixel may change (L∞), None for as much as there is room for.
    """

    steps: int
    lr: float
    epsilon: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps} moves no picture: give at least 1")
        if not self.lr > 0:
            raise ConfigError(f"lr={self.lr} must be positive")
        if self.epsilon is not None and not 0 < self.epsilon <= 1:
            raise ConfigError(
                f"epsilon={self.epsilon} must lie in (0, 1], pixels being between 0 and 1; null is no limit"
            )


@dataclass(frozen=True)
class Aligned:
    """Moved pictures.

    Attributes:
        pixels: between 0 and 1, rounded to the 256 values a file can hold.
        distances: ‖F[:, I] − target[:, I]‖₂ before each step and, of the rounded pictures, after the last one.
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
    """Minimize each picture's distance to its target on the chosen features, by Adam on the pixels.

    Pictures do not influence each other, so that a batch gives what they give alone.

    Args:
        start: pictures, between 0 and 1.
        target: features to be reached, one row a picture.
        features: what the pictures are seen through, differentiable.
        plan: steps, step size and the limit to a pixel's change.
        chosen: indices of the features to align, I; None is all.

    Raises:
        ModelError: the features pass no gradient to the pixels, or one that is not finite.
        ConfigError: no feature is chosen.
    """
    if chosen is None:
        chosen = torch.arange(target.shape[1], device=target.device)
    if not len(chosen):
        raise ConfigError("no feature is chosen to align: the class is empty")
    wanted = target[:, chosen].detach()
    reach = 1.0 if plan.epsilon is None else plan.epsilon
    low, high = (start - reach).clamp(min=0), (start + reach).clamp(max=1)
    pixels = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([pixels], lr=plan.lr)
    distances = []
    for _ in range(plan.steps):
        distance = torch.linalg.vector_norm(features(pixels)[:, chosen] - wanted, dim=1)
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
        distances.append(torch.linalg.vector_norm(features(rounded)[:, chosen] - wanted, dim=1))
    return Aligned(rounded, torch.stack(distances, dim=1))


def _round(pixels: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """To whole 255ths between the limits, which themselves need not be whole."""
    slack = 1e-3  # of a 255th, for limits that are whole but for the last bits
    levels = pixels.detach().mul(255).round()
    return levels.clamp((255 * low - slack).ceil(), (255 * high + slack).floor()).div(255)
