"""A training that was interrupted goes on as if it had not been, wherever it was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mmmono.dictionaries import DictionaryModule, MetricHistory, PairedFeatures, TopKSAE, TrainingPlateau
from mmmono.dictionaries.resume_checkpoint import ResumeCheckpoint
from tests.dictionaries.test_training import data, made_data, sae_module, trainer  # noqa: F401

Fitted = tuple[pd.DataFrame, torch.Tensor]  # metrics at each validation, and the decoder


class Dies(Callback):
    """Ends the run before a step, as a kill would: nothing is saved on the way out."""

    def __init__(self, before: int) -> None:
        self.before = before

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.before:
            raise RuntimeError("killed")


def fit(data: PairedFeatures, folder: Path, every: int, *more: Callback, resume: bool = False) -> Fitted:  # noqa: F811
    """Train for 50 steps with a checkpoint after each `every`; `resume` goes on from the last one."""
    history, module = MetricHistory(), sae_module()
    run = trainer(folder, history, ResumeCheckpoint(str(folder), every), *more, steps=50)
    run.fit(module, data, ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    return history.frame(), module.dictionary.W_dec.detach()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """What every interrupted training should end with; checkpoints change nothing, so one of them is enough."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return fit(made_data(folder), folder / "fit", 10)


@pytest.mark.slow
@pytest.mark.parametrize("every", [10, 5, 7, 20])
@pytest.mark.parametrize("died", [21, 30, 39])
def test_a_resumed_run_has_every_validation_of_an_undisturbed_one(
    tmp_path: Path,
    data: PairedFeatures,  # noqa: F811
    undisturbed: Fitted,
    every: int,
    died: int,
) -> None:
    expected, weights = undisturbed
    assert expected["step"].tolist() == [10, 20, 30, 40, 50]
    with pytest.raises(RuntimeError, match="killed"):
        fit(data, tmp_path / "killed", every, Dies(died))
    resumed, resumed_weights = fit(data, tmp_path / "killed", every, resume=True)
    pd.testing.assert_frame_equal(resumed, expected)
    assert torch.equal(resumed_weights, weights)


def test_a_run_that_died_after_it_was_told_to_stop_trains_no_further(
    tmp_path: Path,
    data: PairedFeatures,  # noqa: F811
) -> None:
    class Flat(DictionaryModule):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.dictionary(batch.image, batch.text).loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def on_validation_epoch_end(self) -> None:
            self.log_validation(**{"image/active": 5, "text/active": 5})

    def fit(ckpt_path: Path | None) -> int:
        callbacks = (TrainingPlateau(patience=2), ResumeCheckpoint(str(tmp_path), 10))
        run = trainer(tmp_path, *callbacks, steps=90)
        run.fit(Flat(TopKSAE(12, 24, 4)), data, ckpt_path=ckpt_path, weights_only=True)
        return int(run.global_step)

    assert fit(None) == 30
    assert fit(tmp_path / "last.ckpt") == 30


@pytest.mark.slow
def test_a_plateau_that_ends_before_the_smallest_number_of_steps_does_not_stop_the_run(
    tmp_path: Path,
    data: PairedFeatures,  # noqa: F811
) -> None:
    class FallsLate(DictionaryModule):
        counts = (24, 24, 24, 20, 15, 10, 5, 5, 5)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.dictionary(batch.image, batch.text).loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def on_validation_epoch_end(self) -> None:
            self.log_validation(**{"image/active": self.counts[self.global_step // 10 - 1], "text/active": 5})

    run = trainer(tmp_path, TrainingPlateau(patience=2), steps=90, min_steps=50)
    run.fit(FallsLate(TopKSAE(12, 24, 4)), data)
    assert run.global_step == 90  # it falls from step 40 to 70, and has waited twice at 90


class Logs(DictionaryModule):
    """Logs given numbers of active features and given losses at its validations, whatever it learns."""

    def __init__(self, active: Sequence[int], loss: Sequence[float], name: str = "loss") -> None:
        super().__init__(TopKSAE(12, 24, 4))
        self.logged = [
            {"image/active": count, "text/active": 5, name: value} for count, value in zip(active, loss, strict=True)
        ]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.dictionary(batch.image, batch.text).loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.log_validation(**self.logged[self.global_step // 10 - 1])


FLAT, FALLING = [24] * 9, [24, 22, 20, 18, 16, 14, 12, 10, 8]
LEARNS = [1.0, 0.9, 0.8, 0.7, 0.699, 0.698, 0.697, 0.696, 0.695]


@pytest.mark.parametrize(
    ("active", "loss", "name", "settings", "steps", "ended_by"),
    [
        (FLAT, LEARNS, "loss", {}, 60, "loss"),
        (FLAT, LEARNS, "image/fvu", {}, 60, "loss"),
        (FLAT, LEARNS, "loss", {"min_gain": None}, 30, "active dimensions"),
        (FLAT, LEARNS, "cosine", {}, 30, "active dimensions"),  # neither loss nor FVU
        (FALLING, LEARNS, "loss", {}, 90, "max_steps"),
        (FALLING[:5] + [16] * 4, LEARNS, "loss", {}, 70, "active dimensions"),
        (FALLING[:4] + [18] * 5, LEARNS, "loss", {}, 60, "active dimensions and loss"),
        (FLAT, LEARNS, "loss", {"min_gain": 0.0005}, 90, "max_steps"),  # falls of 0.1 % count as well
        (FLAT, [-1.0, -2.0] + [-2.001] * 7, "loss", {}, 40, "loss"),  # a share of a negative loss
    ],
)
def test_training_ends_when_active_features_and_loss_have_stopped_falling(
    tmp_path: Path,
    data: PairedFeatures,  # noqa: F811
    active: list[int],
    loss: list[float],
    name: str,
    settings: dict[str, float | None],
    steps: int,
    ended_by: str,
) -> None:
    plateau = TrainingPlateau(**{"patience": 2, "min_fall": 0.01, "min_gain": 0.01, **settings})  # type: ignore[arg-type]
    run = trainer(tmp_path, plateau, steps=90)
    run.fit(Logs(active, loss, name), data)
    assert (run.global_step, plateau.ended_by(run)) == (steps, ended_by)


def test_a_plateau_before_the_smallest_number_of_steps_ends_there(
    tmp_path: Path,
    data: PairedFeatures,  # noqa: F811
) -> None:
    plateau = TrainingPlateau(patience=2, min_gain=0.01)
    run = trainer(tmp_path, plateau, steps=90, min_steps=75)
    run.fit(Logs(FLAT, LEARNS), data)
    assert (run.global_step, plateau.ended_by(run)) == (75, "min_steps")


def test_what_was_waited_survives_a_kill(
    tmp_path: Path,
    data: PairedFeatures,  # noqa: F811
) -> None:
    def fit(*more: Callback, resume: bool = False) -> tuple[int, str]:
        plateau = TrainingPlateau(patience=2, min_gain=0.01)
        run = trainer(tmp_path, plateau, ResumeCheckpoint(str(tmp_path), 10), *more, steps=90)
        last = tmp_path / "last.ckpt" if resume else None
        run.fit(Logs(FLAT, LEARNS), data, ckpt_path=last, weights_only=True)
        return int(run.global_step), plateau.ended_by(run)

    with pytest.raises(RuntimeError, match="killed"):
        fit(Dies(52))
    assert fit(resume=True) == (60, "loss")
    assert fit(resume=True) == (60, "loss")  # and again, after it has ended
