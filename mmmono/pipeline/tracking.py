"""Logger options (`logger=`): log trainings, and every artifact that is built or found.

Analyses have no logging code. A tracker reads their files, so W&B and TensorBoard also get results that were computed
before one of them was chosen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mmmono.core.artifacts import Artifact, Artifacts, write_text_atomically
from mmmono.core.errors import ConfigError
from mmmono.core.extras import need
from mmmono.core.modality_names import ModalityNames
from mmmono.core.saved import read_frame
from mmmono.core.text import first_line
from mmmono.reporting.contents import Contents, contents
from mmmono.reporting.escaping import WANDB_NAME, wandb_name, wandb_tags
from mmmono.reporting.tables import console

HISTORY_FILE = "history.parquet"
RUN_ID_FILE = "wandb-run-id.txt"
TYPES = {"dictionaries": "dictionary", "models": "model", "partitions": "partition"}  # of W&B artifacts, by kind


class Tracker:
    """`logger=csv`: write only a training's metrics.csv, next to its dictionary. Base class of the other trackers.

    Attributes:
        follows_several: whether several trainings of one process can go on at the same time.
    """

    follows_several = True

    def start(self, cfg: DictConfig, job: str) -> None:
        """Prepare for a job, before any heavy computation.

        Args:
            cfg: the composed configuration.
            job: name of the entrypoint.

        Raises:
            ConfigError: logging is not possible.
        """
        self.cfg, self.job = cfg, job

    def training_logger(self, directory: Path) -> Any:
        """Make the Lightning logger for a training; `directory` is the folder of its unfinished artifact."""
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(save_dir=str(directory))

    def record(self, artifact: Artifact, is_product: bool) -> None:
        """Log an artifact that was built or found; `is_product` if it is of the kind that the job makes."""

    def contents(self, artifact: Artifact) -> Contents:
        """Figures and tables of an artifact; they say what the dataset calls its modalities."""
        return contents(artifact.path, ModalityNames.of(self.cfg.dataset.get("modalities")))

    def stop(self, failed: bool) -> None:
        """End the job."""


class TensorBoard(Tracker):
    """`logger=tensorboard`: event files under `<artifacts>/tensorboard`, one folder per dictionary and result."""

    def start(self, cfg: DictConfig, job: str) -> None:
        """Prepare for a job. Raises ConfigError if TensorBoard is not installed."""
        super().start(cfg, job)
        need("logger=tensorboard", "tensorboard")

    def training_logger(self, directory: Path) -> Any:
        """Make a logger that writes to the final folder from the first step, named like the finished artifact."""
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(str(self._root), name=directory.stem, version="training")

    def record(self, artifact: Artifact, is_product: bool) -> None:
        """Write the artifact's event file, replacing an earlier one."""
        if not (is_product or (artifact.built and artifact.kind == "dictionaries")) or not _is_main_process():
            return
        from mmmono.reporting.tensorboard_records import record_contents

        folder = self._root / artifact.path.name / "contents"
        shutil.rmtree(folder, ignore_errors=True)
        record_contents(folder, _section(artifact), self.contents(artifact), OmegaConf.to_yaml(self.cfg, resolve=True))
        console.print(f"TensorBoard: {folder.parent}")

    @property
    def _root(self) -> Path:
        return Path(self.cfg.artifacts) / "tensorboard"


