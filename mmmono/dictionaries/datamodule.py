"""Feeds whole batches of paired features to training, without a Python loop over samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.distributed
from jaxtyping import Float
from torch import Tensor

from mmmono.core.errors import ConfigError
from mmmono.features.rows import prepare
from mmmono.features.selection import FeatureView
from mmmono.features.store import MODALITIES

CHUNK_ROWS = 1024  # rows read together: long enough for sequential reading, short enough to mix well


class PairedBatch(NamedTuple):
    """Embeddings of the same pairs in both modalities."""

    image: Float[Tensor, "batch dim"]
    text: Float[Tensor, "batch dim"]


class ShuffledBatches:
    """Endless epochs of shuffled batches whose order depends on the seed and the epoch alone.

    The rows are cut into chunks, each epoch shuffles the chunks, fills a pool with as many as fit, and shuffles the
    rows within the pool. A set that fits into one pool is read once and stays in memory, on the device, fully
    shuffled every epoch. `state_dict` holds the position, so that a resumed run sees the very batches it would have.

    Args:
        view: pairs to train on.
        batch_size: pairs a batch and process; a last short batch is left out.
        seed: of the order.
        normalize: L2-normalize embeddings.
        pool_rows: pairs held in memory.
        device: where batches are made.
        rank, world_size: of the processes that share each epoch, this one takes every `world_size`-th batch.
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
    ) -> None:
        if len(view) < batch_size * world_size:
            raise ConfigError(
                f"training.batch_size={batch_size} (× {world_size} processes) is more than the {len(view)} pairs of the "
                f"training split: set training.batch_size={2 ** int(math.log2(max(2, len(view) // world_size)))} or less"
            )
        self.view = view
        self.batch_size = batch_size
        self.seed = seed
        self.normalize = normalize
        self.device = device
        self.rank, self.world_size = rank, world_size
        self.num_chunks = math.ceil(len(view) / CHUNK_ROWS)
        # A pool is a whole number of batches and of chunks, so that batches never straddle pools.
        unit = math.lcm(CHUNK_ROWS, batch_size)
        self.pool_rows = max(unit, pool_rows // unit * unit)
        self.resident: PairedBatch | None = None
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

    def __iter__(self) -> Iterator[PairedBatch]:
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        for batch in self._batches(self.epoch, self.position):
            self.position += 1
            yield batch

    def _batches(self, epoch: int, first: int) -> Iterator[PairedBatch]:
        generator = np.random.default_rng([self.seed, epoch])
        chunks = generator.permutation(self.num_chunks)
        pool_seeds = generator.integers(1 << 62, size=math.ceil(len(self.view) / self.pool_rows))
        batches_a_pool = self.pool_rows // self.batch_size
        for number, pool_seed in enumerate(pool_seeds):
            wanted = [
                b // self.world_size
                for b in range(number * batches_a_pool, (number + 1) * batches_a_pool)
                if b % self.world_size == self.rank and first <= b // self.world_size < len(self)
            ]
            if not wanted:
                continue
            pool = self._pool(chunks, number)
            shuffle = torch.Generator().manual_seed(int(pool_seed))
            order = torch.randperm(len(pool.image), generator=shuffle).to(pool.image.device)
            for position in wanted:
                start = (position * self.world_size + self.rank - number * batches_a_pool) * self.batch_size
                rows = order[start : start + self.batch_size]
                yield PairedBatch(pool.image[rows], pool.text[rows])

    def _pool(self, chunks: np.ndarray[Any, Any], number: int) -> PairedBatch:
        if len(self.view) <= self.pool_rows:
            if self.resident is None:
                self.resident = self._read(np.arange(self.num_chunks))
            return self.resident
        # The short last chunk of the view goes last, so that every pool but the last is full.
        ordered = np.append(chunks[chunks != self.num_chunks - 1], self.num_chunks - 1)
        a_pool = self.pool_rows // CHUNK_ROWS
        return self._read(ordered[number * a_pool : (number + 1) * a_pool])

    def _read(self, chunks: np.ndarray[Any, Any]) -> PairedBatch:
        parts: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
        for chunk in chunks:
            start, stop = int(chunk) * CHUNK_ROWS, min((int(chunk) + 1) * CHUNK_ROWS, len(self.view))
            for modality in MODALITIES:
                values = self.view.read(modality, start, stop)
                parts[modality].append(prepare(values, self.normalize, self.device, self.view.store.path))
        return PairedBatch(*(torch.cat(parts[modality]) for modality in MODALITIES))


class SequentialBatches:
    """The pairs of a view in order, for validation."""

    def __init__(self, view: FeatureView, batch_size: int, normalize: bool = True, device: str | torch.device = "cpu"):
        self.view = view
        self.batch_size = batch_size
        self.normalize = normalize
        self.device = device

    def __len__(self) -> int:
        return math.ceil(len(self.view) / self.batch_size)

    def __iter__(self) -> Iterator[PairedBatch]:
        for start in range(0, len(self.view), self.batch_size):
            stop = min(start + self.batch_size, len(self.view))
            yield PairedBatch(
                *(
                    prepare(self.view.read(modality, start, stop), self.normalize, self.device, self.view.store.path)
                    for modality in MODALITIES
                )
            )


class PairedFeatures(L.LightningDataModule):
    """Training and validation pairs of feature stores.

    Args:
        train: pairs to fit on.
        val: pairs to validate on.
        batch_size: pairs a batch and process.
        normalize: L2-normalize embeddings on reading.
        seed: of the order.
        pool_rows: pairs held in memory; a smaller training set stays resident on the device.
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

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def train_dataloader(self) -> ShuffledBatches:
        """Shuffled batches, this process's share of them."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        return ShuffledBatches(
            self.train,
            self.batch_size,
            self.seed,
            self.normalize,
            self.pool_rows,
            self._device,
            rank=torch.distributed.get_rank() if distributed else 0,
            world_size=torch.distributed.get_world_size() if distributed else 1,
        )

    def val_dataloader(self) -> SequentialBatches:
        """All validation pairs in order."""
        return SequentialBatches(self.val, self.batch_size, self.normalize, self._device)
