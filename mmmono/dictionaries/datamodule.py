"""Data module that feeds whole batches of paired features to training, without a Python loop over samples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import lightning as L
import numpy as np
import torch

from mmmono.core.ranges import check_whole
from mmmono.dictionaries.parallel import place
from mmmono.dictionaries.pools import CHUNK_ROWS, PairedBatch, Pools, RowReader, check_batch_size, whole_pool
from mmmono.features.selection import FeatureView


class ShuffledBatches:
    """Shuffled batches of pairs; their order depends only on the seed and the epoch. Each iteration is one epoch.

    Each epoch shuffles chunks of consecutive rows, fills a shuffle buffer ("pool") with as many chunks as fit, and
    shuffles the rows within the pool. Data that fits into one pool is read once, stays on the device and is fully
    shuffled every epoch. For larger data, a thread reads the next pool while training uses the current one; the two
    pools are allocated once. `state_dict` holds the position, so that a resumed run continues with the same batches.

    Args:
        reader: reads the pairs to train on, onto the device that trains.
        batch_size: pairs per batch and process; an incomplete last batch is dropped.
        seed: seed of the order.
        pool_rows: pairs per pool, rounded to whole batches and chunks.
        rank, world_size: this process and the number of processes that share an epoch; this process takes every
            `world_size`-th batch.

    Raises:
        ConfigError: the view has fewer pairs than one batch of all processes.
    """

    def __init__(
        self,
        reader: RowReader,
        batch_size: int,
        seed: int = 0,
        pool_rows: int = 1 << 19,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_batches(batch_size, rank, world_size)
        check_whole("pool_rows", pool_rows)
        check_batch_size(len(reader.view), batch_size, world_size)
        self.view = reader.view
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.num_chunks = math.ceil(len(reader.view) / CHUNK_ROWS)
        self.pool_rows = whole_pool(pool_rows, batch_size)
        self.resident: PairedBatch | None = None
        self._reader = reader
        self._pools = Pools(reader, self.pool_rows)
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        return len(self.view) // self.batch_size // self.world_size

    def state_dict(self) -> dict[str, int]:
        """Epoch and position of the next batch."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a saved position."""
        self.epoch, self.position = state["epoch"], state["position"]

    def close(self) -> None:
        """Stop reading ahead and free the pools."""
        self._pools.close()
        self.resident = None

    def __iter__(self) -> Iterator[PairedBatch]:
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        for batch in self.batches_from(self.epoch, self.position):
            self.position += 1
            yield batch

    def batches_from(self, epoch: int, first: int) -> Iterator[PairedBatch]:
        """Yield an epoch's batches of this process from position `first` on."""
        chunks, pool_seeds = self._order(epoch)
        batches_a_pool = self.pool_rows // self.batch_size
        for number, pool_seed in enumerate(pool_seeds):
            positions = self._needed(number, first)
            if not positions:
                continue
            more = any(self._needed(later, first) for later in range(number + 1, len(pool_seeds)))
            pool = self._pool(epoch, number, chunks, more)
            shuffle = torch.Generator().manual_seed(int(pool_seed))
            order = torch.randperm(len(pool.image), generator=shuffle).to(pool.image.device)
            for position in positions:
                start = (position * self.world_size + self.rank - number * batches_a_pool) * self.batch_size
                rows = order[start : start + self.batch_size]
                yield PairedBatch(pool.image[rows], pool.text[rows])

    def _order(self, epoch: int) -> tuple[list[int], list[int]]:
        """Return the order of an epoch's chunks and the shuffle seed of each of its pools."""
        generator = np.random.default_rng([self.seed, epoch])
        chunks = generator.permutation(self.num_chunks)
        pool_seeds = generator.integers(1 << 62, size=math.ceil(len(self.view) / self.pool_rows))
        # The short last chunk of the view goes last, so that every pool but the last is full.
        return [*chunks[chunks != self.num_chunks - 1].tolist(), self.num_chunks - 1], pool_seeds.tolist()

    def _needed(self, number: int, first: int) -> list[int]:
        """Positions, from `first` on, of this process's batches in pool `number`."""
        batches_a_pool = self.pool_rows // self.batch_size
        return [
            b // self.world_size
            for b in range(number * batches_a_pool, (number + 1) * batches_a_pool)
            if b % self.world_size == self.rank and first <= b // self.world_size < len(self)
        ]

    def _pool(self, epoch: int, number: int, chunks: list[int], more: bool) -> PairedBatch:
        """Return a pool of an epoch and start reading the following one.

        If the epoch needs no `more` pools, the following one is the first of the next epoch.
        """
        if len(self.view) <= self.pool_rows:
            if self.resident is None:
                self.resident = self._reader.fill(self._reader.allocate(len(self.view)), range(self.num_chunks))
            return self.resident
        a_pool = self.pool_rows // CHUNK_ROWS
        pool = self._pools.take((epoch, number), chunks[number * a_pool : (number + 1) * a_pool])
        epoch, number = (epoch, number + 1) if more else (epoch + 1, 0)
        chunks = chunks if more else self._order(epoch)[0]
        self._pools.read_ahead((epoch, number), chunks[number * a_pool : (number + 1) * a_pool])
        return pool


