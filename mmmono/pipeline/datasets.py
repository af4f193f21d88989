"""Dataset options (`dataset=`): the source of pairs of each option, and its splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import ConfigError, MmmonoError
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.data import CocoPairs, PairSource, WebDatasetPairs
from mmmono.data.captions import CaptionChoice
from mmmono.data.coco_files import CocoSplit
from mmmono.data.opening import ShardOpener
from mmmono.data.pairs import LEAST_SELECT, SplitShares, check_limit
from mmmono.data.remote_settings import RemoteSettings
from mmmono.data.sample_pairs import SampleReading
from mmmono.features import FeatureStore, FeatureView, split_view
from mmmono.features.grouping import Grouping, GroupNumbers
from mmmono.features.selection import Split
from mmmono.features.synthetic import ANSWERS, SyntheticParameters, identity, write_synthetic
from mmmono.pipeline.apart import check_shards_apart
from mmmono.pipeline.downloads import CC3M_PAIRS, Download, cc3m_download
from mmmono.pipeline.model import Model
from mmmono.pipeline.typed import taken_from


@dataclass(kw_only=True, frozen=True)
class Dataset(ABC):
    """Base class of dataset options.

    Attributes:
        split: the split to evaluate on.
        limit: maximum number of pairs; None for all.
        label: metadata column with class labels, for classification; None if there is none.
        train_fraction: share of groups in the training split, for datasets split by a hash.
        select_fraction: share of groups in the split `select`, by which training is stopped and settings are compared; if
            the dataset has its own splits, a share of its training split.
        split_seed: seed of that hash.
        group: metadata column that is equal for pairs that are not independent; None: the source's groups, as of an image.
        near_duplicates: cosine of image embeddings from which on pairs are one group; None: not compared.
    """

    split: Split = "val"
    limit: int | None = None
    label: str | None = None
    train_fraction: float = 0.7
    select_fraction: float = 0.1
    split_seed: int = 0
    group: str | None = None
    near_duplicates: float | None = None

    def __post_init__(self) -> None:
        self.check(self.split)
        _ = self.grouping  # checks its settings
        if not self.native_splits and self.train_fraction + self.select_fraction >= 1:
            raise ConfigError(
                f"dataset.train_fraction={self.train_fraction} and dataset.select_fraction={self.select_fraction} leave "
                "nothing for the split val: lower one of them"
            )
        check_limit(self.limit)

    @property
    def native_splits(self) -> bool:
        """Whether the source has its own train and val splits; otherwise a hash of the keys splits it."""
        return True

    @property
    def modality_names(self) -> ModalityNames:
        """What the two sides of a pair are called."""
        return IMAGE_AND_TEXT

    @property
    def grouping(self) -> Grouping:
        """Which pairs are one group. Raises ConfigError if the settings are invalid."""
        return Grouping(self.group, self.near_duplicates)

    @abstractmethod
    def source(self, split: Split) -> PairSource:
        """Return the source that contains a split; the same source for all splits if they are hash splits."""

    @property
    def embedded(self) -> bool:
        """Whether a model made the embeddings."""
        return True

    def maker(self, model: Model) -> Model:
        """Return the model that made the embeddings; one that was not chosen has the name that they bring along."""
        return model

    def check_images(self, split: Split) -> None:  # noqa: B027 - most kinds have nothing to check
        """Raise ConfigError or DataError if it is known, before any work, that the pairs have no images."""

    def check(self, split: str) -> None:
        """Raise ConfigError if there is no such split."""
        splits = ("train", "select", "val") if self.native_splits else ("train", "select", "val", "all")
        if split not in splits:
            raise ConfigError(f"dataset.split={split} is none of this dataset's: choose {', '.join(splits)}")

    def whole_split(self, setting: str = "auto") -> Split:
        """Resolve a setting `split`: `auto` means the dataset's split if it is native, and all pairs otherwise.

        Raises:
            ConfigError: there is no such split.
        """
        if setting == "auto":
            return self.split if self.native_splits else "all"
        self.check(setting)
        return cast(Split, setting)

    def downloads(self, split: Split) -> Iterator[Download]:
        """Yield the files of a split that are streamed from the hub."""
        yield from ()

    def expected_pairs(self, split: Split) -> int | None:
        """Number of pairs in the source that contains a split; None if unknown without reading it."""
        try:
            return len(self.source(split))
        except TypeError:
            return self.limit

    def feature_store(self, artifacts: Artifacts, model: str) -> Artifact | None:
        """Return the feature store if the dataset consists of embeddings; None if these must be extracted.

        Args:
            artifacts: the artifacts root.
            model: name of the selected model.

        Raises:
            ConfigError: the embeddings were made by another model.
        """
        return None

    def opened(self, store: Artifact) -> FeatureStore:
        """Open the feature store."""
        return FeatureStore(store.path)

    def dim_of(self, dim: int | None) -> int | None:
        """Width of the embeddings, given that of the model; None if it is unknown before extraction."""
        return dim

    def source_split(self, split: Split) -> Split:
        """Split that has the same source: `select` is a part of the source's training split if it has its own splits."""
        return "train" if self.native_splits and split == "select" else split

    @property
    def name(self) -> str:
        """Name of the option, for titles and artifacts."""
        return type(self).__name__.lower()

    @property
    def shares(self) -> SplitShares:
        """Shares of the splits that a hash makes; of the training split alone if the source has its own splits."""
        if self.native_splits:
            return SplitShares(self.split_seed, 1 - self.select_fraction, self.select_fraction)
        return SplitShares(self.split_seed, self.train_fraction, self.select_fraction)

    def divided(self, split: Split) -> bool:
        """Whether a hash divides the source that contains a split."""
        if self.native_splits:
            return split == "select" or (split == "train" and self.select_fraction > 0)
        return split != "all"

    def split_recipe(self, split: Split) -> dict[str, Any]:
        """Recipe entries that determine which pairs of `source(split)` a split has, and their groups."""
        if not self.divided(split):
            return self.grouping.recipe()
        shares = {
            "seed": self.split_seed, "train": self.shares.train, "select": self.shares.select, "least_select": LEAST_SELECT,
        }  # fmt: skip
        return {"shares": shares, **self.grouping.recipe()}

    def view(self, store: FeatureStore, split: Split, codes: GroupNumbers | None = None) -> FeatureView:
        """Select the rows of a split in a store made from `source(split)`.

        Args:
            store: the store.
            split: the split.
            codes: number of each pair's group if images were compared; see `near_duplicates`.
        """
        return split_view(store, split if self.divided(split) else "all", self.shares, self.grouping, codes)


