"""`dataset=store`: embeddings that exist already, as a feature store, here or on another machine, or as two files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import ConfigError
from mmmono.core.files import user_path
from mmmono.core.modality_names import ModalityNames
from mmmono.data.blocks import BlockSettings
from mmmono.data.opening import ShardOpener
from mmmono.data.remote_folder import is_remote
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.store_pairs import StorePairs
from mmmono.features import FeatureStore
from mmmono.features.embedding_files import EmbeddingFiles
from mmmono.features.metadata import METADATA_VERSION
from mmmono.features.remote_store import RemoteStore
from mmmono.features.selection import Split
from mmmono.features.store import content_fingerprint, read_manifest
from mmmono.pipeline.datasets import Dataset
from mmmono.pipeline.model import UNNAMED, Model
from mmmono.pipeline.models import Unnamed
from mmmono.pipeline.typed import taken_from


@dataclass(kw_only=True, frozen=True)
class ExistingStore(Dataset, RemoteSettings):
    """`dataset=store`: a feature store that already exists, or two files of embeddings; see also `RemoteSettings`.

    Attributes:
        path: folder of the store, or the address of one on another machine; None if files are given.
        image, text, metadata: see `EmbeddingFiles`.
        cache: folder for what was read of a store on another machine; False: nothing is kept.
        cache_limit: gigabytes in that folder at most.
        modalities: what the sides of a pair are called, that of `image` first; see `ModalityNames`.
    """

    path: str | None = None
    image: str | None = None
    text: str | None = None
    metadata: str | None = None
    cache: str | bool = False
    cache_limit: float = 20.0
    modalities: Sequence[str] = ("image", "text")

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        RemoteSettings.__post_init__(self)
        if self.cache is True or self.cache == "":
            raise ConfigError(
                "dataset.cache=true names no folder: give one, or false to keep nothing of a remote store"
            )
        if not (math.isfinite(self.cache_limit) and self.cache_limit > 0):
            raise ConfigError(
                f"dataset.cache_limit={self.cache_limit} is a number of gigabytes: give one above 0, or dataset.cache=false "
                "to keep nothing"
            )
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
    def name(self) -> str:
        """Name of the option."""
        return "store"

    @property
    def native_splits(self) -> bool:
        """False: split by a hash of keys or image paths."""
        return False

    @cached_property
    def remote(self) -> RemoteStore | None:
        """The store on another machine, listed when it is first asked for; None if `path` is a folder or not given."""
        if self.path is None or not is_remote(self.path):
            return None
        return RemoteStore(self.path, taken_from(self, RemoteSettings))

    @property
    def reading(self) -> BlockSettings:
        """How a store on another machine is read."""
        folder = user_path(self.cache) if isinstance(self.cache, str) else None
        return BlockSettings(taken_from(self, RemoteSettings), folder, int(self.cache_limit * 1e9))

    @property
    def modality_names(self) -> ModalityNames:
        """What the sides are called. Raises ConfigError if `modalities` are not two different names."""
        return ModalityNames.of(self.modalities)

    @property
    def store(self) -> FeatureStore:
        """The feature store in the folder `path`. Raises StoreError if there is none."""
        assert self.path is not None
        return FeatureStore(user_path(self.path))

    @property
    def files(self) -> EmbeddingFiles | None:
        """The files of embeddings; None if a store is given."""
        if self.image is None or self.text is None:
            return None
        return EmbeddingFiles(self.image, self.text, self.metadata)

    def maker(self, model: Model) -> Model:
        """Return the model; if none was chosen, called what the store says that made it."""
        if self.path is None or not isinstance(model, Unnamed) or model.name != UNNAMED:
            return model
        if (remote := self.remote) is None:
            said = self.store.manifest
        else:
            said = None if remote.manifest is None else read_manifest(remote.manifest, remote.address)
        return model if said is None else replace(model, name=said.model)

    def feature_store(self, artifacts: Artifacts, model: str) -> Artifact:
        """Return the store; files are copied into one first. Raises ConfigError if another model made it."""
        if (files := self.files) is not None:
            name = f"{model}-files"
            recipe = {"embeddings": files.fingerprint(), "model": model, "metadata": METADATA_VERSION}
            if not artifacts.has("features", name, recipe):  # which were checked
                files.check()
            return artifacts.build("features", name, recipe, files.write)
        if (remote := self.remote) is not None:
            manifest = hashlib.sha256(remote.manifest).hexdigest()[:16] if remote.manifest is not None else None
            made_of = {"remote": remote.fingerprint, "manifest": manifest, "model": model}
            name = f"{model}-{remote.name}"
            made = artifacts.build("features", name, made_of, lambda folder: remote.write(folder, self.reading))
            self._check_model(self.opened(made), model)
            return made
        store = self.store
        self._check_model(store, model)
        assert isinstance(store.path, Path)
        return Artifact(store.path, {"store": self.fingerprint(), "model": model}, built=False)

    def _check_model(self, store: FeatureStore, model: str) -> None:
        """Raise ConfigError if a store says that another model made it."""
        made_by = store.manifest.model if store.manifest is not None else model
        if made_by != model:
            raise ConfigError(
                f"the store in dataset.path={self.path} was made by model {made_by}, not by {model}: "
                f"choose that model, or only call it so, model.name={made_by}, if nothing is to be embedded"
            )

    def opened(self, store: Artifact) -> FeatureStore:
        """Open the store; one on another machine with what was kept of it."""
        return FeatureStore(store.path, self.reading)

    def expected_pairs(self, split: Split) -> int | None:
        """Number of pairs by the headers of the embeddings; None for a store on another machine."""
        if self.remote is not None:
            return None
        return len(self.store) if (files := self.files) is None else files.pairs

    def dim_of(self, dim: int | None) -> int:
        """Width of the stored embeddings."""
        if self.remote is not None:
            return self.remote.header().dim
        return self.store.dim if (files := self.files) is None else files.dim

    def split_recipe(self, split: Split) -> dict[str, Any]:
        """Recipe entries of any dataset, and the version of reading keys and groups, which a store may not tell itself."""
        return {**super().split_recipe(split), "metadata": METADATA_VERSION}

    def fingerprint(self) -> str:
        """Digest of all embeddings and metadata; of a store on another machine, see `RemoteStore`."""
        if self.remote is not None:
            return self.remote.fingerprint
        if (files := self.files) is not None:
            return files.fingerprint()
        return content_fingerprint(self.store.path)

    def check_images(self, split: Split) -> None:
        """Raise DataError if the metadata names no image; that of a store on another machine is not read for this."""
        if self.remote is None:
            self.source(split).check_images()

    def source(self, split: Split) -> StorePairs:
        """Return the source of the images that the metadata refers to."""
        if (files := self.files) is not None:
            return StorePairs(files.frame(), files.folder, self.fingerprint(), self.opener)
        if (remote := self.remote) is not None:
            return StorePairs(remote.metadata(self.reading), remote.address, self.fingerprint(), self.opener)
        assert self.path is not None
        return StorePairs(self.store.metadata(), user_path(self.path), self.fingerprint(), self.opener)

    @property
    def opener(self) -> ShardOpener:
        """What opens images on other machines."""
        return ShardOpener(settings=taken_from(self, RemoteSettings))
