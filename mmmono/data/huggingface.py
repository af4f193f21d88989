"""Pairs of a dataset that the library `datasets` opens: on the Hugging Face Hub, in a folder of files, or in a file."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from mmmono.core.errors import BrokenPartError, ConfigError, DataError
from mmmono.core.extras import need
from mmmono.core.files import visible_files
from mmmono.data.captions import choose_captions, image_key, label_or_empty, without_caption
from mmmono.data.hub_dataset import HubDataset, check_apart, short_line
from mmmono.data.images import decode_image
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair, check_limit
from mmmono.data.row_images import image_bytes, image_file
from mmmono.data.tables import CAPTION_COLUMNS, IMAGE_COLUMNS, TableReading, texts_in

PART = 1024  # rows that one process reads at a time, unless the dataset is streamed
BATCH = 32  # rows of a stream that are in memory together
# Files of WebDataset shards become columns by their extensions.
IMAGES = tuple(dict.fromkeys(("image", "images", "img", "jpg", "jpeg", "png", "webp", *IMAGE_COLUMNS)))
CAPTIONS = (*CAPTION_COLUMNS, "txt")
READING = 3  # part of the fingerprint; raise it whenever pairs or labels of the same rows change
NO_ROW = "there is no such row"


Row: TypeAlias = Mapping[str, Any]


class HuggingFacePairs(PairSource):
    """Rows of a dataset as pairs; the key of a pair is the split and the number of its row.

    Args:
        dataset: the rows.
        reading: columns of images and captions.
        limit: number of pairs that `extract_features` takes, from the first on; None takes all.
        apart: slices of training and of validation rows that may have none in common; None: there is one only. They are
            compared when the dataset is opened, which tells how many rows 90 % of them are.

    Raises:
        ConfigError: the package `datasets` is missing, or a setting is invalid.
    """

    name = "huggingface"

    def __init__(
        self,
        dataset: HubDataset,
        reading: TableReading | None = None,
        limit: int | None = None,
        apart: tuple[str, str] | None = None,
    ) -> None:
        need("dataset=huggingface", "datasets")
        check_limit(limit)
        self.dataset = dataset
        self.reading = reading or TableReading()
        self.limit = limit
        self.apart = apart
        self.remote = dataset.streaming and dataset.path is None

    def fingerprint(self) -> str:
        """Digest of the dataset's version on the hub, or of a folder's or file's content, and of the settings."""
        content = self.dataset.content or f"{self.dataset.id} {self._builder.config.name} {self._builder.hash}"
        how = (self.dataset.split, self.dataset.config, self.dataset.streaming, self.reading.identity, PART, READING)
        return hashlib.sha256(repr((content, how)).encode()).hexdigest()[:16]

    def parts(self) -> list[str]:
        """Names of runs of rows or, if it is streamed, of its files. Raises ConfigError if a column is not there."""
        _ = self._columns
        if self.dataset.streaming:
            return [f"{self.dataset.split}/{shard:05d}" for shard in range(self._rows.num_shards)]
        return [f"{self.dataset.split}/{start:08d}" for start in range(0, len(self._rows), PART)]

    def watch(self) -> None:
        """See `PairSource.watch`. Raises DataError if a folder or file was changed since this object first looked at it."""
        _ = self.dataset.content
        super().watch()
        self.dataset.check_content()

    def local_files(self, part: int) -> Sequence[Path]:
        """Image files of the part's rows; all that is streamed of a folder or file. Else rows are in the library's cache."""
        path, folder = self.dataset.path, self.dataset.folder
        if self.dataset.streaming and path is not None:
            return [file for file in visible_files(folder) if file.is_file()] if folder is not None else [path]
        if folder is None:
            return ()
        column = self._rows.with_format("arrow")[part * PART : (part + 1) * PART][self._columns[0]]
        if pa.types.is_struct(column.type) and "path" in column.type.names:
            column = pc.struct_field(column, "path")  # without reading images that lie beside it
        paths = column.to_pylist() if pa.types.is_string(column.type) else []
        return [image_file(path, folder) for path in paths if path]

    def __len__(self) -> int:
        if self.reading.captions == "all":
            raise TypeError("how many captions the images have is not known without reading them")
        if "_rows" in self.__dict__ and not self.dataset.streaming:
            return len(self._rows)
        split = (self._builder.info.splits or {}).get(self.dataset.split)
        if split is None or not split.num_examples:
            raise TypeError(f"{self.dataset.id} does not say how many rows {self.dataset.split} has")
        return int(split.num_examples)

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Read the rows of a part. Raises BrokenPartError if its file cannot be read to its end."""
        name, position = self.parts()[part], 0
        try:
            for row in self._part(part):
                yield from self._pairs(self._key(part, position), row)
                position += 1
        except Exception as error:  # each kind of file has a reader of its own
            raise BrokenPartError(
                f"{self.dataset.id}: {name}", f"stops at row {position} ({short_line(error)})"
            ) from error

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one pair again. Raises DataError if there is none with this key, or it cannot be read."""
        (found,) = self.fetch_many([(key, locator)])
        if isinstance(found, SkippedPair):
            raise DataError(f"{self.dataset.id} has no readable pair {key!r}: {found.reason}")
        return found

    def fetch_many(self, requests: Sequence[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
        """Read pairs again, those of a streamed file in one pass over it; see `PairSource.fetch_many`."""
        places = [self._place(key) for key, _ in requests]
        rows = self._streamed(places) if self.dataset.streaming else map(self._row, places)
        for (key, _), row in zip(requests, rows, strict=True):
            yield self._again(key, row)

    def group(self, key: str) -> str:
        """Key of the row, so that all captions of its image fall into one split."""
        return image_key(key)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to open the dataset itself, without the rows that are open here."""
        opened = ("_rows", "_builder", "_columns")
        return {name: value for name, value in self.__dict__.items() if name not in opened}

    def _again(self, key: str, row: Row | str) -> ImageTextPair | SkippedPair:
        if isinstance(row, str):
            return SkippedPair(key, row)
        reason = NO_ROW
        for pair in self._pairs(image_key(key), row):
            if isinstance(pair, ImageTextPair) and pair.key == key:
                return pair
            reason = pair.reason if isinstance(pair, SkippedPair) else "there is no such caption"
        return SkippedPair(key, reason)

    def _key(self, part: int, position: int) -> str:
        if self.dataset.streaming:
            return f"{self.dataset.split}/{part:05d}-{position:07d}"
        return f"{self.dataset.split}/{part * PART + position:08d}"

    def _place(self, key: str) -> tuple[int, int] | None:
        """Part and position of a pair; None if the key is not of this source."""
        number = image_key(key).removeprefix(f"{self.dataset.split}/")
        part, dash, position = number.partition("-")
        if not part.isdigit() or bool(dash) != self.dataset.streaming or (dash and not position.isdigit()):
            return None
        place = (int(part), int(position)) if dash else divmod(int(part), PART)
        return place if place[0] < len(self.parts()) else None

    def _row(self, place: tuple[int, int] | None) -> Row | str:
        """Return the row at a place, or the reason that there is none."""
        number = -1 if place is None else place[0] * PART + place[1]
        try:
            return dict(self._rows[number]) if 0 <= number < len(self._rows) else NO_ROW
        except Exception as error:  # each kind of file has a reader of its own
            return f"unreadable row ({short_line(error)})"

    def _streamed(self, places: Sequence[tuple[int, int] | None]) -> list[Row | str]:
        """Return the row at each place, or the reason that there is none, from one pass over each part."""
        rows: dict[tuple[int, int], Row] = {}
        broken: dict[int, str] = {}
        needed: dict[int, set[int]] = defaultdict(set)
        for place in filter(None, places):
            needed[place[0]].add(place[1])
        for part, positions in needed.items():
            try:
                for position, row in enumerate(self._part(part)):
                    if position in positions:
                        rows[part, position] = row
                    if position >= max(positions):
                        break
            except Exception as error:  # each kind of file has a reader of its own
                broken[part] = f"unreadable row ({short_line(error)})"
        return [NO_ROW if place is None else rows.get(place, broken.get(place[0], NO_ROW)) for place in places]

    def _part(self, part: int) -> Iterator[dict[str, Any]]:
        if self.dataset.streaming:
            # Iterating by rows would divide the shard once more among the processes of a DataLoader.
            for batch in self._rows.shard(num_shards=self._rows.num_shards, index=part).iter(batch_size=BATCH):
                for values in zip(*batch.values(), strict=True):
                    yield dict(zip(batch, values, strict=True))
            return
        for number in range(part * PART, min((part + 1) * PART, len(self._rows))):
            yield dict(self._rows[number])

    def _pairs(self, key: str, row: Mapping[str, Any]) -> Iterator[ImageTextPair | SkippedPair]:
        image_column, caption_column = self._columns
        value = row.get(caption_column)
        captions = list(value) if isinstance(value, list | tuple) else texts_in(value)
        chosen = choose_captions(key, captions, self.reading.captions, self.reading.seed)
        if not chosen:
            yield SkippedPair(key, without_caption(captions))
            return
        try:
            data = image_bytes(row.get(image_column), self.dataset.folder)
            image = decode_image(data)
        except DataError as error:
            yield SkippedPair(key, str(error))
            return
        labels = {name: text for name in self.reading.label_keys if (text := self._label(name, row.get(name)))}
        for pair_key, caption in chosen:
            yield ImageTextPair(pair_key, image, caption, labels, encoded=data)

    def _label(self, name: str, value: Any) -> str:
        feature: Any = (self._rows.features or {}).get(name)
        if hasattr(feature, "int2str") and isinstance(value, int):
            value = feature.int2str(value) if value >= 0 else None  # -1 stands for no label, as in many test splits
        return label_or_empty(value)

    @cached_property
    def _columns(self) -> tuple[str, str]:
        """Columns of images and captions. Raises ConfigError if they are not there."""
        names = self._rows.column_names or list(next(iter(self._rows.take(1).iter(batch_size=1)), {}))
        features = self._rows.features or {}
        images = [name for name in names if type(features.get(name)).__name__ == "Image"]
        reading = self.reading
        if reading.image_column is None and images:
            known = next((name for name in IMAGES if name in images), images[0] if len(images) == 1 else None)
            if known is None:
                raise ConfigError(
                    f"{self.dataset.id} has several columns of images, {', '.join(images)}: choose one with "
                    "dataset.image_column="
                )
            reading = replace(reading, image_column=known)
        return reading.columns(names, self.dataset.id, IMAGES, CAPTIONS)

    @cached_property
    def _rows(self) -> Any:
        """The rows, downloaded first unless they are streamed; images as bytes."""
        import datasets

        rows = self.dataset.rows()
        if self.apart is not None:
            check_apart(*self.apart, {name: split.num_examples for name, split in (rows.info.splits or {}).items()})
        for name, feature in (rows.features or {}).items():
            if isinstance(feature, datasets.Image):
                rows = rows.cast_column(name, datasets.Image(decode=False))
        return rows

    @cached_property
    def _builder(self) -> Any:
        """What `datasets` knows of the dataset before it downloads it."""
        return self.dataset.builder()
