"""`dataset=store`: embeddings that exist already, as a feature store or as two files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import ConfigError
from mmmono.core.modality_names import ModalityNames
from mmmono.data import PairSource
from mmmono.data.store_pairs import StorePairs
from mmmono.features import FeatureStore
from mmmono.features.embedding_files import EmbeddingFiles
from mmmono.features.selection import Split
from mmmono.features.store import content_fingerprint
from mmmono.pipeline.datasets import Dataset


@dataclass(kw_only=True, frozen=True)
class ExistingStore(Dataset):
    """`dataset=store`: a feature store that already exists, or two files of embeddings.

    Attributes:
        path: folder of the store; None if files are given.
        image, text, metadata: see `EmbeddingFiles`.
        modalities: what the sides of a pair are called, that of `image` first; see `ModalityNames`.
    """

    path: str | None = None
    image: str | None = None
    text: str | None = None
    metadata: str | None = None
    modalities: Sequence[str] = ("image", "text")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.modality_names  # checks them
        if self.limit is not None:
            raise ConfigError("dataset.limit has no meaning for dataset=store, whose pairs are extracted already")
        if (self.path is None) == (self.image is None) or (self.image is None) != (self.text is None):
            raise ConfigError(
                "dataset=store wants either dataset.path=, a folder with img_emb/ and text_emb/, or both dataset.image= and "
                "dataset.text=, .npy or .safetensors files"
            )
        if self.path is not None and self.metadata is not None:
            raise ConfigError(
                "dataset.metadata belongs to dataset.image and dataset.text: a store has its own metadata/"
            )

    @property
    def native_splits(self) -> bool:
        """False: split by a hash of keys or image paths."""
        return False

    @property
    def modality_names(self) -> ModalityNames:
        """What the sides are called. Raises ConfigError if `modalities` are not two different names."""
        return ModalityNames.of(self.modalities)

    @property
    def store(self) -> FeatureStore:
        """The feature store in `path`. Raises StoreError if there is none."""
        assert self.path is not None
        return FeatureStore(self.path)

    @property
    def files(self) -> EmbeddingFiles | None:
        """The files of embeddings; None if a store is given."""
        if self.image is None or self.text is None:
            return None
        return EmbeddingFiles(self.image, self.text, self.metadata)

    def feature_store(self, artifacts: Artifacts, model: str) -> Artifact:
        """Return the store; files are copied into one first. Raises ConfigError if another model made it."""
        if (files := self.files) is not None:
            files.check()
            recipe = {"embeddings": files.fingerprint(), "model": model}
            return artifacts.build("features", f"{model}-files", recipe, files.write)
        store = self.store
        made_by = store.manifest.model if store.manifest is not None else model
        if made_by != model:
            raise ConfigError(
                f"the store in dataset.path={self.path} was made by model {made_by}, not by {model}: "
                f"choose model={made_by}, or extract with model={model}"
            )
        return Artifact(store.path, {"store": self.fingerprint(), "model": model}, built=False)

    def dim_of(self, dim: int | None) -> int:
        """Width of the stored embeddings."""
        return self.store.dim if (files := self.files) is None else files.dim

    def fingerprint(self) -> str:
        """Digest of all embeddings and metadata."""
        return content_fingerprint(self.store.path) if (files := self.files) is None else files.fingerprint()

    def source(self, split: Split) -> PairSource:
        """Return the source of the images that the metadata refers to."""
        if (files := self.files) is not None:
            return StorePairs(files.frame(), files.folder, self.fingerprint())
        return StorePairs(self.store.metadata(), self.store.path, self.fingerprint())
