"""Trainings of one pass over the pairs, in a process that shares their batches with rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

from mmmono.core.errors import DictionaryError
from mmmono.core.turns import Turns
from mmmono.dictionaries.one_pass import OnePass
from mmmono.pipeline.fitting import Trainee, Training, process_settings


@dataclass(frozen=True)
class TrainingsTogether:
    """Trainings that take turns; a task for processes other than rank 0.

    Attributes:
        trainings: in the order in which rank 0 has them.
    """

    trainings: Sequence[Training]

    def work_along(self) -> None:
        """Train with the other processes."""
        place = self.trainings[0].place_beside_rank_0()
        turns: Turns[Trainee] = Turns(bearable=(DictionaryError,))
        with process_settings(self.trainings[0].trainer.tf32), closing(OnePass(turns)) as one_pass, turns:
            for training in self.trainings:
                turns.add(partial(training.fit, place, False, one_pass))
            with suppress(
                DictionaryError
            ):  # rank 0 has it too, tells it, and ends the others when it has kept the rest
                turns.results()
