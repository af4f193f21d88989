"""Feature-set groups: what `features=` options mean, and how their dictionaries are made."""

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

FEW_PAIRS = 50_000  # fewer than these an NCL head learns by heart, unless it never sees one twice
FEW_PAIRS_NOISE = 1.5


class Recipe:
    """How a feature set is made."""


@dataclass
class Raw(Recipe):
    """The model's own dimensions: nothing to train."""


@dataclass
class Trained(Recipe, ABC):
    """A dictionary with its settings, `features.*`, `sae.*` or `ncl.*` on the command line."""

    settings: Mapping[str, Any]

    @abstractmethod
    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> DictionaryModule:
        """An untrained dictionary in the module that trains it. Raises ConfigError on impossible sizes."""


class SAE(Trained):
    """`features=sae`."""

    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> SAEModule:
        """A TopK SAE whose pre-bias is the mean of the training embeddings."""
        s = self.settings
        sae = self.untrained(train, normalize)
        return SAEModule(sae, auxk=s["auxk"], auxk_coefficient=s["auxk_coefficient"], lr=s["lr"], **schedule)

    def untrained(self, train: FeatureView, normalize: bool) -> TopKSAE:
        """The SAE before its first step."""
        s = self.settings
        num_features = _width(train.dim, s["expansion"])
        if not 1 <= s["k"] <= num_features:
            raise ConfigError(f"features.k={s['k']} must lie between 1 and the {num_features} latents")
        sae = TopKSAE(train.dim, num_features, s["k"], pre_bias=s["pre_bias"], center=s["center"])
        if s["pre_bias"]:
            sae.initialize_pre_bias(*modality_means(train, normalize))
        return sae


class NCL(Trained):
    """`features=ncl`."""

    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> NCLModule:
        """A non-negative contrastive head."""
        s = self.settings
        head = NCLHead(train.dim, _width(train.dim, s["expansion"]), s["layer_norm"], s["rep_relu"], s["similarity"])
        return NCLModule(head, input_noise=input_noise(s, len(train)), lr=s["lr"], **schedule)


def input_noise(settings: Mapping[str, Any], pairs: int) -> float:
    """Noise added to the embeddings that an NCL head is trained on, as a multiple of their length."""
    if settings["input_noise"] is not None:
        return float(settings["input_noise"])
    return FEW_PAIRS_NOISE if pairs < FEW_PAIRS else 0.0


@dataclass
class Control(Recipe, ABC):
    """A feature set fitted in one go, to tell "sparser" from "more meaningful"."""

    settings: Mapping[str, Any] = field(default_factory=dict)

    @abstractmethod
    def fit(self, train: FeatureView, normalize: bool, seed: int) -> Dictionary:
        """The fitted map. Raises ConfigError where there are too few pairs."""


class PCA(Control):
    """`features=pca`."""

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> LinearMap:
        """Principal components of a sample of both modalities."""
        return fit_pca(_sample(train, normalize, self.settings["max_pairs"], seed))


class ICA(Control):
    """`features=ica`."""

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> LinearMap:
        """Independent components of a sample of both modalities."""
        return fit_ica(_sample(train, normalize, self.settings["max_pairs"], seed), self.settings["max_iter"], seed)


class RandomRotation(Control):
    """`features=random_rotation`."""

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> LinearMap:
        """A rotation that has not seen the data."""
        return random_rotation(train.dim, seed)


class UntrainedSAE(Control):
    """`features=untrained_sae`."""

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> TopKSAE:
        """The SAE of `features=sae` before its first step."""
        torch.manual_seed(seed)
        return SAE(self.settings).untrained(train, normalize)


def _sample(view: FeatureView, normalize: bool, max_pairs: int, seed: int) -> torch.Tensor:
    """Both modalities' embeddings of a seeded sample of pairs, images first."""
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
    """Mean image and mean text embedding, float32 `[dim]` each, in one pass."""
    image = torch.zeros(view.dim, dtype=torch.float64)
    text = torch.zeros_like(image)
    for block in view.blocks():
        image += prepare(block.image, normalize, "cpu", view.store.path).sum(0, dtype=torch.float64)
        text += prepare(block.text, normalize, "cpu", view.store.path).sum(0, dtype=torch.float64)
    return (image / len(view)).float(), (text / len(view)).float()
