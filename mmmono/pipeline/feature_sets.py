"""Feature-set groups: what `features=` options mean, and how their dictionaries are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mmmono.core.errors import ConfigError
from mmmono.dictionaries import DictionaryModule, NCLHead, NCLModule, SAEModule, TopKSAE
from mmmono.features import FeatureView
from mmmono.features.feature_set import prepare


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
        num_features = _width(train.dim, s["expansion"])
        if not 1 <= s["k"] <= num_features:
            raise ConfigError(f"features.k={s['k']} must lie between 1 and the {num_features} latents")
        sae = TopKSAE(train.dim, num_features, s["k"], pre_bias=s["pre_bias"], center=s["center"])
        if s["pre_bias"]:
            sae.initialize_pre_bias(*modality_means(train, normalize))
        return SAEModule(sae, auxk=s["auxk"], auxk_coefficient=s["auxk_coefficient"], lr=s["lr"], **schedule)


class NCL(Trained):
    """`features=ncl`."""

    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> NCLModule:
        """A non-negative contrastive head."""
        s = self.settings
        head = NCLHead(train.dim, _width(train.dim, s["expansion"]), s["layer_norm"], s["rep_relu"], s["similarity"])
        return NCLModule(head, input_noise=s["input_noise"], lr=s["lr"], **schedule)


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
        image += prepare(block.image, normalize, "cpu", view).sum(0)
        text += prepare(block.text, normalize, "cpu", view).sum(0)
    return (image / len(view)).float(), (text / len(view)).float()
