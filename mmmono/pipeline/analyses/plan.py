"""`experiments/plan.py`: what a reproduction would compute, what it would find, and how much room that takes.

Every step is composed as its entrypoint would be and run against an artifacts root that builds nothing, so that it names
exactly what the entrypoint would look for. No model is loaded.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmmono.core.artifacts import Artifact, FinishedArtifacts
from mmmono.core.errors import ConfigError, DataError, MissingArtifactError
from mmmono.features import FeatureStore
from mmmono.pipeline.analyses.ablation import ablate
from mmmono.pipeline.analyses.adversarial import study_attacks
from mmmono.pipeline.analyses.certainty import assess_certainty
from mmmono.pipeline.analyses.dominance import score_modality_dominance
from mmmono.pipeline.analyses.faithfulness import measure_faithfulness
from mmmono.pipeline.analyses.gender import study_concepts
from mmmono.pipeline.analyses.interpretability import interpret
from mmmono.pipeline.analyses.text_to_image import control_generation
from mmmono.pipeline.analyses.top_samples import find_top_samples
from mmmono.pipeline.datasets import Planted, Stored
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.tables import console, show_table

ANALYSES: dict[str, Callable[[Workspace], object]] = {
    "mds": score_modality_dominance,
    "certainty": assess_certainty,
    "ablation": ablate,
    "top_samples": find_top_samples,
    "interpretability": interpret,
    "faithfulness": measure_faithfulness,
    "gender": study_concepts,
    "adversarial": study_attacks,
    "text_to_image": control_generation,
}
TO_MAKE, FOUND, CANNOT = "to make", "found", "cannot"
TYPE_BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Item:
    """Something a step needs or makes.

    Attributes:
        step: section of the paper.
        what: in words.
        state: whether it is there, is to be made, or cannot be made.
        size: bytes it takes or will take, as far as that can be told.
        path: its folder, where it is there.
        why: it cannot be made.
    """

    step: str
    what: str
    state: str
    size: int | None = None
    path: Path | None = None
    why: str = ""

    def to_row(self) -> dict[str, object]:
        """For the table."""
        return {
            "section": self.step, "what": self.what, "state": self.state, "size": readable(self.size),
            "where": self.path.name if self.path else "",
        }  # fmt: skip


def print_plan(cfg: DictConfig) -> None:
    """The plan of all steps in `plan.steps` as a table, and the room that what is still to be made will take."""
    settings = cfg.plan
    given = [o.removeprefix("+") for o in HydraConfig.get().overrides.task if _key(o) not in ("plan", "hydra")]
    items: dict[tuple[str, Path | None], Item] = {}
    for step in settings.steps:
        overrides = [*given, *(step.get("overrides") or ())]
        if settings.exact and step.get("paper"):
            kept = [o for o in overrides if _key(o) not in step.get("own", ())]
            overrides = [f"+paper={step.paper}", *kept]
        if settings.exact and step.get("on_coco"):
            if settings.coco is None:
                why = "the paper's own is on COCO, give its folder (make COCO=..., or plan.coco=...)"
                what = f"results of {step.entrypoint}"
                items[what, None] = Item(step.section, what, CANNOT, why=why)
                continue
            overrides.append(f"dataset.root={settings.coco}")
        for item in plan_step(step.section, step.entrypoint, overrides):
            items.setdefault((item.what, item.path), item)
    rows = list(items.values())
    show_table(
        [item.to_row() for item in rows], f"Plan: {cfg.model.name} on {HydraConfig.get().runtime.choices['dataset']}"
    )
    for item in rows:
        if item.why:
            console.print(f"{item.what} cannot be made: {item.why}")
    to_make = [item for item in rows if item.state == TO_MAKE]
    room = sum(item.size or 0 for item in to_make)
    root = Path(cfg.artifacts).absolute()
    free = shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free
    found = sum(item.state == FOUND for item in rows)
    console.print(
        f"{len(to_make)} to make, {found} found in {cfg.artifacts}; about {readable(room)} more, {readable(free)} are free"
    )
    if room > free:
        console.print("That does not fit: free some room, or point artifacts=/path/with/room elsewhere", style="red")


def plan_step(section: str, entrypoint: str, overrides: list[str]) -> Iterator[Item]:
    """What an entrypoint needs and makes with these overrides; those of settings it does not have are left out.

    Raises:
        ConfigError: a setting cannot work.
        DataError: the pairs cannot be had.
    """
    known = compose(entrypoint)
    cfg = compose(entrypoint, [o for o in overrides if _key(o) in known or o.startswith("+")])
    workspace = Workspace(cfg, makes="none", artifacts=_Lookup(cfg.artifacts))
    complete = True
    for split in dict.fromkeys((cfg.training.split, workspace.dataset.split)):
        item = _features(workspace, section, split)
        complete &= item.state == FOUND
        yield item
    for name, recipe in workspace.recipes.items():
        if isinstance(recipe, Trained):
            item = _dictionary(workspace, section, name, recipe, look=complete)
            complete &= item.state == FOUND
            yield item
    if entrypoint in ANALYSES:
        yield _results(workspace, section, entrypoint, look=complete)


def _features(workspace: Workspace, section: str, split: Any) -> Item:
    dataset = workspace.dataset
    dim = _dim(workspace)
    what = "features" + (f", {split} split" if dataset.native_splits else "")
    try:
        store = workspace.features(split).store
    except MissingArtifactError:
        pairs = dataset.expected_pairs(split)
        number = TYPE_BYTES[workspace.cfg.extraction.dtype]
        size = None if pairs is None or dim is None else 2 * pairs * dim * number
        return Item(section, f"{what}: {pairs or 'unknown'} pairs × {dim or 'unknown'}", TO_MAKE, size)
    held = FeatureStore(store.path)
    return Item(section, f"{what}: {len(held)} pairs × {held.dim}", FOUND, folder_size(store.path), store.path)


def _dim(workspace: Workspace) -> int | None:
    """Width of the embeddings, as far as it is known without extracting them."""
    dataset = workspace.dataset
    if isinstance(dataset, Planted):
        return dataset.dim
    return dataset.store.dim if isinstance(dataset, Stored) else workspace.model.dim


def _dictionary(workspace: Workspace, section: str, name: str, recipe: Trained, look: bool) -> Item:
    what = f"dictionary {name}"
    if look:
        with suppress(MissingArtifactError):
            found = workspace.dictionary(name)
            return Item(section, what, FOUND, folder_size(found.path), found.path)
    settings, dim = recipe.settings, _dim(workspace)
    if dim is None:
        return Item(section, what, TO_MAKE)
    width = round(dim * settings["expansion"])
    steps, every = workspace.cfg.trainer.max_steps, workspace.cfg.training.snapshot_every
    copies = 4 + (steps // every + 1 if every else 0)  # weights, a checkpoint with Adam's two moments, snapshots
    active = f", {settings['k']} active" if "k" in settings else ""
    return Item(section, f"{what}: {width} features{active}", TO_MAKE, 2 * dim * width * 4 * copies)


def _results(workspace: Workspace, section: str, entrypoint: str, look: bool) -> Item:
    what = f"results of {entrypoint}"
    if look:
        try:
            ANALYSES[entrypoint](workspace)
        except _Found as found:
            return Item(section, what, FOUND, folder_size(found.path), found.path)
        except MissingArtifactError:
            pass
        except (ConfigError, DataError) as error:
            return Item(section, what, CANNOT, why=str(error))
    return Item(section, what, TO_MAKE)


def _key(override: str) -> str:
    """The group or first part of the setting that an override is about."""
    return re.split(r"[=./@]", override.lstrip("+~"))[0]


class _Found(Exception):
    """An analysis has its results; showing them is not wanted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class _Lookup(FinishedArtifacts):
    """Ends an analysis where it finds its results."""

    def build(
        self, kind: str, name: str, recipe: Mapping[str, Any], make: Callable[[Path], None], resumable: bool = False
    ) -> Artifact:
        artifact = super().build(kind, name, recipe, make, resumable)
        if kind == "results":
            raise _Found(artifact.path)
        return artifact


def folder_size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def readable(size: int | None) -> str:
    """Bytes in a unit that a person reads, empty for None."""
    if size is None:
        return ""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
