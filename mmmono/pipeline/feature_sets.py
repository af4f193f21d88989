"""Feature-set options (`features=`), and how their dictionaries are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from mmmono.core.errors import ConfigError
from mmmono.dictionaries import Dictionary, DictionaryModule, NCLHead, NCLModule, SAEModule, SparseAutoencoder
from mmmono.dictionaries.base import dictionary_class
from mmmono.dictionaries.linear import LinearMap, fit_ica, fit_pca, random_rotation
from mmmono.features import FeatureView
from mmmono.features.rows import prepare
from mmmono.features.store import MODALITIES

# With fewer training pairs than this, an NCL head memorizes them; input noise makes every presentation different.
FEW_PAIRS = 50_000
FEW_PAIRS_NOISE = 1.5


class Recipe:
    """Base class: how a feature set is made.

    Attributes:
        trained: whether it is trained by gradient descent.
        made: whether it has a dictionary on disk.
        decodes: whether its features can be turned back into embeddings.
    """

    trained: ClassVar[bool] = False
    made: ClassVar[bool] = True
    decodes: ClassVar[bool] = True

    def differences(self, training_pairs: int) -> Iterator[tuple[str, str, str]]:
        """Yield the settings that the paper states: (setting, the paper's value, the value here)."""
        yield from ()


@dataclass
class Raw(Recipe):
    """`features=raw`: the dimensions of the model's embeddings; nothing is trained."""

    made = False


@dataclass
class Trained(Recipe, ABC):
    """A trained dictionary; its settings are `features.*`, `sae.*` or `ncl.*` on the command line."""

    settings: Mapping[str, Any]
    trained = True

    @abstractmethod
    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> DictionaryModule:
        """Make the Lightning module with an untrained dictionary. Raises ConfigError if sizes are invalid."""


# Settings of a sparse autoencoder's training; all others are arguments of its class.
OF_TRAINING = ("lr", "auxk", "auxk_coefficient", "expansion")


@dataclass
class SAE(Trained):
    """`features=sae`: a sparse autoencoder (Eqs. 2, 3); TopK unless `architecture` names another class."""

    architecture: str = "topk_sae"

    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> SAEModule:
        """Make the module of an autoencoder whose pre-bias is the mean of the training embeddings."""
        s = self.settings
        sae = self.untrained(train, normalize)
        return SAEModule(sae, auxk=s["auxk"], auxk_coefficient=s["auxk_coefficient"], lr=s["lr"], **schedule)

    def untrained(self, train: FeatureView, normalize: bool) -> SparseAutoencoder:
        """Make the autoencoder before its first training step. Raises ConfigError if sizes are invalid."""
        made = dictionary_class(self.architecture)
        arguments = {key: value for key, value in self.settings.items() if key not in OF_TRAINING}
        try:
            sae = made(train.dim, _width(train.dim, self.settings["expansion"]), **arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"features.{error}") from error
        assert isinstance(sae, SparseAutoencoder)
        if self.settings.get("pre_bias"):
            sae.initialize_pre_bias(*modality_means(train, normalize))
        return sae

    def differences(self, training_pairs: int) -> Iterator[tuple[str, str, str]]:
        """Yield sparsity and size (Appendix A.1)."""
        if self.architecture == "topk_sae":
            expansion = self.settings["expansion"]
            size = "n = d" if expansion == 1 else f"n = {expansion} d"
            yield "SAE", "k = 32, n = d", f"k = {self.settings['k']}, {size}"


class NCL(Trained):
    """`features=ncl`: a non-negative contrastive head (Eq. 4)."""

    decodes = False

    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> NCLModule:
        """Make the module of a non-negative contrastive head."""
        s = self.settings
        head = NCLHead(train.dim, _width(train.dim, s["expansion"]), s["layer_norm"], s["rep_relu"], s["similarity"])
        return NCLModule(head, input_noise=input_noise(s, len(train)), lr=s["lr"], **schedule)

    def differences(self, training_pairs: int) -> Iterator[tuple[str, str, str]]:
        """Yield the noise on the inputs, which the paper does not have."""
        noise = input_noise(self.settings, training_pairs)
        yield "NCL", "no noise", f"noise of {noise:g} times the embeddings' length" if noise else "no noise"


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

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> SparseAutoencoder:
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
