"""Which features are alike: neighbors, co-firing and a map within a feature set, counterparts in the others."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mmmono.interpretability import Neighbors


@dataclass(frozen=True)
class Counterparts:
    """The features of another feature set that are most like those of this one, on the same pairs.

    Attributes:
        features: most correlated feature of the other set; −1 if none has a positive correlation.
        r: their correlations, each modality centered by itself.
        chance: 95th percentile of the largest correlations if the other set's samples are in random order.
    """

    features: Int64[Tensor, " features"]
    r: Float[Tensor, " features"]
    chance: float


@dataclass(frozen=True)
class Likeness:
    """What is alike. Each feature is taken on the side of 0 that its top samples are of.

    Attributes:
        neighbors: the most similar features of each feature, in its own set.
        alike_by: the similarity behind `neighbors` and `places`, in words.
        together: the features that each is most often active together with, by φ.
        places: place of each feature on the map, in the unit square, NaN for features without one; None without a map.
        counterparts: by the name of the other feature set.
        pairs: number of pairs behind `together`, `counterparts`, and all else where there are no atoms.
    """

    neighbors: Neighbors
    alike_by: str
    together: Neighbors
    places: Float64[Tensor, "features 2"] | None
    counterparts: dict[str, Counterparts]
    pairs: int
