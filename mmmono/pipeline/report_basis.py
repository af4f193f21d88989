"""What a result in the report rests on: how many pairs and groups, of which model and data, and what of them was lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import MmmonoError
from mmmono.features import FeatureStore, FeatureView, split_view
from mmmono.features.store import Manifest
from mmmono.pipeline.datasets import CC3M_PAIRS
from mmmono.pipeline.feature_sets import Trained
from mmmono.pipeline.workspace import Features, Workspace

# Where the paper used another model or other data than CLIP RN50 on CC3M.
PAPERS_OWN = {"ablation": ("clip_vit_h14", "coco"), "text_to_image": ("clip_vit_h14", "cc3m")}
PAPERS_SETTING = ("clip_rn50", "cc3m")
DECLIP = ("declip_rn50", "cc3m")  # Figure 4 has a panel of it


@dataclass(frozen=True)
class Basis:
    """Attributes: pairs and groups, such as the pictures of several captions, of a split of a store."""

    pairs: int
    groups: int
    store: str
    split: str

    def __str__(self) -> str:
        groups = "" if self.groups == self.pairs else f" in {self.groups:,} groups"
        return f"{self.pairs:,} pairs{groups} ({self.store}, {self.split} split)"


def basis_of(artifacts: Artifacts, recipe: Any, own: Features) -> Basis | None:
    """What a recipe's entry `features` names; None where the store is gone.

    Args:
        artifacts: the root.
        recipe: that entry.
        own: features that may lie elsewhere than under the root.
    """
    if recipe == own.recipe:
        view, name = own.view, own.store.path.name
    else:
        store = next((a for a in artifacts.made_from({"store": recipe["store"]}) if a.kind == "features"), None)
        if store is None:
            return None
        try:
            found, name = FeatureStore(store.path), store.path.name
        except MmmonoError:
            return None
        whole = "seed" not in recipe
        view = (
            FeatureView(found)
            if whole
            else split_view(found, recipe["split"], recipe["seed"], recipe["train_fraction"])
        )
    return Basis(len(view), _groups(view), name, recipe["split"])


def _groups(view: FeatureView) -> int:
    try:
        metadata = view.metadata()
    except MmmonoError:
        return len(view)
    return int(metadata["group"].nunique()) if "group" in metadata else len(view)


def papers_own(workspace: Workspace) -> bool:
    """Whether the report is of the model and the data that most of the paper is about."""
    return (workspace.model.name, workspace.dataset_name) == PAPERS_SETTING


def origin(result: Artifact) -> tuple[str, str] | None:
    """Model and dataset of a result that is not the workspace's, as the paper used them; None for others."""
    for model, dataset in (*PAPERS_OWN.values(), DECLIP):
        if f"-{model}-{dataset}-" in result.path.name:
            return model, dataset
    return None


def pair_differences(workspace: Workspace) -> Iterator[tuple[str, str, str]]:
    """What of the pairs differs from the paper: others, fewer, and lost ones."""
    val = workspace.features(workspace.dataset.split)
    limit = "" if workspace.dataset.limit is None else f", dataset.limit={workspace.dataset.limit}"
    here = f"{workspace.dataset_name}, {workspace.dataset.split}: {len(val.view):,} pairs{limit}"
    same = (workspace.dataset_name, workspace.dataset.split) == ("cc3m", "val")
    if not same or len(val.view) != CC3M_PAIRS["val"]:
        yield "pairs", f"CC3M, validation: {CC3M_PAIRS['val']:,} pairs", here
    splits = {workspace.dataset.split: val}
    if any(isinstance(kind, Trained) for kind in workspace.recipes.values()):
        name = workspace.cfg.training.split
        train = splits.setdefault(name, workspace.features(name))
        if not same or len(train.view) != CC3M_PAIRS["train"]:
            here = f"{workspace.dataset_name}, {name}: {len(train.view):,} pairs{limit}"
            yield "training pairs", f"CC3M, train: {CC3M_PAIRS['train']:,} pairs", here
    stores = {features.store.path: split for split, features in splits.items()}
    for path, split in stores.items():
        manifest = FeatureStore(path).manifest
        if manifest is not None and (told := lost(manifest)):
            yield f"lost pairs{f', {split}' if workspace.dataset.native_splits else ''}", "not told", told


def lost(manifest: Manifest) -> str:
    """In words, what a store lacks of its source; empty where nothing was lost."""
    gone = manifest.skipped + manifest.missing
    if not gone and not manifest.broken:
        return ""
    total = manifest.count + gone
    reasons = [f"{count:,} × {reason}" for reason, count in manifest.reasons.items()]
    reasons += [f"broken: {part} ({why})" for part, why in manifest.broken.items()]
    return f"{gone:,} of {total:,} ({100 * gone / max(1, total):.1f} %): {'; '.join(reasons)}"
