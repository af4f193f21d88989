"""Where `logger=` options come in: they follow trainings, and hear of every artifact that is built or found.

Analyses know nothing of this. A tracker reads what they leave on disk, so that W&B and TensorBoard also get what was
computed before anybody chose them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mmmono.core.artifacts import Artifact, Artifacts, digest
from mmmono.core.errors import ConfigError
from mmmono.core.extras import need
from mmmono.core.versions import versioned
from mmmono.reporting.contents import contents
from mmmono.reporting.escaping import WANDB_NAME, wandb_name, wandb_tags
from mmmono.reporting.tables import console

HISTORY_FILE = "history.parquet"
RUN_ID_FILE = "wandb-run-id.txt"
PARTITION_KEYS = ("sets", "mds", "partition", "partition_version")  # of the recipes of what rests on a partition
TYPES = {"features": "features", "dictionaries": "dictionary", "models": "model", "results": "results"}


class Tracker:
    """Keeps nothing but the metrics.csv of a training beside its dictionary: `logger=csv`."""

    def start(self, cfg: DictConfig, job: str) -> None:
        """Prepare for a job, before anything heavy.

        Raises:
            ConfigError: nothing could be recorded.
        """
        self.cfg, self.job = cfg, job

    def training_logger(self, directory: Path) -> Any:
        """Lightning's logger for a training into this partial artifact."""
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(save_dir=str(directory))

    def record(self, artifact: Artifact, wanted: bool) -> None:
        """An artifact was built or found; `wanted` are those that the job is there to make."""

    def stop(self, failed: bool) -> None:
        """The job has ended."""


class TensorBoard(Tracker):
    """Event files under `<artifacts>/tensorboard`, a folder for each dictionary and result: `logger=tensorboard`."""

    def start(self, cfg: DictConfig, job: str) -> None:
        """See that there is a TensorBoard."""
        super().start(cfg, job)
        need("logger=tensorboard", "tensorboard")

    def training_logger(self, directory: Path) -> Any:
        """Curves go where they can be watched from the first step on, under the name the artifact will have."""
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(str(self._root), name=directory.stem, version="training")

    def record(self, artifact: Artifact, wanted: bool) -> None:
        """One event file in place of an earlier one."""
        if not (wanted or (artifact.built and artifact.kind == "dictionaries")) or not _is_main_process():
            return
        from mmmono.reporting.tensorboard_records import record_contents

        folder = self._root / artifact.path.name / "contents"
        shutil.rmtree(folder, ignore_errors=True)
        record_contents(folder, _section(artifact), contents(artifact.path), OmegaConf.to_yaml(self.cfg, resolve=True))
        console.print(f"TensorBoard: {folder.parent}")

    @property
    def _root(self) -> Path:
        return Path(self.cfg.artifacts) / "tensorboard"


