"""The runs whose feature sets the page shows: the command's own, and one with changed settings to compare it with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmmono.commands.explorer.results import Found, newest
from mmmono.core.artifacts import Artifact
from mmmono.core.errors import DataError
from mmmono.features import FeatureSet
from mmmono.pipeline.changed_settings import changed_settings
from mmmono.pipeline.results import ResultsOnDisk
from mmmono.pipeline.workspace import Workspace

SETTING = "explorer.compare"
NUMBERED = r"row-\d+"  # a key that a store without keys gives a row
LONGEST = 40  # characters of what tells the feature sets of both runs apart


@dataclass(frozen=True)
class Run:
    """A model on its pairs, with its feature sets and what other analyses found of them.

    Attributes:
        workspace: makes features and dictionaries.
        called: what follows the names of its feature sets on the page, such as ` of clip_rn50`; empty for the own run.
    """

    workspace: Workspace
    called: str = ""

    @cached_property
    def there(self) -> ResultsOnDisk:
        """Results that belong to the run."""
        return ResultsOnDisk(self.workspace)

    @cached_property
    def results(self) -> dict[str, dict[str, Artifact | None]]:
        """Newest result of each analysis that the page uses, by its name in `USED` and by feature set."""
        return newest(self.there, self.workspace.specs)

    def recipe(self) -> dict[str, Any]:
        """Recipe entries that determine what the page shows of the run."""
        workspace = self.workspace
        return {
            "features": workspace.features(workspace.dataset.split).recipe,
            **workspace.partitions_recipe(),
            "shows": {of: {name: r.digest if r else None for name, r in by.items()} for of, by in self.results.items()},
            "seed": workspace.seed,
        }


@dataclass(frozen=True)
class ShownSet:
    """A feature set of the page.

    Attributes:
        run: the run that it is of.
        number: of the run, 0 for the own one.
        own: its name in that run.
    """

    run: Run
    number: int
    own: str

    @property
    def name(self) -> str:
        """Its name on the page."""
        return self.own + self.run.called

    @property
    def feature_set(self) -> FeatureSet:
        """The feature set itself."""
        return self.run.workspace.feature_set(self.own)

    @property
    def found(self) -> Found:
        """What other analyses found of it."""
        by = {of: found[self.own] for of, found in self.run.results.items()}
        return Found(self.own, self.feature_set.num_features, by)


def runs_of(workspace: Workspace, changes: Sequence[str]) -> list[Run]:
    """The own run, and the one with changed settings if there are changes; nothing is extracted or trained yet.

    Raises:
        ConfigError: the changes are invalid; see `changed_settings`.
    """
    if not changes:
        return [Run(workspace)]
    cfg = changed_settings("explorer", SETTING, changes)
    other = Workspace(cfg, makes="results", artifacts=workspace.artifacts)
    return [Run(workspace), Run(other, _told_apart(workspace, other, changes))]


def shown_sets(runs: Sequence[Run]) -> Iterator[ShownSet]:
    """The feature sets of all runs, in their order."""
    for number, run in enumerate(runs):
        yield from (ShownSet(run, number, name) for name in run.workspace.specs)


def title_of(runs: Sequence[Run]) -> str:
    """Model, dataset and split of each run."""
    own, *others = (run.workspace.title for run in runs)
    return " and ".join([own, *(f"the same{runs[1].called}" if other == own else other for other in others)])


def check_same_pairs(runs: Sequence[Run]) -> None:
    """Raise DataError unless all runs evaluate the same pairs, by key and caption, in the same order."""
    own = runs[0].workspace
    for other in (run.workspace for run in runs[1:]):
        if own.modalities != other.modalities:
            raise DataError(
                f"{SETTING}: {own.modalities.pair} pairs of {own.title} cannot be compared with {other.modalities.pair} "
                f"pairs of {other.title}: give both the same dataset.modalities"
            )
        mine, theirs = _pairs(own, other)
        if mine == theirs:
            continue
        both = len(set(mine) & set(theirs))
        counts = f"{len(mine):,} pairs of {own.title} and {len(theirs):,} of {other.title}"
        if sorted(mine) == sorted(theirs):
            raise DataError(
                f"{SETTING}: {counts} are the same in another order: sort the rows of one store as the other's"
            )
        raise DataError(
            f"{SETTING}: {counts} have {both:,} in common, by key and caption, but must be the same: give both runs the "
            "same pairs, dataset.split, shares and groups"
        )


def _pairs(*workspaces: Workspace) -> list[list[tuple[str, ...]]]:
    """Key and caption of each pair that is evaluated; the captions alone where pairs of one run have no keys."""
    tables = [workspace.features(workspace.dataset.split).view.metadata() for workspace in workspaces]
    for workspace, table in zip(workspaces, tables, strict=True):
        if "caption" not in table:
            raise DataError(f"{SETTING}: pairs of {workspace.title} have no captions, by which they are compared")
    keyed = all("key" in table and not table["key"].str.fullmatch(NUMBERED).all() for table in tables)
    columns = ["key", "caption"] if keyed else ["caption"]
    return [list(zip(*(table[column].tolist() for column in columns), strict=True)) for table in tables]


def _told_apart(own: Workspace, other: Workspace, changes: Sequence[str]) -> str:
    """What to add to names of the other run's feature sets, in letters that an address of the page may have."""
    if own.model.name != other.model.name:
        return f" of {other.model.name}"
    if own.dataset_name != other.dataset_name:
        return f" on {other.dataset_name}"
    words = " ".join(re.sub(r"^[^=]*\.|(?<==).*[/\\]", "", change, flags=re.DOTALL) for change in changes)
    words = re.sub(r"[^\w.=+-]+", " ", re.sub(r"[\[\]'\"]", "", words)).strip()
    return f" with {words if len(words) <= LONGEST else words[: LONGEST - 1] + '…'}"
