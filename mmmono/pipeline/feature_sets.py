"""Feature-set options (`features=`), and how their dictionaries are made."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mmmono.core.errors import ConfigError
from mmmono.core.shown import as_typed
from mmmono.dictionaries import NCLHead, SparseAutoencoder
from mmmono.dictionaries.base import dictionary_class
from mmmono.dictionaries.linear import CenteredEmbeddings, LinearMap, fit_ica, fit_pca, random_rotation
from mmmono.features import FeatureView
from mmmono.features.rows import prepare
from mmmono.features.store import MODALITIES
from mmmono.pipeline.modality_means import modality_means
from mmmono.pipeline.settings import CENTERS
from mmmono.pipeline.specs import FeatureSetSpec, Fitted, Trained, Width
from mmmono.pipeline.starting import Start

if TYPE_CHECKING:
    from mmmono.dictionaries import NCLModule, SAEModule

# With fewer training pairs than this, an NCL head memorizes them; input noise makes every presentation different.
FEW_PAIRS = 50_000
FEW_PAIRS_NOISE = 1.5


def make_spec(name: str, node: DictConfig) -> FeatureSetSpec:
    """Make the feature set of an entry of `features.sets`."""
    made: FeatureSetSpec = instantiate(node, _convert_="all")
    written = OmegaConf.to_container(node, resolve=False)
    settings = written.get("settings") if isinstance(written, dict) else None
    elsewhere = re.fullmatch(r"\$\{([\w.]+)\}", settings) if isinstance(settings, str) else None
    made.section = elsewhere[1] if elsewhere else f"features.sets.{name}.settings"
    return made


# Settings of a sparse autoencoder's training; all others are arguments of its class.
OF_TRAINING = ("lr", "auxk", "auxk_coefficient", "penalty_warmup_steps", "expansion", "init_from")
NOT_OF_MODULE = ("expansion", "init_from")
OF_FEATURES = ("k", "expansion")  # settings that sections take from `features`


@dataclass
class SAE(Trained):
    """`features=sae`: a sparse autoencoder (Eqs. 2, 3); TopK unless `architecture` names another class."""

    architecture: str = "topk_sae"

    def recipe(self) -> dict[str, Any]:
        """Settings, with the content of the files that it starts from, and the class if it is another than TopK."""
        settings = {key: value for key, value in self.settings.items() if key != "init_from"}
        if self.start is not None:
            settings["init_from"] = self.start.identity
        return {
            "settings": settings,
            **({} if self.architecture == "topk_sae" else {"architecture": self.architecture}),
        }

    def check(self, dim: Width, normalize: bool, download: bool = True) -> None:
        """Raise ConfigError if its settings make no autoencoder of this width, or if what it starts from does not fit.

        DictionaryError and ModelError: see `FeatureSetSpec.check`.
        """
        if (there := dim()) is not None:
            try:
                with torch.device("meta"):  # takes no memory
                    self._made(there)
            except (ConfigError, RuntimeError):  # or a class of one's own reads its weights, which have no values there
                with torch.random.fork_rng(devices=[]):
                    self._made(there)
        if self.start is not None:
            self.start.check(there, download)

    @cached_property
    def start(self) -> Start | None:
        """The dictionary that it starts from; None for none."""
        path = self.settings.get("init_from")
        return None if path is None else Start(f"{self.section}.init_from", as_typed(path))

    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> SAEModule:
        """Make the module of an autoencoder whose pre-bias is the mean of the training embeddings."""
        from mmmono.dictionaries import SAEModule

        s = self.settings
        sae = self.untrained(train, normalize)
        training = {key: s[key] for key in OF_TRAINING if key in s and key not in NOT_OF_MODULE}
        return SAEModule(sae, **training, **schedule)

    def bfloat16_weights(self, dim: int) -> int:
        """Weights of the encoder of a TopK SAE, which proposes active latents in bfloat16 and computes them in float32."""
        return dim * _width(dim, self.settings["expansion"]) if self.architecture == "topk_sae" else 0

    def untrained(self, train: FeatureView, normalize: bool) -> SparseAutoencoder:
        """Make the autoencoder before its first training step.

        Raises:
            ConfigError: sizes are invalid or do not fit.
            ModelError: files that it starts from were changed after this command had begun.
        """
        sae = self._made(train.dim)
        if self.settings.get("pre_bias"):
            sae.initialize_pre_bias(*modality_means(train, normalize))
        if self.start is not None:
            self.start.begin(sae)
        return sae

    def _made(self, dim: int) -> SparseAutoencoder:
        """Make the autoencoder with random weights. Raises ConfigError if sizes or arguments are invalid."""
        arguments = {key: value for key, value in self.settings.items() if key not in OF_TRAINING}
        try:
            sae = dictionary_class(self.architecture)(dim, _width(dim, self.settings["expansion"]), **arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(self._said(str(error), arguments)) from error
        assert isinstance(sae, SparseAutoencoder)
        return sae

    def _said(self, error: str, arguments: Mapping[str, Any]) -> str:
        """Message of an error about an argument, which begins with its name, with the name of the option."""
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", error):
            return (
                f"{self.section}.{unknown[1]} is no setting of a {self.architecture}: correct its name or leave it out"
            )
        name = re.match(r"\w+", error)
        if name is None or name[0] not in arguments:
            return f"{self.section}: {error}"
        return (
            f"{'features' if name[0] in OF_FEATURES else self.section}.{_as_typed(error, name[0], arguments[name[0]])}"
        )

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
        from mmmono.dictionaries import NCLModule

        s = self.settings
        return NCLModule(self._made(train.dim), input_noise=input_noise(s, len(train)), lr=s["lr"], **schedule)

    def check(self, dim: Width, normalize: bool, download: bool = True) -> None:
        """Raise ConfigError if its settings make no head of this width."""
        if (there := dim()) is not None:
            with torch.device("meta"):  # takes no memory
                self._made(there)

    def _made(self, dim: int) -> NCLHead:
        s = self.settings
        try:
            return NCLHead(
                dim, _width(dim, s["expansion"], self.section), s["layer_norm"], s["rep_relu"], s["similarity"]
            )
        except ValueError as error:  # its message begins with the name of the setting
            raise ConfigError(f"{self.section}.{_as_typed(str(error), 'similarity', s['similarity'])}") from error

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
class UntrainedSAE(Fitted):
    """`features=untrained_sae`: a randomly initialized SAE, a control for trained ones."""

    settings: Mapping[str, Any]

    def recipe(self) -> dict[str, Any]:
        """Settings of `features=sae` that matter before its first step."""
        used = {key: value for key, value in self.settings.items() if key not in OF_TRAINING or key == "expansion"}
        return {"settings": used}

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> SparseAutoencoder:
        """Make the SAE of `features=sae` before its first training step."""
        torch.manual_seed(seed)
        return self._trained().untrained(train, normalize)

    def check(self, dim: Width, normalize: bool, download: bool = True) -> None:
        """Raise ConfigError if the settings make no autoencoder of this width."""
        self._trained().check(dim, normalize, download)

    def _trained(self) -> SAE:
        sae = SAE({**self.settings, "init_from": None})
        sae.section = self.section
        return sae


@dataclass(kw_only=True)
class Centered(Fitted, ABC):
    """A feature set whose embeddings can be centered first.

    Attributes:
        center: what is subtracted from the embeddings: `none` nothing, `pooled` the mean of both modalities' means,
            `per_modality` the mean of each modality; means over the training pairs.
    """

    center: str = "none"

    def recipe(self) -> dict[str, Any]:
        """The centering, if there is any."""
        return {} if self.center == "none" else {"center": self.center}

    def means(self, train: FeatureView, normalize: bool) -> torch.Tensor | None:
        """What is subtracted from images and from texts, float32 of shape `[2, dim]`; None for nothing.

        Raises:
            ConfigError: `center` is unknown.
        """
        if self.center not in CENTERS:
            raise ConfigError(f"features.center={self.center} is none of {', '.join(CENTERS)}")
        if self.center == "none":
            return None
        means = torch.stack(modality_means(train, normalize))
        return means.mean(0).expand_as(means) if self.center == "pooled" else means


class Raw(Centered):
    """`features=raw`: the dimensions of the model's embeddings; nothing is trained."""

    @property
    def made(self) -> bool:
        """Whether it is centered, and therefore has means on disk."""
        return self.center != "none"

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> CenteredEmbeddings:
        """Measure the means to subtract."""
        means = self.means(train, normalize)
        return CenteredEmbeddings.of(torch.zeros(2, train.dim) if means is None else means)


