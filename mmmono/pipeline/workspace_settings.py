"""Settings that several analyses share, as dataclasses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from mmmono.core.errors import ConfigError
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.losses import Allowance
from mmmono.modality.random_sets import Match, check_match
from mmmono.pipeline.partition_rules import PartitionRule
from mmmono.pipeline.scoring import ScoreSettings
from mmmono.pipeline.training_settings import TrainingSettings
from mmmono.pipeline.typed import read_settings


@dataclass(frozen=True)
class FeatureSettings:
    """Settings of the section `features` that all feature sets share.

    Attributes:
        normalize: whether embeddings are L2-normalized on reading.
    """

    normalize: bool


@dataclass(frozen=True)
class ExtractionSection:
    """Settings of the section `extraction`; see `ExtractionSettings` and `Allowance`, which check them.

    Attributes:
        batch_size: pairs per forward pass; None for a size that suits the device.
        workers: processes that read and decode; None for a number that suits the device.
        devices: GPUs that encode, each with a process of its own; −1 for all of them. On a CPU, so many processes.
        precision: precision of the encoders, or `auto`: fp16 on a GPU, else 32.
        dtype: type in which embeddings are stored.
        resize: what resizes images, `pillow` or `torch`.
        max_skipped: share of unreadable pairs that is tolerated.
        max_broken_shards: number of shards that may be missing because they cannot be read to their end.
    """

    batch_size: int | None
    workers: int | None
    devices: int
    precision: str | int
    dtype: str
    resize: str
    max_skipped: float
    max_broken_shards: int

    def __post_init__(self) -> None:
        if self.devices < 1 and self.devices != -1:
            raise ValueError(f"devices={self.devices} is neither a number of devices nor -1, which means all GPUs")

    def on(self, device: str) -> ExtractionSettings:
        """Return the settings of an extraction on a device. Raises ConfigError if one is invalid."""
        precision = str(self.precision)
        if precision == "auto":
            precision = "fp16" if device.startswith("cuda") else "32"
        allowance = Allowance(self.max_skipped, self.max_broken_shards)
        return ExtractionSettings(self.batch_size, self.workers, precision, self.dtype, allowance, self.resize)


@dataclass(frozen=True)
class ImageSettings:
    """Settings of the section `images`.

    Attributes:
        cache: gigabytes of images from a network that are kept on disk; 0 keeps none.
    """

    cache: float

    def __post_init__(self) -> None:
        if not 0 <= self.cache < math.inf:
            raise ValueError(f"cache={self.cache} must be a number of gigabytes: 0 keeps nothing")


@dataclass(frozen=True)
class RandomSets:
    """The setting `random_sets`, of analyses that compare a class of features with random ones.

    Attributes:
        random_sets: what a random set has in common with the class, besides its size.
    """

    random_sets: Match

    def __post_init__(self) -> None:
        check_match(self.random_sets)


class WorkspaceSettings:
    """Settings that several analyses share, as dataclasses; each section is read and checked on its first use.

    Args:
        cfg: the composed configuration.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._cfg = cfg

    @cached_property
    def features(self) -> FeatureSettings:
        """Settings that all feature sets share. Raises ConfigError if one is invalid."""
        return read_settings(self._cfg, "features", FeatureSettings)

    @cached_property
    def extraction(self) -> ExtractionSection:
        """Settings of the extraction. Raises ConfigError if one is of the wrong type."""
        return read_settings(self._cfg, "extraction", ExtractionSection)  # part_of is read by the command extract

    @cached_property
    def images(self) -> ImageSettings:
        """Settings of reading images again. Raises ConfigError if one is invalid."""
        return read_settings(self._cfg, "images", ImageSettings)

    @cached_property
    def training(self) -> TrainingSettings:
        """Settings of training. Raises ConfigError if one is invalid."""
        return read_settings(self._cfg, "training", TrainingSettings)

    @cached_property
    def mds(self) -> ScoreSettings:
        """Settings of the modality dominance score. Raises ConfigError if one is invalid."""
        return read_settings(self._cfg, "mds", ScoreSettings)

    @cached_property
    def partition(self) -> PartitionRule:
        """The rule that classifies features. Raises ConfigError if its settings are invalid."""
        try:
            rule: PartitionRule = instantiate(self._cfg.partition)
        except InstantiationException as error:
            raise ConfigError(f"partition.{error.__cause__ or error}") from error
        return rule

    @cached_property
    def random_sets(self) -> Match:
        """What random sets have in common with the class that they are compared with. Raises ConfigError if invalid."""
        return read_settings(self._cfg, "", RandomSets).random_sets