class WandB(Tracker):
    """One W&B run for each training and each result, tied together by artifacts: `logger=wandb`.

    Args:
        project: of the runs.
        entity: user or team; None for W&B's default.
        group: of the runs; None for model and dataset.
        tags: of the runs, besides model, dataset and whether they belong to a multirun.
    """

    def __init__(
        self, project: str, entity: str | None = None, group: str | None = None, tags: Sequence[str] = ()
    ) -> None:
        self.project = project
        self.entity = entity
        self.group = group
        self.tags = list(tags)
        self._trainings: dict[str, Any] = {}  # loggers of unfinished trainings, by the name of their artifact
        self._recorded: set[Path] = set()

    def start(self, cfg: DictConfig, job: str) -> None:
        """Log in, unless W&B is offline."""
        super().start(cfg, job)
        if not 0 < len(str(self.project)) <= WANDB_NAME or set(str(self.project)) & set("/\\#?%:"):
            raise ConfigError(
                f"logger.project={self.project} is no W&B project: at most {WANDB_NAME} letters, none of / \\ # ? % :"
            )
        need("logger=wandb", "wandb")
        if os.environ.get("WANDB_MODE", "online") != "online" or not _is_main_process():
            return
        import wandb

        try:
            logged_in, reason = wandb.login(), "no API key"
        except (wandb.errors.Error, ValueError, OSError) as error:
            logged_in, reason = False, str(error).strip().splitlines()[0]
        if not logged_in:
            raise ConfigError(
                f"logger=wandb cannot log in ({reason}): run 'wandb login', set WANDB_API_KEY, or set "
                "WANDB_MODE=offline and upload later with 'wandb sync'"
            )

    def training_logger(self, directory: Path) -> Any:
        """A run that an interrupted training takes up again."""
        from lightning.pytorch.loggers import WandbLogger

        kept = directory / RUN_ID_FILE
        options = self._options(directory.stem, "train")
        if kept.exists():
            options["id"] = kept.read_text().strip()
        logger = WandbLogger(**options)
        if _is_main_process():
            kept.write_text(logger.experiment.id + "\n")
            self._trainings[directory.stem] = logger
        return logger

    def record(self, artifact: Artifact, wanted: bool) -> None:
        """Finish the training of a dictionary, or open a run for what was wanted."""
        training = self._trainings.pop(artifact.path.name, None)
        if training is not None:
            self._finish(training.experiment, artifact)
        elif wanted and artifact.path not in self._recorded and _is_main_process():
            import wandb

            job = "train" if artifact.kind == "dictionaries" else self.job
            options = self._options(artifact.path.name, job)
            options["dir"] = options.pop("save_dir")
            run = wandb.init(**options)
            self._log_history(run, artifact.path / HISTORY_FILE)
            self._finish(run, artifact)

    def stop(self, failed: bool) -> None:
        """End the runs of trainings that did not get to their end."""
        for training in self._trainings.values():
            training.experiment.finish(exit_code=int(failed))
        self._trainings.clear()

    def _options(self, name: str, job: str) -> dict[str, Any]:
        import wandb

        model, dataset = (self.cfg[group].get("name") or _option(group) for group in ("model", "dataset"))
        hydra = HydraConfig.get() if HydraConfig.initialized() else None
        multirun = hydra is not None and hydra.mode is not None and hydra.mode.name == "MULTIRUN"
        overrides = list(hydra.overrides.task) if hydra is not None else []
        Path(self.cfg.artifacts).mkdir(parents=True, exist_ok=True)
        return {
            "project": self.project,
            "entity": self.entity,
            "name": wandb_name(name),
            "group": wandb_name(self.group or f"{model}-{dataset}"),
            "job_type": job,
            "tags": wandb_tags([*self.tags, model, dataset, *(["multirun"] if multirun else [])]),
            "config": {**OmegaConf.to_container(self.cfg, resolve=True), "overrides": overrides},  # type: ignore[dict-item]
            "save_dir": str(self.cfg.artifacts),
            "reinit": "create_new",
            "settings": wandb.Settings(silent=True, console="off"),
        }

    def _log_history(self, run: Any, path: Path) -> None:
        """The curves of a training that nobody followed."""
        if path.exists():
            run.define_metric("val/*", step_metric="trainer/global_step")
            for row in pd.read_parquet(path).to_dict("records"):
                run.log({"trainer/global_step": int(row.pop("step")), **row})

    def _finish(self, run: Any, artifact: Artifact) -> None:
        from mmmono.reporting.wandb_records import artifact_of, record_contents

        self._recorded.add(artifact.path)
        (artifact,) = Artifacts(self.cfg.artifacts).find(artifact.kind, artifact.path.name)  # its recipe as plain JSON
        record_contents(run, _section(artifact), contents(artifact.path), artifact.path)
        sources = lineage(Artifacts(self.cfg.artifacts), artifact)
        for source in sources:
            used = artifact_of(source.path, _type(source), source.recipe)
            if run.settings.mode == "offline":
                # What use_artifact does with one that W&B does not have yet; itself it refuses offline.
                run._log_artifact(used, is_user_created=True, use_after_commit=True)
            else:
                run.use_artifact(used)
        made_from = [source.path.name for source in sources]
        run.log_artifact(artifact_of(artifact.path, _type(artifact), artifact.recipe, made_from))
        where = run.url or f"{Path(run.dir).parent}, upload it with 'wandb sync'"
        run.finish()
        console.print(f"W&B: {where}", highlight=False)


def lineage(artifacts: Artifacts, artifact: Artifact) -> list[Artifact]:
    """What an artifact was made from, as far as it lies under the root; of results also the partition they rest on."""
    sources = {source.path: source for source in artifacts.made_from(artifact.recipe)}
    if set(PARTITION_KEYS) <= artifact.recipe.keys() and not _is_partition(artifact):
        recipe = {
            "features": artifact.recipe.get("partitions", artifact.recipe["features"]),
            **{key: artifact.recipe[key] for key in PARTITION_KEYS},
        }
        address = digest(versioned("results", "mds", recipe))
        sources |= {found.path: found for found in artifacts.find("results", f"mds-*-{address}")}
    return list(sources.values())


_current: ContextVar[Tracker | None] = ContextVar("tracker", default=None)


def current_tracker() -> Tracker:
    """The running job's tracker; outside of jobs one that keeps CSV files."""
    return _current.get() or Tracker()


@contextmanager
def tracking(tracker: Tracker, cfg: DictConfig, job: str) -> Iterator[None]:
    """Let a tracker follow a job. Raises ConfigError where it could record nothing."""
    tracker.start(cfg, job)
    token = _current.set(tracker)
    failed = True
    try:
        yield
        failed = False
    finally:
        _current.reset(token)
        tracker.stop(failed)


def _section(artifact: Artifact) -> str:
    """First part of the names of what is recorded: the analysis, the kind of dictionary, or features."""
    return "features" if artifact.kind == "features" else artifact.path.name.partition("-")[0]


def _is_partition(artifact: Artifact) -> bool:
    return artifact.kind == "results" and _section(artifact) == "mds"


def _type(artifact: Artifact) -> str:
    return "partition" if _is_partition(artifact) else TYPES.get(artifact.kind, artifact.kind)


def _option(group: str) -> str:
    """The option chosen for a group on the command line."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return str(choices.get(group))


def _is_main_process() -> bool:
    """Whether this is the only process of a training, or the first of several."""
    from lightning.pytorch.utilities import rank_zero_only

    return rank_zero_only.rank == 0
