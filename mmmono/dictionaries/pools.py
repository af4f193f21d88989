"""Double buffer for training pairs: a thread fills one pool while training uses the other."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.features.rows import prepare
from mmmono.features.selection import FeatureView
from mmmono.features.store import MODALITIES, Modality

EXPECTED = 8  # chunks that a store on another machine is asked for before they are needed
CHUNK_ROWS = 1024  # consecutive rows per read: enough for fast sequential reads, few enough to shuffle well


class PairedBatch(NamedTuple):
    """Image and text embeddings of the same pairs."""

    image: Float[Tensor, "batch dim"]
    text: Float[Tensor, "batch dim"]


class RowReader:
    """Read rows of a view onto a device, converted and normalized for training.

    Args:
        view: the pairs.
        normalize: L2-normalize embeddings.
        device: device to read to, on which batches of these rows stay.
        dtype: float32, or float64 to normalize and train in double precision.
    """

    def __init__(
        self,
        view: FeatureView,
        normalize: bool = True,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.view = view
        self.normalize = normalize
        self.device = torch.device(device)
        self.dtype = dtype

    def read(self, modality: Modality, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Read rows `start` to `stop` (exclusive) of the view; empty if `stop <= start`."""
        if stop <= start:
            return torch.empty(0, self.view.dim, device=self.device, dtype=self.dtype)
        stored = self.view.read(modality, start, stop)
        if self.device.type == "cuda":
            stored = stored.pin_memory()
        values = prepare(stored, self.normalize, self.device, self.view.origin(modality, start))
        if self.dtype == torch.float32:
            return values
        values = stored.to(self.device, self.dtype)
        return values / torch.linalg.vector_norm(values, dim=1, keepdim=True) if self.normalize else values

    def read_pair(self, start: int, stop: int) -> PairedBatch:
        """Read rows `start` to `stop` (exclusive) of both modalities."""
        return PairedBatch(*(self.read(modality, start, stop) for modality in MODALITIES))

    def allocate(self, rows: int) -> PairedBatch:
        """Allocate uninitialized tensors for `rows` pairs."""
        return PairedBatch(
            *(torch.empty(rows, self.view.dim, device=self.device, dtype=self.dtype) for _ in MODALITIES)
        )

    def fill(self, room: PairedBatch, chunks: Sequence[int], stop: threading.Event | None = None) -> PairedBatch:
        """Read chunks of `CHUNK_ROWS` rows into `room` and return its filled rows; setting `stop` ends it early."""
        filled = 0
        spans = [(chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, len(self.view))) for chunk in chunks]
        for place, (first, last) in enumerate(spans):
            if stop is not None and stop.is_set():
                break
            for later in spans[place : place + 1 + EXPECTED]:
                self.view.expect(*later)
            for modality, out in zip(MODALITIES, room, strict=True):
                out[filled : filled + last - first].copy_(self.read(modality, first, last))
            filled += last - first
        return PairedBatch(*(out[:filled] for out in room))


class Pools:
    """Double buffer: `take` returns a filled pool, `read_ahead` fills the other one in a thread.

    Args:
        reader: reads the rows.
        rows: pairs per pool.
    """

    def __init__(self, reader: RowReader, rows: int) -> None:
        self.reader = reader
        self.rows = rows
        self._rooms: list[PairedBatch] = []
        self._ahead: _Reading | None = None

    def take(self, key: Hashable, chunks: Sequence[int]) -> PairedBatch:
        """Return a pool of these chunks, reading it now unless it was read ahead under the same key.

        The pool returned before may be overwritten.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.key == key:
            self._rooms.reverse()
            return ahead.result()
        if ahead is not None:
            ahead.cancel()
        return self.reader.fill(self._room(0), chunks)

    def read_ahead(self, key: Hashable, chunks: Sequence[int]) -> None:
        """Start filling the pool that `take` will return for `key`, unless one is already being filled."""
        if self._ahead is None:
            self._room(0)
            self._ahead = _Reading(key, self.reader, self._room(1), chunks)

    def close(self) -> None:
        """Stop reading and free the pools."""
        if self._ahead is not None:
            self._ahead.cancel()
        self._ahead = None
        self._rooms.clear()

    def _room(self, index: int) -> PairedBatch:
        while len(self._rooms) <= index:
            self._rooms.append(self.reader.allocate(self.rows))
        return self._rooms[index]


class _Reading:
    """A thread that fills one pool."""

    def __init__(self, key: Hashable, reader: RowReader, room: PairedBatch, chunks: Sequence[int]) -> None:
        self.key = key
        self._stop = threading.Event()
        self._outcome: list[PairedBatch | BaseException] = []
        on_gpu = reader.device.type == "cuda"
        # GPU work that was queued earlier may still read this pool; wait for it before overwriting the pool.
        free = torch.cuda.current_stream(reader.device).record_event() if on_gpu else None
        outcome, stop = self._outcome, self._stop

        def work() -> None:
            try:
                stream: Any = torch.cuda.Stream(reader.device) if on_gpu else None
                if stream is not None:
                    stream.wait_event(free)
                with torch.cuda.stream(stream) if stream is not None else nullcontext():
                    outcome.append(reader.fill(room, chunks, stop))
                if stream is not None:
                    stream.synchronize()
            except BaseException as error:  # raised again by `result`
                outcome[:] = [error]

        # A daemon thread, so that an interrupted run does not wait for a whole pool; it ends after its current chunk.
        self._thread = threading.Thread(target=work, name="read ahead", daemon=True)
        self._thread.start()
        self._finalize = weakref.finalize(self, _end, stop, self._thread)

    def result(self) -> PairedBatch:
        """Wait for the thread and return the filled pool; re-raises the thread's exception."""
        self._thread.join()
        (outcome,) = self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def cancel(self) -> None:
        """Stop the thread after its current chunk and wait for it."""
        self._finalize()


def _end(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    thread.join()


def whole_pool(pool_rows: int, batch_size: int) -> int:
    """Round `pool_rows` down to whole batches and whole chunks (at least one of each): no batch spans two pools."""
    unit = math.lcm(CHUNK_ROWS, batch_size)
    return max(unit, pool_rows // unit * unit)


def check_batch_size(pairs: int, batch_size: int, world_size: int) -> None:
    """Raise ConfigError if there are too few pairs for one batch per process."""
    if pairs < batch_size * world_size:
        raise ConfigError(
            f"training.batch_size={batch_size} (× {world_size} processes) is more than the {pairs} pairs of the "
            f"training split: set training.batch_size={2 ** int(math.log2(max(2, pairs // world_size)))} or less"
        )


def check_pool(pairs: int, batch_size: int, pool_rows: int) -> None:
    """Raise ConfigError if rounding to whole batches and chunks makes pools much larger than was asked for."""
    rows = whole_pool(pool_rows, batch_size)
    held = pairs if pairs <= rows else 2 * rows
    if held > 2 * max(pool_rows, CHUNK_ROWS, batch_size):
        raise ConfigError(
            f"training.batch_size={batch_size} would keep {held:,} pairs in memory, though training.pool_rows={pool_rows}: "
            f"pools are whole batches and whole blocks of {CHUNK_ROWS:,} pairs, so of {rows:,} pairs at least; give "
            f"training.batch_size={2 ** int(math.log2(batch_size))}, or another power of two"
        )