@dataclass(kw_only=True, frozen=True)
class Remote(Dataset, RemoteSettings):
    """Base class of options for datasets that may be on remote servers; see also `RemoteSettings`.

    Attributes:
        cache: folder for copies of all remote shards; `True`: the folder `cache_root`; `False`: no copies; None: copies
            of validation splits only, in `cache_root`.
        cache_root: folder for copies if `cache` is not a folder.
    """

    cache: str | bool | None = None
    cache_root: str | None = None

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        RemoteSettings.__post_init__(self)

    def opener(self, split: Split) -> ShardOpener:
        """Return what opens the shards of a split."""
        return ShardOpener(settings=taken_from(self, RemoteSettings), cache=self.cache_folder(split))

    def cache_folder(self, split: Split) -> str | None:
        """Folder for copies of a split's remote shards; None if they are streamed every time."""
        if isinstance(self.cache, str):
            return self.cache
        cached = self.native_splits and split == "val" if self.cache is None else self.cache
        return self.cache_root if cached else None


@dataclass(kw_only=True, frozen=True)
class WebDataset(Remote, SampleReading):
    """`dataset=webdataset`: tar shards of images and captions; see `WebDatasetPairs` and `SampleReading`.

    Attributes:
        shards: patterns of all shards, or of those of the training split.
        val_shards: patterns of the validation split's shards; None to split `shards` by a hash of the keys.
    """

    shards: str | Sequence[str]
    val_shards: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        Remote.__post_init__(self)
        SampleReading.__post_init__(self)
        if self.val_shards is not None:
            check_shards_apart(self.shards, self.val_shards)

    @property
    def native_splits(self) -> bool:
        """Whether validation shards are given."""
        return self.val_shards is not None

    def source(self, split: Split) -> PairSource:
        """Return the source of the split's shards."""
        shards = self.val_shards if split == "val" and self.val_shards is not None else self.shards
        return WebDatasetPairs(
            shards if isinstance(shards, str) else list(shards),
            taken_from(self, SampleReading),
            self.opener(split),
            self.limit,
        )


