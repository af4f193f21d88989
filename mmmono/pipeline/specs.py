"""Base classes of feature-set options (`features=`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mmmono.dictionaries import Dictionary, DictionaryModule
    from mmmono.features import FeatureView
    from mmmono.pipeline.workspace_settings import WorkspaceSettings

Width = Callable[[], int | None]


class FeatureSetSpec:
    """Base class: how a feature set is made.

    Attributes:
        trained: whether it is trained by gradient descent.
        decodes: whether its features can be turned back into embeddings.
        section: section of the configuration that has its settings, for messages.
    """

    trained: ClassVar[bool] = False
    decodes: ClassVar[bool] = True
    section: str = "features"

    @property
    def made(self) -> bool:
        """Whether it has a dictionary on disk."""
        return True

    def check(self, dim: Width, normalize: bool, download: bool = True) -> None:
        """Raise, before features are extracted, what could be known to fail afterwards: by default nothing.

        Args:
            dim: returns the width of the embeddings, None if it is not known yet. Only what needs it asks: it may read a
                checkpoint.
            normalize: whether they are normalized first.
            download: whether files on the hub are downloaded for it; else only those on this machine are checked.

        Raises:
            ConfigError, DictionaryError, ModelError: a file that it is made from is not there, or does not fit.
        """

    @staticmethod
    def check_all(specs: Iterable[FeatureSetSpec], dim: Width, settings: WorkspaceSettings) -> None:
        """Raise what `check` of any of them raises."""
        for spec in specs:
            spec.check(dim, settings.features.normalize)

    def differences(self, training_pairs: int) -> Iterator[tuple[str, str, str]]:
        """Yield the settings that the paper states: (setting, the paper's value, the value here)."""
        yield from ()


@dataclass
class Trained(FeatureSetSpec, ABC):
    """A trained dictionary; its settings are `features.*`, `sae.*` or `ncl.*` on the command line."""

    settings: Mapping[str, Any]
    trained = True

    def recipe(self) -> dict[str, Any]:
        """What determines the dictionary, given features, seed and training."""
        return {"settings": dict(self.settings)}

    @abstractmethod
    def module(self, train: FeatureView, normalize: bool, schedule: Mapping[str, Any]) -> DictionaryModule:
        """Make the Lightning module with an untrained dictionary. Raises ConfigError if sizes are invalid."""

    def bfloat16_weights(self, dim: int) -> int:
        """Number of weights of the products that bfloat16 makes faster and leaves as good; 0 if there are none."""
        return 0

    def finish(self, dictionary: Dictionary, train: FeatureView, normalize: bool) -> None:
        """Do what is left when training has ended, in place; nothing for most kinds."""


class Fitted(FeatureSetSpec, ABC):
    """A feature set that is computed from the training pairs without gradient descent."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Settings that determine the dictionary, given the training pairs and the seed."""

    @abstractmethod
    def fit(self, train: FeatureView, normalize: bool, seed: int) -> Dictionary:
        """Fit the dictionary. Raises ConfigError if there are too few pairs."""
