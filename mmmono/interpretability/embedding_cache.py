"""Disk cache of the embeddings of single samples."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.errors import DataError
from mmmono.core.locks import locked
from mmmono.core.progress import progress_bar

CHUNK = 512  # samples per file; an interrupt loses at most these


class EmbeddingCache:
    """Cache of one modality's embeddings by row, in files `<folder>/<number>.npz` of up to `CHUNK` rows.

    Args:
        folder: folder of the files; its name must identify the data and the embedder.
        compute: embeds the samples of the given rows, in order. A row of NaN marks a sample that cannot be embedded,
            which is not cached.
        title: title of the progress bar.
    """

    def __init__(self, folder: Path, compute: Callable[[Sequence[int]], Float[Tensor, "rows dim"]], title: str) -> None:
        self.folder = folder
        self._compute = compute
        self._title = title

    def get(self, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """Return the embeddings of `rows`, which may repeat; compute and cache missing ones.

        Samples that cannot be embedded are NaN.

        Raises:
            DataError: nothing is cached, and none of the samples can be embedded.
        """
        needed = rows.unique().tolist()
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock"):
            known, table = self._read()
            missing = sorted(set(needed) - set(known.tolist()))
            if missing:
                with progress_bar() as bar:
                    task = bar.add_task(self._title, total=len(missing))
                    for start in range(0, len(missing), CHUNK):
                        chunk = missing[start : start + CHUNK]
                        self._write(chunk)
                        bar.advance(task, len(chunk))
                known, table = self._read()
        if not len(known):
            raise DataError(f"{self._title}: none of the {len(needed)} samples could be embedded")
        order = np.argsort(known)
        place = np.searchsorted(known, rows.numpy(), sorter=order).clip(max=len(known) - 1)
        found = torch.from_numpy(order[place])
        there = torch.from_numpy(known)[found] == rows
        return torch.where(there[:, None], table[found], torch.nan)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.npz"))

    def _read(self) -> tuple[np.ndarray[Any, Any], Tensor]:
        parts = []
        for file in self._files():
            try:
                with np.load(file) as part:
                    parts.append((part["rows"], part["embeddings"]))
            except (EOFError, ValueError, KeyError, zipfile.BadZipFile):  # broken file: compute its rows again
                file.unlink()
        if not parts:
            return np.empty(0, np.int64), torch.empty(0, 0)
        rows, embeddings = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return rows, torch.from_numpy(embeddings)

    def _write(self, rows: Sequence[int]) -> None:
        embeddings = self._compute(rows).numpy()
        there = ~np.isnan(embeddings).any(1)
        if not there.any():
            return
        temporary = self.folder / f".{os.getpid()}.tmp"
        with temporary.open("wb") as file:
            np.savez(file, rows=np.asarray(rows, np.int64)[there], embeddings=embeddings[there])
        last = max((int(file.stem) for file in self._files()), default=-1)
        temporary.replace(self.folder / f"{last + 1:06d}.npz")
