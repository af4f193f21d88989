"""What all ways of steering share: the images that features are measured on, which features are steered, and the scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.core.statistics import t_mean
from mmmono.features import FeatureSet
from mmmono.features.removal import all_atoms
from mmmono.interpretability.steer import How, Steer
from mmmono.interpretability.steerability import Steered, reference_activations
from mmmono.modality import LIVE_CLASSES, Partition
from mmmono.modality.false_discoveries import q_values
from mmmono.modality.random_sets import Activity, Match, random_set
from mmmono.modality.report import FeatureSetDominance
from mmmono.pipeline.steering_settings import SteeringSettings
from mmmono.pipeline.workspace import Workspace

Row = dict[str, Any]
Array = np.ndarray[Any, Any]
FDR = 0.05


@dataclass(frozen=True)
class Steerable:
    """A feature set, with what is known of its features from images of the dataset.

    Attributes:
        features: the feature set.
        scored: scores and classes of its features.
        codes: activations of the images.
        reference: see `reference_activations`.
        activity: energy and frequency of the features on the images.
    """

    features: FeatureSet
    scored: FeatureSetDominance
    codes: Float64[Tensor, "images features"]
    reference: Float64[Tensor, " features"]
    activity: Activity

    @classmethod
    def of(cls, workspace: Workspace, name: str, images: Int[Array, " images"], k: int) -> Steerable:
        """Measure a feature set on images at some positions of the dataset's split."""
        features = workspace.feature_set(name)
        codes = workspace.encode_rows(features, "image", images).double()
        activity = Activity.of([codes]).through(all_atoms(features, "image", workspace.device))
        return cls(features, workspace.dominance(name), codes, reference_activations(codes, k), activity)

    def chosen(self, settings: SteeringSettings, section: str, seed: int) -> list[int]:
        """Features to steer: those of `show`, or random ones of each class.

        Args:
            settings: names the features, or how many are drawn.
            section: of the settings, for the message.
            seed: of the draw.

        Raises:
            ConfigError: no image activates one of `show`.
        """
        if settings.show is None:
            return random_features(self.scored, self.reference, settings.per_class, seed)
        for feature in settings.show:
            if self.reference[feature] == 0:
                raise ConfigError(
                    f"{section}.show names feature {feature} of {self.scored.name}, which none of {len(self.codes)} images "
                    "activates, so that nothing says what strong is: leave it out"
                )
        return list(settings.show)

    def matched(self, chosen: Sequence[int], count: int, match: Match, seed: int) -> dict[int, list[int]]:
        """Random live features for each of the chosen ones, of about the same energy or frequency on the images.

        Args:
            chosen: features.
            count: number of random ones for each; fewer if there are not as many.
            match: what they have in common.
            seed: of the draw.
        """
        live = self.scored.partition.live.numpy()
        pool = np.setdiff1d(live[(self.reference[live] != 0).numpy()], chosen)
        weights = self.activity.weights(match)
        found: dict[int, list[int]] = {}
        for feature in chosen:
            left, rng = pool, np.random.default_rng([seed, feature])
            found[feature] = []
            for _ in range(min(count, len(pool))):
                [member] = random_set(left, np.array([feature]), weights, rng).members
                found[feature].append(int(member))
                left = np.setdiff1d(left, [member])
        return found

    def steer(self, feature: int, strength: float, how: How) -> Steer:
        """Return the change of one feature's code, see `Steer.of`."""
        return Steer.of(feature, strength, float(self.reference[feature]), how)


def one_of_each_group(workspace: Workspace, count: int, rng: np.random.Generator) -> Int[Array, " samples"]:
    """Positions of pairs of the dataset's split, at most one of each group, in random order."""
    view = workspace.features(workspace.dataset.split).view
    order = rng.permutation(len(view))
    return order[np.sort(np.unique(view.groups()[order], return_index=True)[1])][:count]


def check_groups(workspace: Workspace, section: str, k: int) -> None:
    """Raise ConfigError unless the dataset's split has more groups of pairs than k."""
    groups = len(np.unique(workspace.features(workspace.dataset.split).view.groups()))
    if groups < max(3, k + 1):
        raise ConfigError(
            f"{section}.k={k} images are to be found, but the split has {groups} groups of pairs: lower it"
        )


