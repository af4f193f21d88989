"""Dataset options of files on this machine: `dataset=folder` and `dataset=table`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mmmono.data.listed_pairs import ListedPairs
from mmmono.data.listings import list_folder, list_table
from mmmono.data.tables import TableReading
from mmmono.features.selection import Split
from mmmono.pipeline.apart import check_folders_apart, check_tables_apart
from mmmono.pipeline.datasets import Dataset
from mmmono.pipeline.typed import taken_from


@dataclass(kw_only=True, frozen=True)
class Folder(Dataset, TableReading):
    """`dataset=folder`: images with a metadata file, or with captions in text files beside them; see `list_folder`.

    Attributes:
        root: folder of all images, or of those of the training split.
        val_root: folder of the validation split; None to split `root` by a hash of the keys.
        caption_lines: see `list_folder`.
    """

    root: str
    val_root: str | None = None
    caption_lines: bool = False

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        TableReading.__post_init__(self)
        if self.val_root is not None:
            check_folders_apart(self.root, self.val_root)

    @property
    def native_splits(self) -> bool:
        """Whether a folder of the validation split is given."""
        return self.val_root is not None

    def source(self, split: Split) -> ListedPairs:
        """Return the source of the split's images."""
        root = self.val_root if split == "val" and self.val_root is not None else self.root
        if root not in self._sources:
            reading = taken_from(self, TableReading)
            listing = list_folder(root, reading, self.caption_lines)
            self._sources[root] = ListedPairs(listing, "folder", reading, self.limit)
        return self._sources[root]

    @cached_property
    def _sources(self) -> dict[str, ListedPairs]:
        """Sources by their folders, which are listed once."""
        return {}


@dataclass(kw_only=True, frozen=True)
class Table(Dataset, TableReading):
    """`dataset=table`: a CSV, JSON lines or Parquet file of image paths and captions; see `list_table`.

    Attributes:
        path: table of all pairs, or of those of the training split.
        val_path: table of the validation split; None to split `path` by a hash of the keys.
        root: folder that paths in the tables belong to; None for the folder that each table lies in.
    """

    path: str
    val_path: str | None = None
    root: str | None = None

    def __post_init__(self) -> None:
        Dataset.__post_init__(self)
        TableReading.__post_init__(self)
        if self.val_path is not None:
            check_tables_apart(self.path, self.val_path)

    @property
    def native_splits(self) -> bool:
        """Whether a table of the validation split is given."""
        return self.val_path is not None

    def source(self, split: Split) -> ListedPairs:
        """Return the source of the split's table."""
        path = self.val_path if split == "val" and self.val_path is not None else self.path
        if path not in self._sources:
            reading = taken_from(self, TableReading)
            self._sources[path] = ListedPairs(list_table(path, self.root, reading), "table", reading, self.limit)
        return self._sources[path]

    @cached_property
    def _sources(self) -> dict[str, ListedPairs]:
        """Sources by their tables, which are read once."""
        return {}
