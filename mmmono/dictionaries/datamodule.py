"""Feeds whole batches of paired features to training, without a Python loop over samples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import lightning as L
import numpy as np
import torch

from mmmono.core.errors import ConfigError
from mmmono.dictionaries.parallel import place
from mmmono.dictionaries.pools import CHUNK_ROWS, PairedBatch, Pools, RowReader
from mmmono.features.selection import FeatureView


class ShuffledBatches:
    """Endless epochs of shuffled batches whose order depends on the seed and the epoch alone.

    The rows are cut into chunks, each epoch shuffles the chunks, fills a pool with as many as fit, and shuffles the
    rows within the pool. A set that fits into one pool is read once and stays in memory, on the device, fully
    shuffled every epoch. Of a larger one, the next pool is read while the present one is trained on; there are two,
    allocated once. `state_dict` holds the position, so that a resumed run sees the very batches it would have.

    Args:
        view: pairs to train on.
        batch_size: pairs a batch and process; a last short batch is left out.
        seed: of the order.
        normalize: L2-normalize embeddings.
        pool_rows: pairs a pool.
        device: where batches are made.
        rank, world_size: of the processes that share each epoch, this one takes every `world_size`-th batch.
        dtype: of the embeddings; float32, or float64.

    Raises:
        ConfigError: the view has no pairs for a single batch.
    """

    def __init__(
        self,
        view: FeatureView,
        batch_size: int,
        seed: int = 0,
        normalize: bool = True,
        pool_rows: int = 1 << 19,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_batch_size(len(view), batch_size, world_size)
        self.view = view
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.num_chunks = math.ceil(len(view) / CHUNK_ROWS)
        self.pool_rows = whole_pool(pool_rows, batch_size)
        self.resident: PairedBatch | None = None
        self._reader = RowReader(view, normalize, device, dtype)
        self._pools = Pools(self._reader, self.pool_rows)
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        return len(self.view) // self.batch_size // self.world_size

    def state_dict(self) -> dict[str, int]:
        """Where in which epoch the next batch lies."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a position."""
        self.epoch, self.position = state["epoch"], state["position"]

    def close(self) -> None:
        """Stop reading ahead and free the pools."""
        self._pools.close()
        self.resident = None

    def __iter__(self) -> Iterator[PairedBatch]:
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        for batch in self._batches(self.epoch, self.position):
            self.position += 1
            yield batch

    def _batches(self, epoch: int, first: int) -> Iterator[PairedBatch]:
        chunks, pool_seeds = self._order(epoch)
        batches_a_pool = self.pool_rows // self.batch_size
        wanted = [self._wanted(number, first) for number in range(len(pool_seeds))]
        for number, (pool_seed, positions) in enumerate(zip(pool_seeds, wanted, strict=True)):
            if not positions:
                continue
            pool = self._pool(epoch, number, chunks, more=any(wanted[number + 1 :]))
            shuffle = torch.Generator().manual_seed(int(pool_seed))
            order = torch.randperm(len(pool.image), generator=shuffle).to(pool.image.device)
            for position in positions:
                start = (position * self.world_size + self.rank - number * batches_a_pool) * self.batch_size
                rows = order[start : start + self.batch_size]
                yield PairedBatch(pool.image[rows], pool.text[rows])

    def _order(self, epoch: int) -> tuple[list[int], list[int]]:
        """An epoch's order of the chunks, and the seed of each of its pools."""
        generator = np.random.default_rng([self.seed, epoch])
        chunks = generator.permutation(self.num_chunks)
        pool_seeds = generator.integers(1 << 62, size=math.ceil(len(self.view) / self.pool_rows))
        # The short last chunk of the view goes last, so that every pool but the last is full.
        return [*chunks[chunks != self.num_chunks - 1].tolist(), self.num_chunks - 1], pool_seeds.tolist()

    def _wanted(self, number: int, first: int) -> list[int]:
        """Positions from `first` on of this process's batches in a pool."""
        batches_a_pool = self.pool_rows // self.batch_size
        return [
            b // self.world_size
            for b in range(number * batches_a_pool, (number + 1) * batches_a_pool)
            if b % self.world_size == self.rank and first <= b // self.world_size < len(self)
        ]

    def _pool(self, epoch: int, number: int, chunks: list[int], more: bool) -> PairedBatch:
        """A pool of an epoch; the one that follows, which is the next epoch's first if there are no more, is read ahead."""
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


def whole_pool(pool_rows: int, batch_size: int) -> int:
    """The largest whole number of batches and of chunks within `pool_rows`, so that batches never straddle pools."""
    unit = math.lcm(CHUNK_ROWS, batch_size)
    return max(unit, pool_rows // unit * unit)


def check_batch_size(pairs: int, batch_size: int, world_size: int) -> None:
    """Raise ConfigError where a batch for each process takes more pairs than there are."""
    if pairs < batch_size * world_size:
        raise ConfigError(
            f"training.batch_size={batch_size} (× {world_size} processes) is more than the {pairs} pairs of the "
            f"training split: set training.batch_size={2 ** int(math.log2(max(2, pairs // world_size)))} or less"
        )


class SequentialBatches:
    """The pairs of a view in order, for validation.

    Args:
        reader: of the rows.
        batch_size: pairs a batch and process.
        rank, world_size: of the processes that share the pairs, this one takes every `world_size`-th batch; all have
            equally many, though the last ones may be short or empty.
    """

    def __init__(self, reader: RowReader, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.reader = reader
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return math.ceil(len(self.reader.view) / (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[PairedBatch]:
        for step in range(len(self)):
            start = (step * self.world_size + self.rank) * self.batch_size
            yield self.reader.read_pair(start, min(start + self.batch_size, len(self.reader.view)))


class PairedFeatures(L.LightningDataModule):
    """Training and validation pairs of feature stores.

    Args:
        train: pairs to fit on.
        val: pairs to validate on.
        batch_size: pairs a batch and process.
        normalize: L2-normalize embeddings on reading.
        seed: of the order.
        pool_rows: pairs a pool; a smaller training set stays resident on the device, of a larger one two pools do.
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
        self.train, self.val = train, val
        self.batch_size = batch_size
        self.normalize = normalize
        self.seed = seed
        self.pool_rows = pool_rows
        self._batches: ShuffledBatches | None = None

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.trainer and self.trainer.precision == "64-true" else torch.float32

    def train_dataloader(self) -> ShuffledBatches:
        """Shuffled batches, this process's share of them."""
        rank, world_size = place()
        self._batches = ShuffledBatches(
            self.train,
            self.batch_size,
            self.seed,
            self.normalize,
            self.pool_rows,
            self._device,
            rank,
            world_size,
            self._dtype,
        )
        return self._batches

    def val_dataloader(self) -> SequentialBatches:
        """The validation pairs in order, this process's share of them."""
        reader = RowReader(self.val, self.normalize, self._device, self._dtype)
        return SequentialBatches(reader, self.batch_size, *place())

    def teardown(self, stage: str) -> None:
        """Free the pools."""
        if self._batches is not None:
            self._batches.close()
