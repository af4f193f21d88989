"""Settings of the modality dominance score (`mds.*`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from mmmono.modality.dominance import Undefined


@dataclass(frozen=True)
class ScoreSettings:
    """Settings of the section `mds`.

    Attributes:
        undefined: what a pair counts for a feature that is silent on both sides: nothing (`skip`) or 0.5 (`half`).
        min_pairs: features that pairs of fewer groups activate are dead: they belong to no class.
    """

    undefined: Undefined
    min_pairs: int

    def __post_init__(self) -> None:
        if self.undefined not in get_args(Undefined):
            raise ValueError(f"undefined={self.undefined} is none of {', '.join(get_args(Undefined))}")
