"""`dataset=huggingface`: what the library `datasets` opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmmono.core.errors import ConfigError
from mmmono.data.hub_dataset import HubDataset
from mmmono.data.huggingface import HuggingFacePairs
from mmmono.data.tables import TableReading
from mmmono.features.selection import Split
from mmmono.pipeline.apart import check_rows_apart
from mmmono.pipeline.datasets import Dataset
from mmmono.pipeline.downloads import Download
from mmmono.pipeline.typed import taken_from

FILES = ("*.parquet", "*.arrow", "*.tar", "*.zip", "*.jsonl", "*.json", "*.csv", "*.jpg", "*.png")


@dataclass(kw_only=True, frozen=True)
class HuggingFace(Dataset, TableReading):
    """`dataset=huggingface`: a dataset on the Hugging Face Hub, a folder of files, or a file; see `HuggingFacePairs`.

    Attributes:
        id, config, revision, streaming: see `HubDataset`.
        rows: the dataset's own split with all pairs, or with those of the training split; see `HubDataset.split`.
        val_rows: its own validation split; None to split `rows` by a hash of the keys.
    """

    id: str
    config: str | None = None
    revision: str | None = None
    streaming: bool = False
    rows: str = "train"
    val_rows: str | None = None

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        TableReading.__post_init__(self)
        if not isinstance(self.streaming, bool):
            raise ConfigError(f"dataset.streaming={self.streaming} must be true or false")
        if self.val_rows is not None:
            check_rows_apart(self.rows, self.val_rows)

    @property
    def native_splits(self) -> bool:
        """Whether the dataset's own validation split is given."""
        return self.val_rows is not None

    def source(self, split: Split) -> HuggingFacePairs:
        """Return the source of the split's rows."""
        own = self.val_rows if split == "val" and self.val_rows is not None else self.rows
        wanted = HubDataset(self.id, own, self.config, self.revision, self.streaming)
        apart = None if self.val_rows is None else (self.rows, self.val_rows)
        return HuggingFacePairs(wanted, taken_from(self, TableReading), self.limit, apart)

    def downloads(self, split: Split) -> Iterator[Download]:
        """Yield the dataset's files, of all splits and configurations, unless it lies on this machine."""
        if HubDataset(self.id).path is None:
            yield Download(f"dataset {self.id}", self.id, "dataset", FILES, kept=not self.streaming)
