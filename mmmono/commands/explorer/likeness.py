"""Which features are alike: neighbors, co-firing and a map within a feature set, counterparts in the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from mmmono.features import MODALITIES
from mmmono.interpretability import (
    Neighbors,
    centered_activations,
    co_firing,
    counterparts,
    feature_map,
    nearest_features,
)
from mmmono.pipeline.workspace import Workspace

MapMethod = Literal["tsne", "pca", "none"]


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
    """What is alike.

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


class Samples:
    """Activations of the feature sets on the same pairs of the split, drawn at random if there are too many.

    Args:
        workspace: provides feature sets and pairs.
        most: largest number of pairs.
    """

    def __init__(self, workspace: Workspace, most: int) -> None:
        self._workspace = workspace
        count = len(workspace.features(workspace.dataset.split).view)
        self.positions = np.arange(count)
        if count > most:
            self.positions = np.sort(np.random.default_rng(workspace.seed).choice(count, most, replace=False))
        self._sides: dict[str, tuple[Tensor, Tensor]] = {}

    def sides(self, name: str) -> tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]:
        """Activations of a feature set on images and on texts; computed once."""
        if name not in self._sides:
            feature_set = self._workspace.feature_set(name)
            image, text = (self._workspace.encode_rows(feature_set, of, self.positions) for of in MODALITIES)
            self._sides[name] = (image, text)
        return self._sides[name]

    def likeness(self, name: str, count: int, method: MapMethod) -> Likeness:
        """Find what is like each feature of a set.

        Args:
            name: name of the feature set.
            count: neighbors, and features that are active together, per feature.
            method: how the map is made, `none` for no map.
        """
        image, text = self.sides(name)
        atoms = self._workspace.feature_set(name).atoms
        directions = centered_activations(image, text) if atoms is None else atoms.detach()
        return Likeness(
            neighbors=nearest_features(directions, count),
            alike_by="correlation of activations" if atoms is None else "cosine of decoder atoms",
            together=co_firing(image > 0, text > 0, count),
            places=None if method == "none" else feature_map(directions, method, self._workspace.seed),
            counterparts={other: self._counterparts(name, other) for other in self._workspace.recipes if other != name},
            pairs=len(self.positions),
        )

    def _counterparts(self, name: str, other: str) -> Counterparts:
        mine, theirs = (centered_activations(*self.sides(of)) for of in (name, other))
        found = counterparts(mine, theirs)
        pairs = len(self.positions)
        order = torch.from_numpy(np.random.default_rng(self._workspace.seed).permutation(pairs))
        by_chance = counterparts(mine, theirs[:, torch.cat([order, order + pairs])]).cosines[:, 0]
        chance = float(np.quantile(by_chance[by_chance > 0].numpy(), 0.95)) if bool((by_chance > 0).any()) else 0.0
        return Counterparts(found.features[:, 0], found.cosines[:, 0], chance)