def check_decoders(workspace: Workspace) -> None:
    """Raise ConfigError if a selected feature set has no decoder, so that changed codes change no embedding."""
    for name, kind in workspace.specs.items():
        if not kind.decodes:
            raise ConfigError(f"features={name} has no way back to embeddings: use features=raw or features=sae")


def check_shown(workspace: Workspace, section: str, show: Sequence[int] | None, key: str = "show") -> None:
    """Raise ConfigError if a named feature does not exist; the dictionaries are made for it, before anything else.

    Args:
        workspace: provides the feature sets.
        section, key: setting that names the features, for the message.
        show: the features.
    """
    for name in workspace.specs if show else ():
        count = workspace.feature_set(name).num_features
        for feature in show or ():
            if not 0 <= feature < count:
                raise ConfigError(f"{section}.{key} names feature {feature}, but {name} has 0 to {count - 1}")


def random_features(
    scored: FeatureSetDominance, reference: Float64[Tensor, " features"], per_class: int, seed: int
) -> list[int]:
    """Random features of each class that some image activates."""
    drawn: list[int] = []
    for name in LIVE_CLASSES:
        members = scored.partition[name].numpy()
        members = members[(reference[members] != 0).numpy()]
        drawn += np.random.default_rng(seed).choice(members, min(per_class, len(members)), replace=False).tolist()
    return drawn


def drawn_by_class(
    partition: Partition, features: Int64[Tensor, " features"], most: int | None, seed: int
) -> list[int]:
    """Some live features, ascending: all, or at most so many at random, of each class as many if it has them.

    Args:
        partition: the classes.
        features: indices of live features, ascending.
        most: number of features that are left, at least one for each class; None: all.
        seed: of the draw.
    """
    if most is None or len(features) <= most:
        return features.tolist()
    members = [features[torch.isin(features, partition[name])].numpy() for name in LIVE_CLASSES]
    drawn: list[int] = []
    left = most
    for place, of in enumerate(sorted(members, key=len)):  # what small classes do not need is for larger ones
        count = min(len(of), left // (len(members) - place))
        drawn += np.random.default_rng([seed, len(drawn)]).choice(of, count, replace=False).tolist()
        left -= count
    return sorted(drawn)


def steered_rows(
    scored: FeatureSetDominance,
    chosen: Sequence[int],
    steered: Steered,
    reference: Float64[Tensor, " features"] | None = None,
) -> Iterator[Row]:
    """Rows of all steered features at one strength.

    Intervals and p-values take queries for independent draws, which pairs of different groups are. Prompts chosen by hand
    are no such draw: there an interval says how much the mean depends on which were chosen. The controls are given.

    Args:
        scored: the feature set.
        chosen: the features, as in `steered`.
        steered: what steering them does.
        reference: reference activations of all features; None: none are shown.
    """
    moves, beyond = (
        [t_mean(values).of_shares(len(values)) for values in table.T.numpy()]
        for table in (steered.moves, steered.moves - steered.controls)
    )
    adjusted = q_values(torch.tensor([estimate.p_value for estimate in beyond], dtype=torch.float64))
    classes, scores = scored.partition.class_of(), steered.scores()
    for place, feature in enumerate(chosen):
        yield {
            "feature_set": scored.name, "feature": feature, "class": classes[feature],
            "mds": float(scored.scores.scores[feature]),
            **({} if reference is None else {"reference": float(reference[feature])}),
            "strength": steered.strength, **moves[place].interval().columns("move"),
            "control": float(steered.controls[:, place].mean()), **beyond[place].interval().columns("beyond"),
            "q_value": float(adjusted[place]), "stay": float(steered.stays[:, place].mean()),
            "score": float(scores[place]),
        }  # fmt: skip


def class_rows(rows: Sequence[Row], means: Sequence[str] = ("move", "control", "stay", "score")) -> Iterator[Row]:
    """Means over the features of each class at each strength, and how many move more than their control.

    Args:
        rows: see `steered_rows`, of one feature set.
        means: columns whose means are taken.
    """
    table = pd.DataFrame(rows)
    for of in LIVE_CLASSES:
        for strength, part in table[table["class"] == of].groupby("strength"):
            yield {
                "feature_set": part["feature_set"].iloc[0], "class": of, "strength": strength, "features": len(part),
                **{name: float(part[name].mean()) for name in means},
                "moved": int(((part["q_value"] <= FDR) & (part["beyond"] > 0)).sum()),
            }  # fmt: skip