@dataclass(kw_only=True)
class Control(Centered, ABC):
    """A linear control for trained dictionaries: are they more meaningful, or only sparser?"""

    settings: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self) -> dict[str, Any]:
        """Its own settings, and the centering if there is any."""
        return {"settings": dict(self.settings), **super().recipe()}

    def fit(self, train: FeatureView, normalize: bool, seed: int) -> LinearMap:
        """Fit the map to the embeddings, centered if `center` says so. Raises ConfigError if there are too few pairs."""
        means = self.means(train, normalize)
        linear = self.linear(train, normalize, seed, means)
        return linear if means is None else linear.after(means)

    @abstractmethod
    def linear(self, train: FeatureView, normalize: bool, seed: int, means: torch.Tensor | None) -> LinearMap:
        """Fit the map of embeddings minus `means`. Raises ConfigError if there are too few pairs."""


class PCA(Control):
    """`features=pca`: principal components; they subtract the pooled mean in any case."""

    def linear(self, train: FeatureView, normalize: bool, seed: int, means: torch.Tensor | None) -> LinearMap:
        """Fit principal components to a sample of both modalities."""
        return fit_pca(_sample(train, normalize, self.settings["max_pairs"], seed, means))


class ICA(Control):
    """`features=ica`: independent components; they subtract the pooled mean in any case."""

    def linear(self, train: FeatureView, normalize: bool, seed: int, means: torch.Tensor | None) -> LinearMap:
        """Fit independent components to a sample of both modalities."""
        sample = _sample(train, normalize, self.settings["max_pairs"], seed, means)
        return fit_ica(sample, self.settings["max_iter"], seed)


