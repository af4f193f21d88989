"""What a result in the report is based on: model, dataset, number of pairs and groups, and lost pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmmono.core.errors import MmmonoError
from mmmono.data.pairs import LEAST_SELECT, SplitShares
from mmmono.features import FeatureStore, FeatureView, split_view
from mmmono.features.grouping import Grouping
from mmmono.features.store import Manifest
from mmmono.pipeline.datasets import CC3M_PAIRS
from mmmono.pipeline.workspace import Workspace

PAPERS_SETTING = ("clip_rn50", "cc3m")  # model and dataset of most of the paper's results


@dataclass(frozen=True)
class Basis:
    """The pairs that a result is computed from.

    Attributes:
        pairs: number of pairs.
        groups: number of groups, such as images with several captions.
        store: name of the feature store.
        split: the split, and whether something was fitted to it.
    """

    pairs: int
    groups: int
    store: str
    split: str

    def __str__(self) -> str:
        groups = "" if self.groups == self.pairs else f" in {self.groups:,} groups"
        return f"{self.pairs:,} pairs{groups} ({self.store}, split {self.split})"


def basis_of(workspace: Workspace, recipe: Any) -> Basis | None:
    """Find the pairs that a recipe's entry `features` refers to; None if the store does not exist any more.

    Args:
        workspace: its features may be outside the artifacts root.
        recipe: the entry.
    """
    own = workspace.features(workspace.dataset.split)
    artifacts = workspace.artifacts
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
        grouping = Grouping(recipe.get("group"))
        if (shares := recipe.get("shares")) is None:
            view = FeatureView(found, grouping=grouping)
        elif shares.get("least_select") != LEAST_SELECT:  # of an earlier rule, by which no split is made any more
            return None
        else:
            parts = SplitShares(shares["seed"], shares["train"], shares["select"])
            view = split_view(found, recipe["split"], parts, grouping)
    same = recipe["store"] == own.store.digest
    return Basis(len(view), _groups(view), name, workspace.described(recipe["split"]) if same else recipe["split"])


def _groups(view: FeatureView) -> int:
    try:
        return int(view.groups().max()) + 1
    except MmmonoError:
        return len(view)


def is_papers_setting(workspace: Workspace) -> bool:
    """Whether the workspace has the paper's main model and dataset, CLIP RN50 on CC3M."""
    return (workspace.model.name, workspace.dataset_name) == PAPERS_SETTING


def pair_differences(workspace: Workspace) -> Iterator[tuple[str, str, str]]:
    """Yield differences between the paper's pairs and these: (setting, the paper's value, the value here)."""
    val = workspace.features(workspace.dataset.split)
    limit = "" if workspace.dataset.limit is None else f", dataset.limit={workspace.dataset.limit}"
    here = f"{workspace.dataset_name}, {workspace.dataset.split}: {len(val.view):,} pairs{limit}"
    same = (workspace.dataset_name, workspace.dataset.split) == ("cc3m", "val")
    if not same or len(val.view) != CC3M_PAIRS["val"]:
        yield "pairs", f"CC3M, validation: {CC3M_PAIRS['val']:,} pairs", here
    splits = {workspace.dataset.split: val}
    if any(kind.trained for kind in workspace.specs.values()):
        name = workspace.settings.training.split
        train = splits.setdefault(name, workspace.features(name))
        if not same or len(train.view) != CC3M_PAIRS["train"]:
            here = f"{workspace.dataset_name}, {name}: {len(train.view):,} pairs{limit}"
            yield "training pairs", f"CC3M, train: {CC3M_PAIRS['train']:,} pairs", here
    stores = {features.store.path: split for split, features in splits.items()}
    for path, split in stores.items():
        manifest = FeatureStore(path).manifest
        if manifest is not None and (losses := lost(manifest)):
            yield f"lost pairs{f', {split}' if workspace.dataset.native_splits else ''}", "not reported", losses


def lost(manifest: Manifest) -> str:
    """Describe which of the source's pairs a store lacks; empty if it has all."""
    gone = manifest.skipped + manifest.missing
    if not gone and not manifest.broken:
        return ""
    total = manifest.count + gone
    reasons = [f"{count:,} × {reason}" for reason, count in manifest.reasons.items()]
    reasons += [f"broken: {part} ({why})" for part, why in manifest.broken.items()]
    return f"{gone:,} of {total:,} ({100 * gone / max(1, total):.1f} %): {'; '.join(reasons)}"
