"""A dataset that the library `datasets` opens: on the Hugging Face Hub, in a folder of files, or in a file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmmono.core.errors import ConfigError, DataError
from mmmono.core.files import user_path
from mmmono.core.fingerprints import file_fingerprint, folder_fingerprint
from mmmono.core.text import first_line
from mmmono.data.pairs import changed

# Names that `datasets` gives to the readers of single files.
READERS = {".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv"}


@dataclass(frozen=True)
class HubDataset:
    """Which rows of which dataset.

    Attributes:
        id: `organisation/name` on the hub, a folder of Parquet, Arrow, JSON, CSV, tar or image files, or one of READERS.
        split: the dataset's own name of the split; unless it is streamed, a slice such as `train[:10%]` too.
        config: the dataset's configuration (its "subset"); None for the default.
        revision: branch, tag or commit; None for the newest.
        streaming: whether rows are read from the hub as they are needed, instead of downloading all first.
    """

    id: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None
    streaming: bool = False

    @property
    def path(self) -> Path | None:
        """The folder or file; None for a dataset on the hub."""
        path = user_path(self.id)
        return path if path.exists() else None

    @property
    def folder(self) -> Path | None:
        """The folder; None for a dataset on the hub, and for a file."""
        return self.path if self.path is not None and self.path.is_dir() else None

    @cached_property
    def content(self) -> str | None:
        """Digest of the folder's files, or of the file, when it was first asked for; None for a dataset on the hub."""
        return self._content_now()

    def _content_now(self) -> str | None:
        if self.path is None:
            return None
        return file_fingerprint(self.path) if self.folder is None else folder_fingerprint(self.folder)

    def check_content(self) -> None:
        """Raise DataError if the folder or file holds anything else than it did."""
        if self.content is not None and self._content_now() != self.content:
            raise changed(self.id)

    def rows(self) -> Any:
        """Open the rows, downloaded first unless they are streamed.

        Raises:
            DataError: they cannot be opened, or the folder or file was changed since `content`.
        """
        import datasets

        rows = self._opened(datasets.load_dataset, split=self.split, streaming=self.streaming)
        try:
            self.check_content()
        except DataError:  # nobody is to find these rows as those of the other content
            if self._cache is not None:
                shutil.rmtree(self._cache, ignore_errors=True)
            raise
        return rows

    def builder(self) -> Any:
        """What `datasets` knows of the dataset before it downloads it. Raises DataError if it cannot be opened."""
        import datasets

        return self._opened(datasets.load_dataset_builder)

    @property
    def _cache(self) -> Path | None:
        """Where the library keeps the rows of a folder or file; None for where it keeps all others.

        It takes files of the same name and time of change for the same, which a copy of another version may have.
        """
        import datasets

        return None if self.content is None else Path(datasets.config.HF_DATASETS_CACHE) / "mmmono" / self.content

    def _opened(self, load: Any, **settings: Any) -> Any:
        where: str | None = self.id
        if self.folder is not None:
            where = str(self.folder)
        elif self.path is not None:
            if (where := READERS.get(self.path.suffix.lower())) is None:
                raise DataError(
                    f"dataset.id={self.id} is a file, but its name ends in none of {', '.join(READERS)}: give its folder"
                )
            settings["data_files"] = str(self.path)
        elif self.id.startswith((".", "/", "~")) or self.id.count("/") > 1:
            raise DataError(
                f"dataset.id={self.id} is no folder or file, and no id on the hub, which looks like organisation/name"
            )
        revision = self.revision if self.path is None else None
        cache = None if self._cache is None else str(self._cache)
        try:
            return load(where, self.config, revision=revision, cache_dir=cache, **settings)
        except Exception as error:  # datasets passes on the errors of readers, the hub client and the system
            raise DataError(f"dataset.id={self.id} cannot be opened: {short_line(error)}; {_remedy(error)}") from error


def check_apart(rows: str, val_rows: str, counts: Mapping[str, int]) -> None:
    """Raise ConfigError if two slices, such as train[:90%] and train[5000:], have rows in common.

    Args:
        rows, val_rows: of training and validation.
        counts: number of rows of each split of the dataset; nothing is compared where it is not known.
    """
    from datasets import ReadInstruction

    try:
        train, val = (ReadInstruction.from_spec(slices).to_absolute(counts) for slices in (rows, val_rows))
    except (AssertionError, KeyError, ValueError):  # a slice that the library refuses, which it tells when it opens it
        return
    shared = sum(
        max(0, min(one.to, other.to) - max(one.from_, other.from_))
        for one in train
        for other in val
        if one.splitname == other.splitname
    )
    if shared:
        raise ConfigError(
            f"dataset.val_rows={val_rows} has {shared:,} rows of dataset.rows={rows}: give others, or leave "
            "dataset.val_rows out: a hash then divides the pairs"
        )


def short_line(error: BaseException) -> str:
    """First line of an error's message without its full stop, cut to 240 characters; see `first_line`."""
    return first_line(error)[:240].rstrip(".")


def _remedy(error: BaseException) -> str:
    text = str(error).lower()
    if "gated" in text:
        return "accept its terms on its page, and log in with 'hf auth login' or HF_TOKEN"
    if isinstance(error, ConnectionError) or "couldn't reach" in text or "offline" in text:
        return "check the network, or open it once where there is one; what was downloaded opens without"
    if "load_from_disk" in text:
        write = "datasets.load_from_disk(folder).to_parquet('parquet/train.parquet')"
        return f"write it as Parquet into a folder of its own, {write}, and give dataset.id=parquet"
    if "script" in text:
        return "code of a dataset is not run: give its conversion to Parquet, dataset.revision=refs/convert/parquet"
    if "split" in text:
        return "choose one with dataset.rows="
    if "config" in text:
        return "choose one with dataset.config="
    return "check dataset.id, and log in with 'hf auth login' or HF_TOKEN if it is private"
