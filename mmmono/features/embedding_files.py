"""Two files of embeddings, one for each side of the pairs, as a feature store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open

from mmmono.core.errors import StoreError
from mmmono.core.files import user_path
from mmmono.core.fingerprints import files_fingerprint
from mmmono.core.text import message_of
from mmmono.data.remote_folder import is_remote
from mmmono.data.tables import check_table, read_table
from mmmono.features.array_files import read_header
from mmmono.features.metadata import as_text, with_keys

ROWS = 1 << 15  # copied at a time
TYPES = {
    "F16": "float16",
    "BF16": "float32",
    "F32": "float32",
    "F64": "float64",
}  # of safetensors, and as they are stored


@dataclass(frozen=True)
class EmbeddingFiles:
    """Embeddings of pairs in two files, whose rows belong together.

    Attributes:
        image, text: `.npy` arrays `[pairs, dim]`, or `.safetensors` with one such array, or `file.safetensors:name`.
        metadata: table with one row a pair, such as `.parquet`, `.csv` or `.jsonl`, in the same order; None if there is
            none, and pairs are called by their numbers.
    """

    image: str
    text: str
    metadata: str | None = None

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self._sides["image"].shape[1]

    @property
    def pairs(self) -> int:
        """Number of rows of the embeddings."""
        return self._sides["image"].shape[0]

    @property
    def folder(self) -> Path:
        """Folder that image paths in the metadata belong to."""
        return user_path(self.metadata or self.image).parent

    def check(self) -> None:
        """Raise StoreError unless both files are whole arrays of the same shape, and the metadata has as many rows."""
        image, text = self._sides["image"], self._sides["text"]
        if image.shape != text.shape:
            raise StoreError(
                f"dataset.image={self.image} holds {image.shape[0]} rows of {image.shape[1]}, and dataset.text="
                f"{self.text} {text.shape[0]} of {text.shape[1]}: row i of both must be one pair, embedded into one space"
            )
        if not image.shape[0]:
            raise StoreError(f"dataset.image={self.image} holds no pair")
        if (rows := _row_count(self, self.fingerprint())) != image.shape[0]:
            raise StoreError(
                f"dataset.metadata={self.metadata} has {rows} rows, and the embeddings {image.shape[0]}: row i "
                "of each must belong to pair i"
            )

    def fingerprint(self) -> str:
        """Digest of the whole content of all files."""
        files = {name: side.file for name, side in self._sides.items()}
        if self.metadata is not None:
            check_table(table := user_path(self.metadata))
            files[f"metadata{Path(self.metadata).suffix}"] = table
        return files_fingerprint(files) + "".join(f":{side.name}" for side in self._sides.values() if side.name)

    def frame(self) -> pd.DataFrame:
        """Return the metadata as text, with a unique `key` for each pair; see `read_metadata`."""
        if self.metadata is None:
            return pd.DataFrame({"key": _row_keys(self._sides["image"].shape[0])}, dtype=object)
        columns = read_table(user_path(self.metadata))
        rows = len(next(iter(columns.values()), ()))
        frame = with_keys(
            pd.DataFrame(
                {name: [as_text(value) for value in values] for name, values in columns.items()},
                dtype=object,
                index=range(rows),
            )
        )
        return frame if "key" in frame else frame.assign(key=_row_keys(rows))

    def write(self, directory: Path) -> None:
        """Write a feature store with the same embeddings to a folder."""
        for side, prefix in (("image", "img_emb"), ("text", "text_emb")):
            (directory / prefix).mkdir(parents=True, exist_ok=True)
            rows = self._sides[side]
            made = np.lib.format.open_memmap(
                directory / prefix / f"{prefix}_0.npy", mode="w+", dtype=self._dtype, shape=rows.shape
            )
            for start in range(0, rows.shape[0], ROWS):
                made[start : start + ROWS] = rows.read(start, min(start + ROWS, rows.shape[0]))
            made.flush()
        (directory / "metadata").mkdir(exist_ok=True)
        self.frame().to_parquet(directory / "metadata" / "metadata_0.parquet")

    @property
    def _dtype(self) -> np.dtype[Any]:
        """Stored type: the wider one of both sides."""
        return np.promote_types(self._sides["image"].dtype, self._sides["text"].dtype)

    @cached_property
    def _sides(self) -> dict[str, _Rows]:
        return {"image": _opened("image", self.image), "text": _opened("text", self.text)}


@lru_cache(maxsize=8)
def _row_count(files: EmbeddingFiles, fingerprint: str) -> int:
    """Number of rows of the metadata of files of this content, counted once: a plan of many steps asks for each."""
    return len(files.frame())


@dataclass(frozen=True)
class _Rows:
    """The array in a file; `name` is its name in a safetensors file."""

    file: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    name: str = ""

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Return some rows."""
        if not self.name:
            return np.asarray(np.load(self.file, mmap_mode="r")[start:stop])
        with safe_open(self.file, framework="pt") as opened:
            rows: torch.Tensor = opened.get_slice(self.name)[start:stop]
        return np.asarray((rows.float() if rows.dtype == torch.bfloat16 else rows).numpy())


def _opened(side: str, given: str) -> _Rows:
    """Read the header of a file. Raises StoreError unless it holds one array of rows."""
    what = f"dataset.{side}={given}"
    if is_remote(given):
        raise StoreError(
            f"{what} is on another machine: download it, or give a folder with img_emb/ and text_emb/ there as dataset.path="
        )
    path, _, name = given.partition(".safetensors:")
    file = user_path(path + (".safetensors" if name else ""))
    if not file.is_file():
        raise StoreError(f"{what} is no file: give a .npy or .safetensors file of embeddings, one row a pair")
    if file.suffix == ".npy":
        header = read_header(file).header
        return _Rows(file, (header.rows, header.dim), header.dtype)
    if file.suffix != ".safetensors":
        raise StoreError(f"{what} is neither .npy nor .safetensors: save it as one of them")
    try:
        with safe_open(file, framework="pt") as opened:
            found = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 - not iterable itself
            shapes = {key: (tuple(one.get_shape()), one.get_dtype()) for key, one in found.items()}
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{what} is no whole safetensors file ({message_of(error)})") from error
    arrays = [key for key, (shape, kind) in shapes.items() if len(shape) == 2 and kind in TYPES]
    chosen = name or (arrays[0] if len(arrays) == 1 else "")
    if chosen not in arrays:
        held = ", ".join(f"{key} {list(shape)} {kind}" for key, (shape, kind) in shapes.items())
        raise StoreError(
            f"{what} holds {held or 'nothing'}: "
            "name the array [pairs, dim] of floats that is meant, as file.safetensors:name"
        )
    rows, dim = shapes[chosen][0]
    return _Rows(file, (rows, dim), np.dtype(TYPES[shapes[chosen][1]]), chosen)


def _row_keys(rows: int) -> list[str]:
    """Keys of pairs that have no names of their own."""
    return [f"row-{row}" for row in range(rows)]