class RandomRotation(Control):
    """`features=random_rotation`: a random orthogonal map."""

    def linear(self, train: FeatureView, normalize: bool, seed: int, means: torch.Tensor | None) -> LinearMap:
        """Draw a random rotation; it does not depend on the data."""
        return random_rotation(train.dim, seed)


def _sample(view: FeatureView, normalize: bool, max_pairs: int, seed: int, means: torch.Tensor | None) -> torch.Tensor:
    """Embeddings of a seeded sample of at most `max_pairs` pairs minus means, all images before all texts."""
    rows = np.arange(len(view))
    if len(rows) > max_pairs:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_pairs, replace=False))
    sides = [
        prepare(view.gather(modality, rows), normalize, "cpu", view.origin(modality, rows)) for modality in MODALITIES
    ]
    return torch.cat(sides if means is None else [side - mean for side, mean in zip(sides, means, strict=True)])


def _width(dim: int, expansion: float, section: str = "features") -> int:
    is_number = isinstance(expansion, int | float) and not isinstance(expansion, bool)
    width = round(dim * expansion) if is_number else 0
    if width < 1:
        raise ConfigError(f"{section}.expansion={as_typed(expansion)} leaves no feature: give a positive factor")
    return width


def _as_typed(error: str, name: str, value: object) -> str:
    """An error that begins with an argument and its value in Python's form, with the value as it is typed."""
    for shown in (value, *(value if isinstance(value, list) else ())):
        if not isinstance(shown, str):  # which stays in quotation marks
            error = error.replace(f"{name}={shown!r} ", f"{name}={as_typed(shown)} ", 1)
    return error