class WandB(Tracker):
    """`logger=wandb`: one W&B run per training and per result, linked by W&B artifacts.

    Args:
        project: W&B project.
        entity: user or team; None for W&B's default.
        group: group of the runs; None for `<model>-<dataset>`.
        tags: additional tags; model, dataset and `multirun` (in a multirun) are always tags.
    """

    follows_several = False  # Lightning's logger writes to whichever run of the process has begun

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
        """Log in, unless W&B is offline. Raises ConfigError if the project is invalid or the login fails."""
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
            logged_in, reason = False, first_line(error)
        if not logged_in:
            raise ConfigError(
                f"logger=wandb cannot log in ({reason}): run 'wandb login', set WANDB_API_KEY, or set "
                "WANDB_MODE=offline and upload later with 'wandb sync'"
            )

    def training_logger(self, directory: Path) -> Any:
        """Make a logger with a new run, or with the earlier run if an interrupted training resumes."""
        from lightning.pytorch.loggers import WandbLogger

        kept = directory / RUN_ID_FILE
        options = self._options(directory.stem, "train")
        if kept.exists():
            options["id"] = kept.read_text(encoding="utf-8").strip()
        logger = WandbLogger(**options)
        if _is_main_process():
            write_text_atomically(kept, logger.experiment.id + "\n")
            self._trainings[directory.stem] = logger
        return logger

    def record(self, artifact: Artifact, is_product: bool) -> None:
        """Log an artifact: a training to its own run, which ends; another product to a new run."""
        training = self._trainings.pop(artifact.path.name, None)
        if training is not None:
            self._finish(training.experiment, artifact)
        elif is_product and artifact.path not in self._recorded and _is_main_process():
            import wandb

            job = "train" if artifact.kind == "dictionaries" else self.job
            options = self._options(artifact.path.name, job)
            options["dir"] = options.pop("save_dir")
            run = wandb.init(**options)
            self._log_history(run, artifact.path / HISTORY_FILE)
            self._finish(run, artifact)

    def stop(self, failed: bool) -> None:
        """Finish the runs of unfinished trainings."""
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
        """Log the curves of a training that was not logged while it ran."""
        if path.exists():
            run.define_metric("val/*", step_metric="trainer/global_step")
            for row in read_frame(path).to_dict("records"):
                run.log({"trainer/global_step": int(row.pop("step")), **row})

    def _finish(self, run: Any, artifact: Artifact) -> None:
        from mmmono.reporting.wandb_records import artifact_of, record_contents

        self._recorded.add(artifact.path)
        (artifact,) = Artifacts(self.cfg.artifacts).find(artifact.kind, artifact.path.name)  # its recipe as plain JSON
        record_contents(run, _section(artifact), self.contents(artifact), artifact.path)
        sources = Artifacts(self.cfg.artifacts).made_from(artifact.recipe)
        for source in sources:
            used = artifact_of(source.path, _type(source.kind), source.recipe)
            if run.settings.mode == "offline":
                # What `use_artifact` does with a new artifact; offline, `use_artifact` itself raises an error.
                run._log_artifact(used, is_user_created=True, use_after_commit=True)
            else:
                run.use_artifact(used)
        made_from = [source.path.name for source in sources]
        run.log_artifact(artifact_of(artifact.path, _type(artifact.kind), artifact.recipe, made_from))
        where = run.url or f"{Path(run.dir).parent}, upload it with 'wandb sync'"
        run.finish()
        console.print(f"W&B: {where}", highlight=False)


_current: ContextVar[Tracker | None] = ContextVar("tracker", default=None)


def current_tracker() -> Tracker:
    """Tracker of the running job; outside of jobs, one that writes CSV files."""
    return _current.get() or Tracker()


@contextmanager
def tracking(tracker: Tracker, cfg: DictConfig, job: str) -> Iterator[None]:
    """Track a job within the context. Raises ConfigError if logging is not possible."""
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
    """First part of the logged keys: the name of the analysis, the kind of dictionary, or `features`."""
    return "features" if artifact.kind == "features" else artifact.path.name.partition("-")[0]


def _type(kind: str) -> str:
    return TYPES.get(kind, kind)


def _option(group: str) -> str:
    """Selected option of a configuration group."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return str(choices.get(group))


def _is_main_process() -> bool:
    """Whether this is the only process of a training, or the first of several."""
    from lightning.pytorch.utilities import rank_zero_only

    return rank_zero_only.rank == 0
