"""Base class of feature-set options (`features=`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from mmmono.pipeline.workspace_settings import WorkspaceSettings

Width = Callable[[], int | None]


class Recipe:
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
    def check_all(recipes: Iterable[Recipe], dim: Width, settings: WorkspaceSettings) -> None:
        """Raise what `check` of any of them raises."""
        for recipe in recipes:
            recipe.check(dim, settings.features.normalize)

    def differences(self, training_pairs: int) -> Iterator[tuple[str, str, str]]:
        """Yield the settings that the paper states: (setting, the paper's value, the value here)."""
        yield from ()
