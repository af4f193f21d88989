"""Embeddings of single samples, computed once each and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float, Int64
from torch import Tensor

from mmmono.core.progress import progress_bar

CHUNK = 512  # samples a file: what an interrupt loses at most


class EmbeddingCache:
    """Embeddings of one modality by row, in `<folder>/<first free number>.npz` files of some rows each.

    Args:
        folder: where they lie; whatever determines them, the data and the embedder, must be part of its name.
        compute: embeds samples given by their rows.
        title: of the progress bar.
    """

    def __init__(self, folder: Path, compute: Callable[[Sequence[int]], Float[Tensor, "rows dim"]], title: str) -> None:
        self.folder = folder
        self._compute = compute
        self._title = title

    def get(self, rows: Int64[Tensor, " rows"]) -> Float[Tensor, "rows dim"]:
        """Embeddings in the order of `rows`, which may repeat; what is not there yet is computed and kept."""
        wanted = rows.unique().tolist()
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            known, table = self._read()
            missing = sorted(set(wanted) - set(known.tolist()))
            if missing:
                with progress_bar() as bar:
                    task = bar.add_task(self._title, total=len(missing))
                    for start in range(0, len(missing), CHUNK):
                        chunk = missing[start : start + CHUNK]
                        self._write(chunk)
                        bar.advance(task, len(chunk))
                known, table = self._read()
        order = torch.from_numpy(np.argsort(known))
        position = torch.searchsorted(torch.from_numpy(known)[order], rows)
        return table[order[position]]

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.npz"))

    def _read(self) -> tuple[np.ndarray, Tensor]:
        parts = [np.load(file) for file in self._files()]
        if not parts:
            return np.empty(0, np.int64), torch.empty(0, 0)
        return np.concatenate([p["rows"] for p in parts]), torch.from_numpy(
            np.concatenate([p["embeddings"] for p in parts])
        )

    def _write(self, rows: Sequence[int]) -> None:
        embeddings = self._compute(rows).numpy()
        temporary = self.folder / f".{os.getpid()}.tmp"
        with temporary.open("wb") as file:
            np.savez(file, rows=np.asarray(rows, np.int64), embeddings=embeddings)
        temporary.replace(self.folder / f"{len(self._files()):06d}.npz")
