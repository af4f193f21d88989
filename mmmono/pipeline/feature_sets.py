"""Feature-set options (`features=`), and how their dictionaries are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmmono.core.errors import ConfigError
from mmmono.dictionaries import Dictionary, DictionaryModule, NCLHead, NCLModule, SAEModule, TopKSAE
from mmmono.dictionaries.linear import LinearMap, fit_ica, fit_pca, random_rotation
from mmmono.features import FeatureView
from mmmono.features.rows import prepare
from mmmono.features.store import MODALITIES

# With fewer training pairs than this, an NCL head memorizes them; input noise makes every presentation different.
FEW_PAIRS = 50_000
FEW_PAIRS_NOISE = 1.5


class Recipe:
    """Base class: how a feature set is made."""


@dataclass
class Raw(Recipe):
    """`features=raw`: the dimensions of the model's embeddings; nothing is trained."""


@dataclass
class Trained(Recipe, ABC):
    """A trained dictionary; its settings are `features.*`, `sae.*` or `ncl.*` on the command line."""

    settings: Mapping[str, Any]

    @abstractmethod
    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> DictionaryModule:
        """Make the Lightning module with an untrained dictionary. Raises ConfigError if sizes are invalid."""


class SAE(Trained):
    """`features=sae`: a TopK sparse autoencoder (Eqs. 2, 3)."""

    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> SAEModule:
        """Make the module of a TopK SAE whose pre-bias is the mean of the training embeddings."""
        s = self.settings
        sae = self.untrained(train, normalize)
        return SAEModule(sae, auxk=s["auxk"], auxk_coefficient=s["auxk_coefficient"], lr=s["lr"], **schedule)

    def untrained(self, train: FeatureView, normalize: bool) -> TopKSAE:
        """Make the SAE before its first training step. Raises ConfigError if sizes are invalid."""
        s = self.settings
        num_features = _width(train.dim, s["expansion"])
        if not 1 <= s["k"] <= num_features:
            raise ConfigError(f"features.k={s['k']} must lie between 1 and the {num_features} latents")
        sae = TopKSAE(train.dim, num_features, s["k"], pre_bias=s["pre_bias"], center=s["center"])
        if s["pre_bias"]:
            sae.initialize_pre_bias(*modality_means(train, normalize))
        return sae


class NCL(Trained):
    """`features=ncl`: a non-negative contrastive head (Eq. 4)."""

    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> NCLModule:
        """Make the module of a non-negative contrastive head."""
        s = self.settings
        head = NCLHead(train.dim, _width(train.dim, s["expansion"]), s["layer_norm"], s["rep_relu"], s["similarity"])
        return NCLModule(head, input_noise=input_noise(s, len(train)), lr=s["lr"], **schedule)


def input_noise(settings: Mapping[str, Any], pairs: int) -> float:
    """Norm of the noise added to an NCL head's training embeddings, relative to the embeddings' norm."""
    if settings["input_noise"] is not None:
        return float(settings["input_noise"])
    return FEW_PAIRS_NOISE if pairs < FEW_PAIRS else 0.0


@dataclass
class Control(Recipe, ABC):
    """A control for trained dictionaries, made without gradient descent: are they more meaningful, or only sparser?"""

    settings: Mapping[str, Any] = field(default_factory=dict)

    @abstractmethod
    def fit(self, train: FeatureView, normalize: bool, seed: int) -> Dictionary:
        """Fit the dictionary. Raises ConfigError if there are too few pairs."""


class PCA(Control):
    """`features=pca`: principal components."""

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> LinearMap:
        """Fit principal components to a sample of both modalities."""
        return fit_pca(_sample(train, normalize, self.settings["max_pairs"], seed))


class ICA(Control):
    """`features=ica`: independent components."""

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> LinearMap:
        """Fit independent components to a sample of both modalities."""
        return fit_ica(_sample(train, normalize, self.settings["max_pairs"], seed), self.settings["max_iter"], seed)


class RandomRotation(Control):
    """`features=random_rotation`: a random orthogonal map."""

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> LinearMap:
        """Draw a random rotation; it does not depend on the data."""
        return random_rotation(train.dim, seed)


class UntrainedSAE(Control):
    """`features=untrained_sae`: a randomly initialized SAE."""

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> TopKSAE:
        """Make the SAE of `features=sae` before its first training step."""
        torch.manual_seed(seed)
        return SAE(self.settings).untrained(train, normalize)


def _sample(view: FeatureView, normalize: bool, max_pairs: int, seed: int) -> torch.Tensor:
    """Embeddings of a seeded sample of at most `max_pairs` pairs, all images before all texts."""
    rows = np.arange(len(view))
    if len(rows) > max_pairs:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_pairs, replace=False))
    return torch.cat(
        [prepare(view.gather(modality, rows), normalize, "cpu", view.store.path) for modality in MODALITIES]
    )


def _width(dim: int, expansion: float) -> int:
    width = round(dim * expansion)
    if width < 1:
        raise ConfigError(f"features.expansion={expansion} leaves no feature: give a positive factor")
    return width


def modality_means(view: FeatureView, normalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean image embedding and mean text embedding, float32 of shape `[dim]` each, in one pass."""
    image = torch.zeros(view.dim, dtype=torch.float64)
    text = torch.zeros_like(image)
    for block in view.blocks():
        image += prepare(block.image, normalize, "cpu", view.store.path).sum(0, dtype=torch.float64)
        text += prepare(block.text, normalize, "cpu", view.store.path).sum(0, dtype=torch.float64)
    return (image / len(view)).float(), (text / len(view)).float()
