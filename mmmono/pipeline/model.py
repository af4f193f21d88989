"""What a model option (`model=`) is: it identifies an encoder without loading it, and loads it when needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmmono.core.artifacts import Artifacts
from mmmono.core.fingerprints import unchanged
from mmmono.data.pairs import PairSource
from mmmono.features import Manifest, extract_features
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.pipeline.downloads import Download
from mmmono.vlm import Encoder

DEFAULT = "drawingclip"  # name of the embedded default
UNNAMED = "unnamed"  # option, and name, of the model behind embeddings that were there before, if nothing says which


@dataclass(kw_only=True, frozen=True)
class Model(ABC):
    """Base class of model options: identify an encoder without loading it, and load it when needed."""

    name: str

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Everything that determines the embeddings. Raises ModelError if a checkpoint is missing."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Recipe when it was first asked for: that of all that is made with this object. Raises what `recipe` does."""
        return self.recipe()

    def load_checked(self, artifacts: Artifacts, device: str) -> Encoder:
        """Load the encoder, which is what `identity` says.

        Raises:
            ModelError: its files were changed since, such as a checkpoint that a training overwrites.
        """
        with unchanged(self.identity, self.recipe, f"the weights of {self.name}"):
            return self.load(artifacts, device)

    @property
    @abstractmethod
    def dim(self) -> int | None:
        """Dimension of the joint space, without loading weights; None if unknown."""

    @abstractmethod
    def load(self, artifacts: Artifacts, device: str) -> Encoder:
        """Load the encoder to the device. Callers use `load_checked`."""

    def extract(
        self, source: PairSource, artifacts: Artifacts, directory: Path, device: str, settings: ExtractionSettings
    ) -> Manifest:
        """Encode all pairs of a source into a feature store in `directory`; see `extract_features`."""
        return extract_features(
            source, self.load_checked(artifacts, device), directory, device=device, settings=settings
        )

    def fitted_on(self, dataset: str) -> bool:
        """Whether the model was fitted on the training split of this dataset (name of its option, lower case)."""
        return False

    @property
    def open_clip_name(self) -> str | None:
        """open_clip's name of the architecture; None for models of other kinds."""
        return None

    @property
    def text_width(self) -> int | None:
        """Dimension of the text tower's tokens; None if it is unknown, or if there is no such tower."""
        return None

    @property
    def image_width(self) -> int | None:
        """Dimension of the image tower's tokens; None if it is unknown, or if the tower has none."""
        return None

    def downloads(self) -> Iterator[Download]:
        """Yield the weights that loading the model fetches from the hub."""
        yield from ()
