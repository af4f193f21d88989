"""Holds shuffled training pairs in memory: two preallocated pools, of which one is read while the other is trained on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmmono.features.rows import prepare
from mmmono.features.selection import FeatureView
from mmmono.features.store import MODALITIES, Modality

CHUNK_ROWS = 1024  # rows read together: long enough for sequential reading, short enough to mix well


class PairedBatch(NamedTuple):
    """Embeddings of the same pairs in both modalities."""

    image: Float[Tensor, "batch dim"]
    text: Float[Tensor, "batch dim"]


class RowReader:
    """Reads rows of a view as training takes them.

    Args:
        view: the pairs.
        normalize: L2-normalize embeddings.
        device: where the rows are wanted.
        dtype: float32, or float64 to normalize and train in double precision.
    """

    def __init__(
        self, view: FeatureView, normalize: bool, device: str | torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.view = view
        self.normalize = normalize
        self.device = torch.device(device)
        self.dtype = dtype

    def read(self, modality: Modality, start: int, stop: int) -> Float[Tensor, "rows dim"]:
        """Consecutive rows by their position in the view; none where `stop` is not above `start`."""
        if stop <= start:
            return torch.empty(0, self.view.dim, device=self.device, dtype=self.dtype)
        stored = self.view.read(modality, start, stop)
        if self.device.type == "cuda":
            stored = stored.pin_memory()
        values = prepare(stored, self.normalize, self.device, self.view.store.path)
        if self.dtype == torch.float32:
            return values
        values = stored.to(self.device, self.dtype)
        return values / torch.linalg.vector_norm(values, dim=1, keepdim=True) if self.normalize else values

    def read_pair(self, start: int, stop: int) -> PairedBatch:
        """Consecutive rows of both modalities."""
        return PairedBatch(*(self.read(modality, start, stop) for modality in MODALITIES))

    def allocate(self, rows: int) -> PairedBatch:
        """Room for so many pairs."""
        return PairedBatch(
            *(torch.empty(rows, self.view.dim, device=self.device, dtype=self.dtype) for _ in MODALITIES)
        )

    def fill(self, room: PairedBatch, chunks: Sequence[int], stop: threading.Event | None = None) -> PairedBatch:
        """Read chunks of `CHUNK_ROWS` rows, one after the other, into `room`, and return the part that is filled."""
        filled = 0
        for chunk in chunks:
            if stop is not None and stop.is_set():
                break
            first, last = chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, len(self.view))
            for modality, out in zip(MODALITIES, room, strict=True):
                out[filled : filled + last - first].copy_(self.read(modality, first, last))
            filled += last - first
        return PairedBatch(*(out[:filled] for out in room))


class Pools:
    """Two pools in turn: `take` gives one that is filled, `read_ahead` has the other filled by a thread meanwhile.

    Args:
        reader: of the rows.
        rows: pairs a pool.
    """

    def __init__(self, reader: RowReader, rows: int) -> None:
        self.reader = reader
        self.rows = rows
        self._rooms: list[PairedBatch] = []
        self._ahead: _Reading | None = None

    def take(self, key: Hashable, chunks: Sequence[int]) -> PairedBatch:
        """The pool of these chunks, read now unless it was read ahead under the same key; the last one taken is lost."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.key == key:
            self._rooms.reverse()
            return ahead.result()
        if ahead is not None:
            ahead.cancel()
        return self.reader.fill(self._room(0), chunks)

    def read_ahead(self, key: Hashable, chunks: Sequence[int]) -> None:
        """Start to fill the pool that will be taken next."""
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
        # What still reads from this pool on the GPU was queued before, and has to be over before it is filled anew.
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
            except BaseException as error:
                outcome[:] = [error]

        # A daemon, so that an interrupted run does not wait for a whole pool; at exit it ends after its present chunk.
        self._thread = threading.Thread(target=work, name="read ahead", daemon=True)
        self._thread.start()
        self._finalize = weakref.finalize(self, _end, stop, self._thread)

    def result(self) -> PairedBatch:
        """The filled pool; raises what reading it raised."""
        self._thread.join()
        (outcome,) = self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def cancel(self) -> None:
        """End before the pool is full."""
        self._finalize()


def _end(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    thread.join()
