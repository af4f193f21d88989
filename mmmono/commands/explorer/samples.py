"""Activations of all feature sets on the same pairs, and what is like each feature by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmmono.commands.explorer.likeness import Counterparts, Likeness
from mmmono.commands.explorer.runs import ShownSet
from mmmono.features import MODALITIES
from mmmono.interpretability import centered_activations, co_firing, counterparts, feature_map, nearest_features

MapMethod = Literal["tsne", "pca", "none"]


class Samples:
    """Activations of the feature sets on the same pairs of the split, drawn at random if there are too many.

    Args:
        sets: the feature sets; the pairs of all are the same.
        negative: by name of a set, the features whose negative side counts: their activations and atoms change sign.
        most: largest number of pairs.
    """

    def __init__(self, sets: Sequence[ShownSet], negative: Mapping[str, Bool[Tensor, " features"]], most: int) -> None:
        self._sets = {shown.name: shown for shown in sets}
        self._signs = {name: torch.where(below, -1.0, 1.0) for name, below in negative.items()}
        workspace = sets[0].run.workspace
        self._seed = workspace.seed
        count = len(workspace.features(workspace.dataset.split).view)
        self.positions = np.arange(count)
        if count > most:
            self.positions = np.sort(np.random.default_rng(self._seed).choice(count, most, replace=False))
        self._sides: dict[str, tuple[Tensor, Tensor]] = {}

    def sides(self, name: str) -> tuple[Float[Tensor, "pairs features"], Float[Tensor, "pairs features"]]:
        """Activations of a feature set on images and on texts, positive on the side that counts; computed once."""
        if name not in self._sides:
            shown, sign = self._sets[name], self._signs[name]
            rows = (shown.run.workspace.encode_rows(shown.feature_set, of, self.positions) for of in MODALITIES)
            image, text = (side * sign.to(side.dtype) for side in rows)
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
        atoms = self._sets[name].feature_set.atoms
        if atoms is None:
            directions = centered_activations(image, text)
        else:
            directions = atoms.detach() * self._signs[name].to(atoms)[:, None]
        return Likeness(
            neighbors=nearest_features(directions, count),
            alike_by="correlation of activations" if atoms is None else "cosine of decoder atoms",
            together=co_firing(image > 0, text > 0, count),
            places=None if method == "none" else feature_map(directions, method, self._seed),
            counterparts={other: self._counterparts(name, other) for other in self._sets if other != name},
            pairs=len(self.positions),
        )

    def _counterparts(self, name: str, other: str) -> Counterparts:
        mine, theirs = (centered_activations(*self.sides(of)) for of in (name, other))
        found = counterparts(mine, theirs)
        pairs = len(self.positions)
        order = torch.from_numpy(np.random.default_rng(self._seed).permutation(pairs))
        by_chance = counterparts(mine, theirs[:, torch.cat([order, order + pairs])]).cosines[:, 0]
        chance = float(np.quantile(by_chance[by_chance > 0].numpy(), 0.95)) if bool((by_chance > 0).any()) else 0.0
        return Counterparts(found.features[:, 0], found.cosines[:, 0], chance)