@dataclass(kw_only=True, frozen=True)
class CC3M(Remote):
    """`dataset=cc3m`: the shards on the hub, or a local copy of them in `root`."""

    root: str | None = None

    def source(self, split: Split) -> WebDatasetPairs:
        """Return the source of the split's shards, from the hub or a local copy."""
        return WebDatasetPairs.cc3m("val" if split == "val" else "train", self.root, self.opener(split), self.limit)

    def downloads(self, split: Split) -> Iterator[Download]:
        """Yield the split's shards, unless there is a local copy."""
        if self.root is not None:
            return
        source = None
        with suppress(MmmonoError):  # without a token there is no source; the features then report the error
            source = self.source(split)
        yield cc3m_download(split, self.limit, source, self.cache_folder(split) is not None)

    def expected_pairs(self, split: Split) -> int:
        """Published number of pairs in the split, at most `limit`."""
        pairs = CC3M_PAIRS["val" if split == "val" else "train"]
        return min(pairs, self.limit or pairs)


@dataclass(kw_only=True, frozen=True)
class COCO(Dataset):
    """`dataset=coco`: a local copy of COCO in `root`."""

    root: str
    year: int = 2017
    captions: CaptionChoice = "first"

    def source(self, split: Split) -> PairSource:
        """Return the source of the split's images with captions and instance labels."""
        return CocoPairs(
            CocoSplit(self.root, "val" if split == "val" else "train", self.year),
            captions=self.captions,
            limit=self.limit,
        )


@dataclass(kw_only=True, frozen=True)
class Synthetic(Dataset, SyntheticParameters):
    """`dataset=synthetic`: synthetic embeddings from a known dictionary (ground truth), without images."""

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        SyntheticParameters.__post_init__(self)
        if self.limit is not None:
            raise ConfigError("dataset.limit has no meaning for dataset=synthetic: set dataset.pairs")

    @property
    def parameters(self) -> SyntheticParameters:
        """The parameters alone, from which the pairs follow."""
        return taken_from(self, SyntheticParameters)

    @property
    def native_splits(self) -> bool:
        """False: split by a hash of the number of the pair, or of its group."""
        return False

    @property
    def embedded(self) -> bool:
        """False: they are computed from the truth."""
        return False

    def dim_of(self, dim: int | None) -> int:
        """Width of the synthetic embeddings."""
        return self.dim

    def feature_store(self, artifacts: Artifacts, model: str) -> Artifact:
        """Return the store with the ground truth, made unless it exists."""
        parameters = self.parameters
        recipe = {"synthetic": identity(parameters), "answers": list(ANSWERS)}
        return artifacts.build("features", "synthetic", recipe, lambda folder: write_synthetic(folder, parameters))

    def expected_pairs(self, split: Split) -> int:
        """Number of synthetic pairs, in all splits together."""
        return self.pairs

    def check_images(self, split: Split) -> None:
        """Raise ConfigError: synthetic pairs have no images."""
        self.source(split)

    def source(self, split: Split) -> PairSource:
        """Raise ConfigError: synthetic pairs have no images."""
        raise ConfigError("dataset=synthetic has embeddings alone, no images: use mds, certainty, ablation or validate")
