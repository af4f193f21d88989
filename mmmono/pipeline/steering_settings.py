"""Settings that all ways of steering share: which features are steered, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

HOWS = ("set", "scale", "add")
STEERED = {"set": "set", "scale": "scaled", "add": "raised"}  # in captions
UNITS = {"set": "set to", "scale": "code ×", "add": "+ ref. ×"}  # before a strength


@dataclass(frozen=True)
class SteeringSettings:
    """What is steered, and how far.

    Attributes:
        how: `set` a code to strength times the feature's reference activation, `scale` the code by the strength, or `add`
            strength times the reference to it.
        strengths: strengths, ascending.
        images: number of images that reference activations are of, at most one of each group.
        k: number of images that activate a feature most, whose mean activation is its reference.
        show: features; None: random ones of each class.
        per_class: how many of each class.
    """

    how: Literal["set", "scale", "add"]
    strengths: Sequence[float]
    images: int
    k: int
    show: Sequence[int] | None
    per_class: int

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise ValueError(f"how={self.how} is none of {', '.join(HOWS)}")
        strengths = list(self.strengths)
        if not strengths or strengths != sorted(set(strengths)) or strengths[0] < 0:
            raise ValueError(f"strengths={strengths} must ascend from 0 or above")
        for name, least in (("k", 1), ("per_class", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.images <= self.k:
            raise ValueError(f"k={self.k} images that activate a feature most must be fewer than images={self.images}")
