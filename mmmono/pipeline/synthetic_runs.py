"""What analyses that train on synthetic pairs many times have in common: their ground truth, and one process a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed
from omegaconf import DictConfig, OmegaConf

from mmmono.core.cores import usable_cores
from mmmono.core.memory import keep_freed_memory
from mmmono.features.store import content_fingerprint
from mmmono.features.synthetic import read_truth
from mmmono.pipeline.trainer_settings import NEUTRAL_OPTIONS
from mmmono.pipeline.training import NEUTRAL
from mmmono.pipeline.workspace import Workspace

# Parts of a configuration that change no result of theirs.
WITHOUT_EFFECT = {"artifacts", "device", "force", "help", "logger", "model", "extraction", "images", "engine"}

Run = TypeVar("Run")
Found = TypeVar("Found")


class Truth:
    """Ground truth of the pairs of the evaluated split.

    Attributes:
        image, text: true codes of all concepts, `[pairs, concepts]`.
        kind: of each concept; see `synthesize`.
        gain: of each concept in images over that in texts.
        atoms: directions of the concepts, `[concepts, dim]`.
        groups: group of each pair.
    """

    def __init__(self, workspace: Workspace) -> None:
        features = workspace.features(workspace.dataset.split)
        truth = read_truth(features.store.path)
        rows = features.view.rows
        chosen = torch.arange(len(features.view)) if rows is None else torch.from_numpy(rows)
        self.image, self.text = truth["image_codes"][chosen], truth["text_codes"][chosen]
        self.kind, self.gain, self.atoms = truth["kind"], truth["gain"], truth["atoms"]
        self.groups = features.view.groups()


def in_parallel(measure: Callable[[Run], Found], runs: Sequence[Run], jobs: int | None, device: str) -> Iterator[Found]:
    """Yield what each run gives, in order; runs in parallel, because such small matrices would leave most cores idle.

    Args:
        measure: makes the results of a run; travels to other processes.
        runs: the runs.
        jobs: number of processes; None: one for each core, or one for a GPU.
        device: where the runs compute.
    """
    jobs = jobs or (1 if device.startswith("cuda") else usable_cores())
    yield from Parallel(n_jobs=min(jobs, len(runs)), return_as="generator")(
        delayed(_measured)(measure, run) for run in runs
    )


def _measured(measure: Callable[[Run], Found], run: Run) -> Found:
    keep_freed_memory()
    return measure(run)


def content(cfg: DictConfig, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return the part of a configuration that determines a run's results, with the content of `dataset.noise_from`.

    That of other files, such as a dictionary to start from, is not in it.

    Args:
        cfg: the composed configuration.
        without: further sections that change nothing.
    """
    made = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(made, dict)
    if "training" in made:
        made["training"] = {key: value for key, value in made["training"].items() if key not in NEUTRAL}
    if "trainer" in made:  # a training that max_time breaks off gives no result
        changing = {key: value for key, value in made["trainer"].items() if key not in NEUTRAL_OPTIONS}
        made["trainer"] = changing | ({"max_time": None} if "max_time" in changing else {})
    if (store := made.get("dataset", {}).get("noise_from")) is not None:
        made["dataset"]["noise_from"] = content_fingerprint(store)
    return {str(key): value for key, value in made.items() if key not in WITHOUT_EFFECT.union(without)}
