"""Lists of images with their captions, from a folder or a table, before any image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmmono.core.errors import ConfigError, DataError
from mmmono.core.files import user_path, visible_files
from mmmono.core.text import decode_text, escaped_bytes
from mmmono.data.captions import label_or_empty, lines_of
from mmmono.data.pairs import SkippedPair
from mmmono.data.tables import EMBEDDED, TableReading, read_table, texts_in

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
# Extensions of images, also of those that cannot be decoded here: they are then skipped with a reason, not passed over.
IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".tga"),
    *(".avif", ".heic", ".heif", ".jxl"),
)
FOLDER_LABEL = "folder"  # label of an image: the name of the folder that it lies in


@dataclass
class Listed:
    """An image with all its captions.

    Attributes:
        file: path of the image.
        captions: values of its caption column, in order; they are cleaned and chosen when the image is read.
        labels: class labels by name.
    """

    file: Path
    captions: list[object]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """All images of a folder or a table.

    Attributes:
        root: folder that relative paths belong to.
        images: in order.
        skipped: rows that name no image.
        tables: files that were read for it, by a name that does not depend on where they lie.
    """

    root: Path
    images: Sequence[Listed]
    skipped: Sequence[SkippedPair] = ()
    tables: Mapping[str, Path] = field(default_factory=dict)


def list_table(file: str, root: str | None, reading: TableReading) -> Listing:
    """List the images of a table; rows with one image are one image with several captions.

    Args:
        file: the table; see `read_table`.
        root: folder that paths in it belong to; None for the table's own.
        reading: its columns.

    Raises:
        DataError: the table is not there or broken, has no rows, or names web addresses.
        ConfigError: it lacks a column, or `root` is no folder.
    """
    path = user_path(file)
    if not path.is_file():
        raise DataError(
            f"dataset.path={file} is no file: give a table of paths and captions (.csv, .jsonl, .parquet, …)"
        )
    folder = path.parent if root is None else user_path(root)
    if not folder.is_dir():
        raise ConfigError(f"dataset.root={root} is no folder: give the one that the paths in {path.name} belong to")
    images: dict[str, Listed] = {}
    skipped = _add_rows(path, folder, reading, images)
    if not images:
        raise DataError(f"{path} lists no image: it needs a row for each")
    return Listing(folder, list(images.values()), skipped, {path.name: path})


def list_folder(root: str, reading: TableReading, caption_lines: bool = False) -> Listing:
    """List the images of a folder and the folders in it.

    If there is a `metadata.jsonl`, `.csv` or `.parquet`, as the library `datasets` has them for its `imagefolder`, the
    images are those that it names, by paths from where it lies. If there is none, all images are listed, with the
    caption in the `.txt` of the same name.

    Args:
        root: the folder.
        reading: columns of the metadata.
        caption_lines: each line of a `.txt` is a caption, instead of all of it.

    Raises:
        DataError: it is no folder, has no images, a metadata file is broken, or a text cannot be read.
        ConfigError: a metadata file lacks a column, or there is one although lines of `.txt` files are to be captions.
    """
    folder = user_path(root)
    if not folder.is_dir():
        raise DataError(f"dataset.root={root} is no folder: give one with images")
    files = sorted(visible_files(folder))
    tables = [file for file in files if file.name in METADATA]
    images: dict[str, Listed] = {}
    if tables:
        if caption_lines:
            raise ConfigError(
                f"dataset.caption_lines=true is for captions in .txt files, but {tables[0]} has those of these images: "
                "give a list of captions there"
            )
        skipped = [skip for table in tables for skip in _add_rows(table, table.parent, reading, images)]
        if not images:
            raise DataError(f"{tables[0]} lists no image: it needs a row for each")
        named = {table.relative_to(folder).as_posix(): table for table in tables}
        return Listing(folder, list(images.values()), skipped, named)
    texts = {file for file in files if file.suffix.lower() == ".txt" and file.is_file()}  # not a link to nothing
    for file in files:
        if file.suffix.lower() in IMAGES:
            caption = next(
                (text for text in (file.with_suffix(".txt"), file.with_suffix(".TXT")) if text in texts), None
            )
            captions = _captions_in(caption, caption_lines) if caption else []
            images[str(file)] = Listed(file, captions, _with_folder({}, file, reading))
    if not images:
        raise DataError(f"dataset.root={root} has no images ({', '.join(IMAGES)}) and no {' or '.join(METADATA)}")
    if not any(image.captions for image in images.values()):
        raise DataError(
            f"dataset.root={root} has {len(images)} images and not one caption: put a {METADATA[0]} with file_name and text "
            "there, or a .txt beside each image"
        )
    for name in reading.label_keys:
        if name != FOLDER_LABEL:
            raise ConfigError(
                f"dataset.label_keys: {name!r} needs a {METADATA[0]} in {root}; without one there is {FOLDER_LABEL}"
            )
    return Listing(folder, list(images.values()), (), {_below(text, folder): text for text in texts})


def _captions_in(file: Path, by_line: bool) -> list[object]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror or error}): make it readable, or remove it") from error
    return [*lines_of(content)] if by_line else [decode_text(content)]


def _add_rows(table: Path, folder: Path, reading: TableReading, images: dict[str, Listed]) -> list[SkippedPair]:
    """Add the rows of a table to the images, and return those that name none."""
    columns = read_table(table)
    with_folder = [name for name in reading.label_keys if name == FOLDER_LABEL and name not in columns]
    own = [name for name in reading.label_keys if name not in with_folder]
    image_column, caption_column = replace(reading, label_keys=own).columns(list(columns), str(table))
    skipped = []
    if EMBEDDED in columns[image_column][:1]:
        raise DataError(
            f"{table}: the column {image_column} holds the images themselves, not their paths: open it with "
            f"dataset=huggingface dataset.id={table}, or name a column of paths with dataset.image_column="
        )
    for row, (image, caption) in enumerate(zip(columns[image_column], columns[caption_column], strict=True)):
        name = _path_in(image)
        if not name:
            skipped.append(SkippedPair(f"{table.name}/row-{row}", f"no path in the column {image_column}"))
            continue
        if "://" in name:
            raise DataError(
                f"{table}, row {row}: {name[:80]} is an address on the web: download the images once, for example with "
                "img2dataset, and open what it writes with dataset=webdataset"
            )
        file = _place(folder, name)
        captions = list(caption) if isinstance(caption, list | tuple) else texts_in(caption)
        if (known := images.get(str(file))) is not None:
            known.captions.extend(captions)
            continue
        labels = {key: text for key in own if (text := label_or_empty(columns[key][row]))}
        images[str(file)] = Listed(file, captions, _with_folder(labels, file, reading))
    return skipped


def _place(folder: Path, name: str) -> Path:
    """Path of an image, also where a table of Windows separates folders by backslashes."""
    file, other = folder / name, folder / name.replace("\\", "/")
    return other if other != file and other.is_file() and not file.is_file() else file


def _path_in(value: Any) -> str:
    """Return the path in a column's value; Parquet files of `datasets` have it in a structure."""
    if isinstance(value, dict):
        value = value.get("path")
    return value.strip().replace("\x00", "") if isinstance(value, str) else ""


def _with_folder(labels: dict[str, str], file: Path, reading: TableReading) -> dict[str, str]:
    if FOLDER_LABEL in reading.label_keys and FOLDER_LABEL not in labels:
        return {**labels, FOLDER_LABEL: label_or_empty(escaped_bytes(file.parent.name))}
    return labels


def _below(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()
