"""Train several dictionaries in one pass over the pairs: `training.together=true`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import DictionaryError, MmmonoError
from mmmono.core.process_group import Place
from mmmono.core.processes import processes
from mmmono.core.timing import others_built
from mmmono.core.turns import Turns
from mmmono.features import Features
from mmmono.pipeline.specs import FeatureSetSpec, Trained
from mmmono.pipeline.trainer_settings import TrainerSettings
from mmmono.pipeline.training import number_of_processes, plan_training

if TYPE_CHECKING:
    from mmmono.dictionaries.one_pass import OnePass
    from mmmono.pipeline.fitting import Trainee, Training

READY = (1.0,)  # progress of a training that only waits for the others before it begins


def train_together(
    artifacts: Artifacts, kinds: Mapping[str, FeatureSetSpec], train: Features, val: Features, cfg: DictConfig
) -> dict[str, Artifact]:
    """Return the trained dictionaries of feature sets; those that do not exist are trained in one pass over the pairs.

    Each becomes what it becomes alone, at the same address and with the same checkpoints: it can be gone on with alone
    and together. Each stops by itself and is published at once. If one diverges or reaches `trainer.max_time`, the
    others go on. An unexpected error ends all, and they go on from their checkpoints when the command is run again.

    Args:
        artifacts: the artifacts root.
        kinds: kinds of feature sets by name; of those that are not trained, nothing is made.
        train, val: features to train on, and to validate on.
        cfg: the composed configuration.

    Raises:
        ConfigError: settings do not fit the features or this machine.
        DictionaryError: one of the trainings diverged, or reached `trainer.max_time`.
        ProcessError: one of several processes failed or died.
    """
    from mmmono.dictionaries.one_pass import OnePass  # not at the top, because it takes Lightning

    trained = {name: kind for name, kind in kinds.items() if isinstance(kind, Trained)}
    plans = [plan_training(name, kind, train, val, cfg) for name, kind in trained.items()]
    # Everyone takes the locks of the artifacts in the same order, so that two processes do not wait for each other.
    plans.sort(key=lambda plan: artifacts.path(*plan.artifact))
    # Of several processes, one may fail while the others do not: only errors that all of them raise can be borne.
    alone = number_of_processes(plans[0].trainer) == 1
    turns: Turns[Artifact] = Turns(bearable=(MmmonoError,) if alone else (DictionaryError,))
    with others_built(), closing(OnePass(turns)) as one_pass, turns:
        group = _Group(one_pass)
        for plan in plans:
            turns.add(partial(plan.build, artifacts, group.fit))
        turns.wait(READY)  # until each is ready to train, or exists
        made = group.train(plans[0].trainer)
    return {plan.name: artifact for plan, artifact in zip(plans, made, strict=True)}


class _Group:
    """The trainings of a pass, in the process that keeps the results.

    Args:
        one_pass: what they share.
    """

    def __init__(self, one_pass: OnePass) -> None:
        self.one_pass = one_pass
        self.ready: list[Training] = []
        self.place: Place | None = None

    def fit(self, training: Training, logger: Any) -> Trainee:
        """Train, once the others are ready too."""
        training = replace(training, row=len(self.ready))
        self.ready.append(training)
        self.one_pass.turns.wait(READY)
        return training.fit(self.place, logger, self.one_pass)

    def train(self, trainer: TrainerSettings) -> list[Artifact]:
        """Let all train, with the processes that share their batches; return their artifacts."""
        results = self.one_pass.turns.results
        if not self.ready:
            return results()
        from mmmono.pipeline.fitting import process_settings
        from mmmono.pipeline.fitting_together import TrainingsTogether
        from mmmono.pipeline.termination import ending_with_a_line

        layout = trainer.here()
        with process_settings(trainer.tf32), ending_with_a_line():
            if layout.processes == 1:
                return results()
            team = processes(layout.processes)
            self.place = team.place
            return team.run(TrainingsTogether(self.ready), layout.backend, results)
