"""Train a dictionary into an artifact with weights, curves and checkpoints; interrupted trainings resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import ConfigError
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.core.processes import processes as processes_for
from mmmono.dictionaries import Dictionary
from mmmono.dictionaries.pools import check_batch_size, check_pool, whole_pool
from mmmono.dictionaries.readers.trained_on import TrainedOn
from mmmono.features import MODALITIES, Features, FeatureView
from mmmono.features.gathered import sampled_runs
from mmmono.pipeline.specs import FeatureSetSpec, Fitted, Trained
from mmmono.pipeline.tracking import HISTORY_FILE, current_tracker
from mmmono.pipeline.trainer_settings import TrainerSettings, read_trainer
from mmmono.pipeline.training_settings import SNAPSHOTS, TrainingSettings
from mmmono.pipeline.typed import read_settings
from mmmono.pipeline.workspace_settings import FeatureSettings
from mmmono.reporting.drawn import note_drawn
from mmmono.reporting.style import save_figure
from mmmono.reporting.tables import console
from mmmono.reporting.training_figures import training_curves

if TYPE_CHECKING:
    from mmmono.pipeline.fitting import Trainee, Training

NEUTRAL = ("together", "checkpoint_every")  # settings of training that do not change the weights
END_FILE = "end.parquet"  # why and after how many steps a training ended


@dataclass(frozen=True)
class TrainingPlan:
    """A dictionary that is to be trained unless it exists.

    Attributes:
        name: name of the feature set.
        kind: kind of dictionary, with its settings.
        train, val: features to train on, and to validate on.
        normalize: whether to L2-normalize embeddings.
        seed: seed of the weights and of the order of pairs.
        settings: `training.*`, with the batch size per process.
        trainer: `trainer.*`.
        modalities: what the two sides of a pair are called, in the figure.
    """

    name: str
    kind: Trained
    train: Features
    val: Features
    normalize: bool
    seed: int
    settings: TrainingSettings
    trainer: TrainerSettings
    modalities: ModalityNames = IMAGE_AND_TEXT

    @cached_property
    def artifact(self) -> tuple[str, str, dict[str, Any]]:
        """Kind, name and recipe of the artifact."""
        assert self.settings.batch_size is not None
        pairs, batch_size = len(self.train.view), self.settings.batch_size
        training = {key: value for key, value in asdict(self.settings).items() if key not in NEUTRAL}
        recipe = {
            "kind": self.name,
            **self.kind.recipe(),
            "features": self.train.recipe,
            "validation": self.val.recipe,
            "normalize": self.normalize,
            "seed": self.seed,
            "training": {
                **{key: value for key, value in training.items() if key != "validation_pairs" or self.samples},
                "batch_size": batch_size * number_of_processes(self.trainer),
                **_pool(self.settings.pool_rows, batch_size, pairs),
            },
            "trainer": self.trainer.recipe(),
        }
        return "dictionaries", f"{self.name}-{self.train.store.path.name}", recipe

    @property
    def samples(self) -> bool:
        """Whether validations take a sample of their split. If not, how large it may be is not part of the recipe."""
        return self.settings.validation_pairs is not None and len(self.val.view) > self.settings.validation_pairs

    def build(self, artifacts: Artifacts, fit: Callable[[Training, Any], Trainee]) -> Artifact:
        """Return the dictionary, trained unless it exists.

        Args:
            artifacts: the artifacts root.
            fit: trains; it gets the training and its logger.
        """

        def make(directory: Path) -> None:
            from mmmono.pipeline.fitting import Training  # not at the top, because it takes Lightning

            train, val = self.train.view, sampled_runs(self.val.view, self.settings.validation_pairs)
            training = Training(
                self.name, self.kind, train, val, self.normalize, self.seed, self.settings, self.trainer, directory
            )
            module, history = fit(training, current_tracker().training_logger(directory))
            module.dictionary.save_pretrained(directory)
            embeddings_of(train, self.normalize).write(directory)
            curves = history.frame()
            curves.to_parquet(directory / HISTORY_FILE, index=False)
            end = {"steps": int(curves["step"].iloc[-1]), "ended_by": history.ended_by}
            pd.DataFrame([end]).to_parquet(directory / END_FILE, index=False)
            _draw(curves, self.name, self.modalities, directory)
            if poor := poor_reconstruction(curves, self.name, module.lr, self.modalities):
                console.print(poor)

        return artifacts.build(*self.artifact, make, resumable=True)


def plan_training(name: str, kind: Trained, train: Features, val: Features, cfg: DictConfig) -> TrainingPlan:
    """Check the settings of a training.

    Several processes split each batch. Up to rounding, their result is that of one process with the whole batch. So
    the artifact does not depend on the number of processes, and either can resume the other's training.

    Args:
        name: name of the feature set.
        kind: kind of dictionary, with its settings.
        train, val: features to train on, and to validate on.
        cfg: the composed configuration.

    Raises:
        ConfigError: settings do not fit the features or this machine.
    """
    trainer = check_trainer(cfg).suited_to(kind.bfloat16_weights(train.view.dim))
    settings = read_settings(cfg, "training", TrainingSettings)
    normalize, pairs = read_settings(cfg, "features", FeatureSettings).normalize, len(train.view)
    processes = trainer.layout.processes if trainer.layout is not None else None
    batch_size = _batch_size(settings.batch_size, pairs, processes)
    check_pool(pairs, batch_size, settings.pool_rows)
    trainer.check_length(pairs // (batch_size * number_of_processes(trainer)))
    modalities = ModalityNames.of(cfg.dataset.get("modalities"))
    settings = replace(settings, batch_size=batch_size)
    return TrainingPlan(name, kind, train, val, normalize, cfg.seed, settings, trainer, modalities)


def train_dictionary(artifacts: Artifacts, plan: TrainingPlan) -> Artifact:
    """Return a dictionary, trained unless it exists.

    Raises:
        ConfigError: this machine lacks the requested hardware.
        DictionaryError: training diverged, or reached `trainer.max_time`.
        ProcessError: one of several processes failed or died.
    """

    def fit(training: Training, logger: Any) -> Trainee:
        layout = plan.trainer.here()
        if layout.processes == 1:
            return training.fit(None, logger)
        team = processes_for(layout.processes)
        return team.run(training, layout.backend, lambda: training.fit(team.place, logger))

    return plan.build(artifacts, fit)


def poor_reconstruction(curves: pd.DataFrame, name: str, lr: float, modalities: ModalityNames) -> str:
    """Return a line on modalities whose reconstructions are worse than their mean; empty if none are.

    A training with finite weights may end so, and its result is used by whatever asked for it.

    Args:
        curves: one row per validation.
        name: name of the feature set.
        lr: its learning rate.
        modalities: what the modalities are called.
    """
    fvu = {modality: f"val/{modality}/fvu" for modality in MODALITIES}
    worse = [
        f"{curves[column].iloc[-1]:.3g} on {modalities.said(f'{modality}s')}"
        for modality, column in fvu.items()
        if column in curves and curves[column].iloc[-1] > 1
    ]
    if not worse:
        return ""
    return f"{name} reconstructs worse than a mean would: FVU {' and '.join(worse)}; lower {name}.lr={lr:g}, or train longer"


def _draw(curves: pd.DataFrame, name: str, modalities: ModalityNames, directory: Path) -> None:
    save_figure(training_curves(curves, name, modalities), directory / "training_curves")
    if modalities != IMAGE_AND_TEXT:
        note_drawn(directory, {}, modalities)


def check_trainer(cfg: DictConfig) -> TrainerSettings:
    """Check `training.*` and `trainer.*`, and return the latter. Raises ConfigError if a setting is invalid."""
    if read_settings(cfg, "training", TrainingSettings).together and not current_tracker().follows_several:
        raise ConfigError(
            "training.together=true with logger=wandb: W&B follows one training of a process at a time; choose logger=csv "
            "or logger=tensorboard, or leave out training.together"
        )
    return read_trainer(_plain(cfg.trainer))


def check_training(cfg: DictConfig, specs: Mapping[str, FeatureSetSpec], artifacts: Artifacts, makes: str) -> None:
    """Check the training settings, and that this machine can train the dictionaries that are missing.

    Args:
        cfg: the composed configuration.
        specs: the selected feature sets by name.
        artifacts: the artifacts root.
        makes: kind of artifact that the entrypoint makes.

    Raises:
        ConfigError: a setting is invalid, or asks for devices that this machine lacks.
    """
    names = [name for name, kind in specs.items() if kind.trained]
    if not names:
        return
    trainer = check_trainer(cfg)
    trained = all(next(artifacts.find("dictionaries", f"{name}-*"), None) for name in names)
    if artifacts.builds and (makes == "dictionaries" or not trained):
        trainer.here()


def fit_dictionary(
    artifacts: Artifacts, name: str, kind: Fitted, train: Features, normalize: bool, seed: int
) -> Artifact:
    """Return the dictionary of these settings and features that needs no training, fitted unless it exists."""
    recipe = {"kind": name, **kind.recipe(), "features": train.recipe, "normalize": normalize, "seed": seed}
    name = f"{name}-{train.store.path.name}"
    return artifacts.build(
        "dictionaries", name, recipe, lambda directory: kind.fit(train.view, normalize, seed).save_pretrained(directory)
    )


def embeddings_of(view: FeatureView, normalize: bool) -> TrainedOn:
    """What a dictionary is trained on, for those who use it elsewhere."""
    if (made := view.store.manifest) is None:
        return TrainedOn(normalize=normalize)
    return TrainedOn(made.model, made.model_fingerprint, normalize=normalize)


def snapshots(directory: Path) -> Iterator[tuple[int, Dictionary]]:
    """Yield step and dictionary of each snapshot of a training (`training.snapshot_every`), in order."""
    for folder in sorted((directory / SNAPSHOTS).glob("[0-9]*"), key=lambda found: int(found.name)):
        yield int(folder.name), Dictionary.from_pretrained(folder)


def final_metric(history: pd.DataFrame, name: str) -> float:
    """Return a metric at the last validation.

    Args:
        history: one row per validation.
        name: a validation metric such as `image/fvu` or `loss`; `fvu` is the mean over both modalities.

    Raises:
        ConfigError: there is no such metric.
    """
    columns = {column.removeprefix("val/"): column for column in map(str, history) if column.startswith("val/")}
    chosen = [columns[key] for key in (name, f"image/{name}", f"text/{name}") if key in columns]
    if not chosen:
        known = sorted({key.removeprefix("image/").removeprefix("text/") for key in columns})
        raise ConfigError(f"objective={name} is no metric of this dictionary: choose of {', '.join(known)}")
    return float(history[chosen].iloc[-1].mean())


def automatic_batch_size(pairs: int) -> int:
    """Largest power of two up to 4096 with at least eight batches per epoch; at least 64, but at most `pairs`."""
    size = 4096
    while size > 64 and size * 8 > pairs:
        size //= 2
    return min(size, max(1, pairs))


def number_of_processes(trainer: TrainerSettings) -> int:
    """Number of processes that share a batch; 1 if this machine lacks the requested hardware."""
    return trainer.layout.processes if trainer.layout is not None else 1


def _batch_size(requested: int | None, pairs: int, processes: int | None) -> int:
    """Batch size per process. Raises ConfigError if there are too few pairs, or the number of processes is unknown."""
    if requested is not None and processes is None:
        raise ConfigError(
            f"training.batch_size={requested} is that of a process, and how many trainer.devices=-1 would be on a machine "
            "with GPUs is unknown on this one: give trainer.devices=<number>"
        )
    size = requested or _share(automatic_batch_size(pairs), processes or 1)
    check_batch_size(pairs, size, processes or 1)
    return size


def _share(batch_size: int, processes: int) -> int:
    """Batch size of one of several processes: a power of two, since pools of pairs are whole batches and whole chunks."""
    return batch_size if processes == 1 else 2 ** int(math.log2(max(1, batch_size // processes)))


def _pool(pool_rows: int, batch_size: int, pairs: int) -> dict[str, int]:
    """Size of the shuffle pool, for recipes: it determines the order of a training set that is larger than one pool."""
    rows = whole_pool(pool_rows, batch_size)
    return {"pool_rows": rows} if pairs > rows else {}


def _plain(node: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
