"""One pass over the training pairs for several dictionaries: each batch is read once, and all train on it in turn.

Each dictionary has its own trainer, in a thread of its own, and does exactly what it would do alone. All see the same
batches, in the order of the seed, so whoever asks for a batch first has it read, and the others get the same tensors.
`Turns` keeps them in step: whoever is furthest behind goes on. So a training that was interrupted earlier than the
others catches up first, and one that has stopped is not waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmmono.core.turns import Turns
from mmmono.dictionaries.datamodule import PairedFeatures, SequentialBatches, ShuffledBatches
from mmmono.dictionaries.pools import PairedBatch

TRAINING = 2.0  # first number of a training's progress, above what is waited for before it
VALIDATION, BATCH = 0.0, 1.0  # of trainings that have seen equally many batches, those that validate go first


class OnePass:
    """What the trainings of one pass share: the batches, and whose turn it is.

    Args:
        turns: the turns, of which each training is a piece of work.
    """

    def __init__(self, turns: Turns[Any]) -> None:
        self.turns = turns
        self._training: _ByPosition | None = None
        self._validation: _ByNumber | None = None

    def training(self, batches: ShuffledBatches) -> SharedBatches:
        """Return the training batches for one of the trainings; they are read by the first one's `batches`."""
        self._training = self._training or _ByPosition(batches)
        return SharedBatches(self._training, self.turns)

    def validation(self, batches: SequentialBatches, after: SharedBatches) -> SharedValidation:
        """Return the validation batches for the training that has seen the training batches `after`."""
        self._validation = self._validation or _ByNumber(batches)
        return SharedValidation(self._validation, self.turns, after)

    def close(self) -> None:
        """Stop reading ahead and free the pools."""
        if self._training is not None:
            self._training.batches.close()


class SharedPairs(PairedFeatures):
    """Training and validation pairs for one of the trainings of one pass.

    Args:
        one_pass: what the trainings share.
        *pairs: see `PairedFeatures`; equal for all trainings of the pass.
    """

    def __init__(self, one_pass: OnePass, *pairs: Any) -> None:
        super().__init__(*pairs)
        self.one_pass = one_pass

    def train_dataloader(self) -> SharedBatches:  # type: ignore[override]
        """This process's shuffled training batches."""
        self._shared = self.one_pass.training(super().train_dataloader())
        return self._shared

    def val_dataloader(self) -> SharedValidation:  # type: ignore[override]
        """This process's validation batches, in order."""
        return self.one_pass.validation(super().val_dataloader(), self._shared)

    def teardown(self, stage: str) -> None:
        """Keep the pools, which others may still need."""


class SharedBatches:
    """Training batches as `ShuffledBatches` yields them, in turn with the other trainings.

    Args:
        source: reads the batches.
        turns: whose turn it is.
    """

    def __init__(self, source: _ByPosition, turns: Turns[Any]) -> None:
        self._source = source
        self._turns = turns
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        return len(self._source.batches)

    def state_dict(self) -> dict[str, int]:
        """Epoch and position of the next batch."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a saved position."""
        self.epoch, self.position = state["epoch"], state["position"]

    def __iter__(self) -> Iterator[PairedBatch]:
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        while self.position < len(self):
            self._turns.wait((TRAINING, self.epoch, self.position, BATCH))
            batch = self._source.at(self.epoch, self.position)
            self.position += 1
            yield batch


class SharedValidation:
    """Validation batches as `SequentialBatches` yields them, in turn with the other trainings.

    Args:
        source: reads the batches.
        turns: whose turn it is.
        after: training batches of the same training, which say how far it has come.
    """

    def __init__(self, source: _ByNumber, turns: Turns[Any], after: SharedBatches) -> None:
        self._source = source
        self._turns = turns
        self._after = after

    def __len__(self) -> int:
        return len(self._source.batches)

    def __iter__(self) -> Iterator[PairedBatch]:
        for number in range(len(self)):
            self._turns.wait((TRAINING, self._after.epoch, self._after.position, VALIDATION, number))
            yield self._source.at(number)


class _ByPosition:
    """Training batches by epoch and position, which never go back; the last one is kept."""

    def __init__(self, batches: ShuffledBatches) -> None:
        self.batches = batches
        self._place = (-1, -1)
        self._following: Iterator[PairedBatch] = iter(())

    def at(self, epoch: int, position: int) -> PairedBatch:
        """Return a batch, read unless it was the last one."""
        if (epoch, position) != self._place:
            if (epoch, position - 1) != self._place:
                self._following = self.batches.batches_from(epoch, position)
            self._batch = next(self._following)
            self._place = (epoch, position)
        return self._batch


class _ByNumber:
    """Validation batches by their number; the last one is kept."""

    def __init__(self, batches: SequentialBatches) -> None:
        self.batches = batches
        self._number = -1

    def at(self, number: int) -> PairedBatch:
        """Return a batch, read unless it was the last one."""
        if number != self._number:
            self._batch = self.batches.at(number)
            self._number = number
        return self._batch