class SequentialBatches:
    """Batches of a view's pairs in order, for validation.

    Args:
        reader: reads the rows.
        batch_size: pairs per batch and process.
        rank, world_size: this process and the number of processes that share the pairs; this process takes every
            `world_size`-th batch. All have the same number of batches; the last may be short or empty.
    """

    def __init__(self, reader: RowReader, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check_batches(batch_size, rank, world_size)
        self.reader = reader
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return math.ceil(len(self.reader.view) / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[PairedBatch]:
        return map(self.at, range(len(self)))

    def at(self, number: int) -> PairedBatch:
        """Return this process's batch of this number."""
        start = (number * self.world_size + self.rank) * self.batch_size
        return self.reader.read_pair(start, min(start + self.batch_size, len(self.reader.view)))


def _check_batches(batch_size: int, rank: int, world_size: int) -> None:
    check_whole("batch_size", batch_size)
    check_whole("world_size", world_size)
    check_whole("rank", rank, least=0, most=world_size - 1)


class PairedFeatures(L.LightningDataModule):
    """Training and validation pairs of feature stores.

    Args:
        train: training pairs.
        val: validation pairs.
        batch_size: pairs per batch and process.
        normalize: L2-normalize embeddings when they are read.
        seed: seed of the training order.
        pool_rows: pairs per shuffle pool. The device holds the whole training set if it fits into one pool, else two
            pools.
    """

    def __init__(
        self,
        train: FeatureView,
        val: FeatureView,
        batch_size: int = 4096,
        normalize: bool = True,
        seed: int = 0,
        pool_rows: int = 1 << 19,
    ) -> None:
        super().__init__()
        check_whole("batch_size", batch_size)
        check_whole("pool_rows", pool_rows)
        self.train, self.val = train, val
        self.batch_size = batch_size
        self.normalize = normalize
        self.seed = seed
        self.pool_rows = pool_rows
        self._batches: ShuffledBatches | None = None

    def _reader(self, view: FeatureView) -> RowReader:
        """Return a reader of a view's rows, onto the trainer's device and in its precision."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        double = self.trainer is not None and self.trainer.precision == "64-true"
        return RowReader(view, self.normalize, device, torch.float64 if double else torch.float32)

    def train_dataloader(self) -> ShuffledBatches:
        """This process's shuffled training batches."""
        self._batches = ShuffledBatches(self._reader(self.train), self.batch_size, self.seed, self.pool_rows, *place())
        return self._batches

    def val_dataloader(self) -> SequentialBatches:
        """This process's validation batches, in order."""
        return SequentialBatches(self._reader(self.val), self.batch_size, *place())

    def teardown(self, stage: str) -> None:
        """Free the pools."""
        if self._batches is not None:
            self._batches.close()
