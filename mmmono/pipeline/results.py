"""Which of the results on disk belong to the chosen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmmono.core.artifacts import Artifact
from mmmono.core.errors import MissingArtifactError
from mmmono.pipeline.workspace import Workspace


class ResultsOnDisk:
    """Results that were computed from the workspace's features and from no other feature set than its own.

    An analysis' recipe says so: `features` (or `partitions`, where it looks at other pairs than those the features were
    sorted by) is what it was computed from, `sets` the feature sets, with the digests of their dictionaries.

    Attributes:
        untrained: chosen feature sets whose dictionary is not there, where the workspace builds none.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._features = workspace.features(workspace.dataset.split).recipe
        self._sets: list[dict[str, Any]] = []
        self.untrained: list[str] = []
        for name in workspace.recipes:
            try:
                self._sets.append(workspace.feature_set_recipe(name))
            except MissingArtifactError:
                self.untrained.append(name)
        self._results = sorted(workspace.artifacts.find("results"), key=lambda result: result.made_at, reverse=True)

    def of(self, analysis: str) -> list[Artifact]:
        """All results of an analysis, those of the most chosen feature sets first, of equally many the newest."""
        named = [result for result in self._results if result.path.name.startswith(f"{analysis}-")]
        return sorted((r for r in named if self._belongs(r)), key=lambda result: -len(result.recipe["sets"]))

    def latest(self, analysis: str, name: str | None = None) -> Artifact | None:
        """The first of them, or the newest that looks at a feature set; None where there is none."""
        found = self.of(analysis)
        if name is not None:
            found = [result for result in found if name in set_names(result.recipe["sets"])]
            found.sort(key=lambda result: -result.made_at)
        return found[0] if found else None

    def unrelated(self, analysis: str) -> Artifact | None:
        """The newest result of an analysis that does not depend on the features, such as a validation."""
        return next((result for result in self._results if result.path.name.startswith(f"{analysis}-")), None)

    def _belongs(self, result: Artifact) -> bool:
        made_from = result.recipe.get("partitions", result.recipe.get("features"))
        sets = result.recipe.get("sets") or []
        return made_from == self._features and len(sets) > 0 and all(s in self._sets for s in sets)


def set_names(sets: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the feature sets of a recipe."""
    return [s["name"] for s in sets]
