"""Bytes of the images in rows that the library `datasets` opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec

from mmmono.core.errors import DataError

OUTSIDE = "its image lies outside the dataset's folder, all that a fingerprint sees: open a table with dataset=table"


def image_bytes(value: Any, folder: Path | None) -> bytes:
    """Return the bytes of an image in a row: bytes, or a mapping with them or with a path. Raises DataError if none.

    A path that a column names must be of the dataset's folder, since fingerprints know no other files. One in a mapping is
    what the library `datasets` made of an image: it may also lie in the library's cache, or on the hub.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        raise DataError("a list in place of the image: make a row of each image in it")
    path, folders = value, [] if folder is None else [folder]
    if isinstance(value, Mapping):
        if value.get("bytes"):
            return bytes(value["bytes"])
        path, folders = value.get("path"), [*folders, *_caches()]
    if not isinstance(path, str) or not path:
        raise DataError("no image")
    streamed, archive, file = "://" in path, _archive(path), image_file(path, folder)
    known = any(_lies_in(file, top) for top in folders)
    if streamed:  # the library's own way to name what it does not unpack
        known = isinstance(value, Mapping) and (archive.startswith("hf://") if folder is None else known)
    if not known:
        raise DataError(OUTSIDE)
    try:
        if streamed:
            with fsspec.open(path, "rb") as opened:
                return bytes(opened.read())
        return file.read_bytes()
    except FileNotFoundError as error:
        raise DataError("no image") from error
    except Exception as error:  # file systems raise errors of their own
        raise DataError(f"unreadable image file ({type(error).__name__})") from error


def image_file(path: str, folder: Path | None) -> Path:
    """Return the file that holds the image which a row calls by a path: it, or the archive that it lies in."""
    file = (folder or Path()).absolute() / _archive(path)
    return file.resolve() if ".." in file.parts else file


def _archive(path: str) -> str:
    """The last part of a chained path such as `zip://1.png::file:///a.zip`, which names what lies in it before."""
    return path.rpartition("::")[2].removeprefix("file://")


def _lies_in(file: Path, folder: Path) -> bool:
    """Whether a file is one of a folder's visible ones, by its path as given or with all links followed."""
    for path, top in ((file, folder.absolute()), (file.resolve(), folder.resolve())):
        if path.is_relative_to(top) and not any(name.startswith(".") for name in path.relative_to(top).parts):
            return True
    return False


def _caches() -> list[Path]:
    """Folders in which the library keeps files of datasets, of which it knows the origin."""
    from datasets import config
    from huggingface_hub import constants

    return [
        Path(config.HF_DATASETS_CACHE),
        Path(config.DOWNLOADED_DATASETS_PATH),
        Path(config.EXTRACTED_DATASETS_PATH),
        Path(constants.HF_HUB_CACHE),
    ]
