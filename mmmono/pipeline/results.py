"""Find the results on disk that belong to the current settings, and describe how the others differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.core.errors import MissingArtifactError
from mmmono.core.shown import as_typed
from mmmono.core.versions import version_of, versioned
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.workspace import Workspace

OWN_SETS = "own_sets"  # entry of a recipe: the feature sets are the analysis' own choice, with their partitions
PARTITIONS_VERSION = "partitions_version"  # entry of such a recipe: version of the partitions
# Entries of a recipe of features that no setting changes, and what results with other values are.
EARLIER = {"content": "features of another extraction", "metadata": "keys and groups as an earlier version read them"}
SHARES = {"seed": "split_seed", "train": "train_fraction", "select": "select_fraction"}  # settings of a hash split


class ResultsOnDisk:
    """Results that were computed with the workspace's settings: its pairs, feature sets, scores, partition and seed.

    A result belongs if its recipe agrees with the workspace in these entries: `features` (or `scored_on`, if features
    are scored on other pairs than analyzed), `sets` (the feature sets with digests of their dictionaries), `mds`
    and `partition` (settings of score and partition), `seed` and `label`. Entries that a recipe lacks do not matter to
    the analysis. A result may cover only some of the selected feature sets. One with the entry `own_sets` compares feature
    sets of its own choice, whatever the selected ones are; the version of its partitions has to be the current one.

    Attributes:
        untrained: selected feature sets whose dictionary does not exist, if the workspace builds nothing.
    """

    def __init__(self, workspace: Workspace) -> None:
        features = workspace.features(workspace.dataset.split)
        self._artifacts = workspace.artifacts
        self._store = features.store
        self._features = features.recipe
        self._chosen: dict[str, Any] = {
            **workspace.partition_settings(), "seed": workspace.seed, "label": workspace.dataset.label
        }  # fmt: skip
        self._sets: dict[str, dict[str, Any]] = {}
        self._partitions: dict[str, str] = {}
        self.untrained: list[str] = []
        for name in workspace.specs:
            try:
                self._sets[name] = workspace.feature_set_recipe(name)
                self._partitions |= workspace.partition_digests([name])
            except MissingArtifactError:
                self.untrained.append(name)
        # Names of the feature stores by their digests; the workspace's own may lie outside the root.
        self._stems = {a.path.name.rpartition("-")[2]: _stem(a) for a in workspace.artifacts.find("features")}
        self._stems[self._store.digest] = _stem(self._store)
        self._results = sorted(workspace.artifacts.find("results"), key=lambda result: result.made_at, reverse=True)

    def of(self, analysis: Analysis) -> list[Artifact]:
        """All results of an analysis, sorted by number of feature sets (largest first), then newest first."""
        found = (result for result in self._made_by(analysis) if not self.differences(result))
        return sorted(found, key=lambda result: -len(_sets_of(result.recipe)))

    def latest(self, analysis: Analysis, name: str | None = None) -> Artifact | None:
        """First result of `of`; with `name`, the newest one that covers this feature set. None if there is none."""
        found = self.of(analysis)
        if name is not None:
            found = [result for result in found if name in set_names(_sets_of(result.recipe))]
            found.sort(key=lambda result: -result.made_at)
        return found[0] if found else None

    def page(self, name: str) -> Artifact | None:
        """Page of this name, such as the explorer, that belongs and covers the most feature sets; None if none does."""
        found = [page for page in self._named(name) if not self.differences(page)]
        return max(found, key=lambda page: len(page.recipe["sets"]), default=None)

    def elsewhere(self, analysis: Analysis, model: str, dataset: str) -> Artifact | None:
        """Newest result of an analysis on the given model and dataset, under any settings; None if there is none."""
        return next((r for r in self._made_by(analysis) if self.origin(r) == f"{model}-{dataset}"), None)

    def unrelated(self, analysis: Analysis) -> Artifact | None:
        """Newest result of an analysis that does not depend on the features, such as the validation."""
        return next(self._made_by(analysis), None)

    def origin(self, result: Artifact) -> str:
        """Model and dataset of a result, as `<model>-<dataset>`; empty if its features do not exist any more."""
        features = result.recipe.get("features")
        if not isinstance(features, Mapping):
            return ""
        return self._stems.get(features["store"], "")

    def other_settings(self, analysis: Analysis) -> list[str]:
        """Describe the differing settings of results of the same model and dataset that do not belong, newest first."""
        others = (result for result in self._made_by(analysis) if self.origin(result) == _stem(self._store))
        return list(dict.fromkeys(", ".join(found) for result in others if (found := self.differences(result))))

    def differences(self, result: Artifact) -> list[str]:
        """Describe the settings of a result that differ from the workspace's; empty if the result belongs."""
        recipe = result.recipe
        found = [
            *self._other_pairs(recipe.get("scored_on", recipe.get("features"))),
            *([] if OWN_SETS in recipe else self._other_sets(_sets_of(recipe))),
            *(text for key, mine in self._chosen.items() if key in recipe for text in _other(key, recipe[key], mine)),
        ]
        current = version_of("partitions")
        used = recipe.get("partitions", {}).items()
        earlier = any(self._partitions.get(name) != address for name, address in used)
        if not found and (earlier or recipe.get(PARTITIONS_VERSION, current) != current):
            found.append("partitions of an earlier version")  # since no setting differs
        return found

    def _made_by(self, analysis: Analysis) -> Iterator[Artifact]:
        return (found for found in self._named(analysis.name) if analysis.is_current(found.recipe))

    def _named(self, name: str) -> Iterator[Artifact]:
        return (result for result in self._results if result.path.name.startswith(f"{name}-"))

    def _other_pairs(self, made_from: Mapping[str, Any] | None) -> Iterator[str]:
        if _same(made_from, self._features):
            return
        if made_from is None:
            yield "of no features"
            return
        for key in sorted({*made_from, *self._features} - {"store", *EARLIER}):
            theirs, mine = made_from.get(key), self._features.get(key)
            if key == "shares" and isinstance(theirs, Mapping) and isinstance(mine, Mapping):
                yield from (f"dataset.{SHARES[k]}={theirs[k]}" for k in theirs if theirs[k] != mine.get(k))
            elif theirs != mine:
                yield f"dataset.{key}={theirs}"
        if made_from["store"] != self._store.digest:
            store = next(iter(self._artifacts.made_from({"store": made_from["store"]})), None)
            found = store.recipe if store else {}
            known = [k for k in ("dtype", "limit", "precision") if found.get(k) != self._store.recipe.get(k)]
            if store is None or not known:
                yield "other features"
            else:
                yield from (f"{key}={found.get(key)}" for key in known)
            return
        yield from (said for key, said in EARLIER.items() if made_from.get(key) != self._features.get(key))

    def _other_sets(self, sets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        if not sets:
            yield "of no feature set"
        for entry in sets:
            mine = self._sets.get(entry["name"])
            if mine is None:
                yield f"with features={entry['name']}"
            elif entry["normalize"] != mine["normalize"]:
                yield f"features.normalize={as_typed(entry['normalize'])}"
            elif not _same(entry, mine):
                yield f"another {entry['name']}"


def made_with(artifacts: Artifacts, path: Path, recipe: Mapping[str, Any]) -> Artifact | None:
    """Return the newest result that was made with a recipe, or with the same for more feature sets; None if there is none.

    What an analysis says of a feature set does not depend on which others it was asked about.

    Args:
        artifacts: the root.
        path: folder of the result with exactly this recipe.
        recipe: entries `sets` and `partitions` may have more in the result.
    """
    wanted = json.loads(json.dumps(versioned("results", path.name, recipe), default=str))
    found = artifacts.find("results", f"{path.name.rpartition('-')[0]}-*")
    return max((one for one in found if _covers(one.recipe, wanted)), key=lambda one: one.made_at, default=None)


def _covers(recipe: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    sets, partitions = recipe.get("sets", []), recipe.get("partitions", {})
    own = {"sets": wanted.get("sets", []), "partitions": wanted.get("partitions", {})}
    rest = [{key: value for key, value in one.items() if key not in own} for one in (recipe, wanted)]
    more = all(entry in sets for entry in own["sets"]) and own["partitions"].items() <= partitions.items()
    return more and _same(*rest)


def _stem(store: Artifact) -> str:
    """Name of a feature store, `<model>-<dataset>`, without the digest that artifacts have at the end."""
    return store.path.name.rpartition("-")[0] if store.kind == "features" else store.path.name


def _sets_of(recipe: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Feature sets in a recipe; none if it has none, or its own."""
    return recipe.get("sets") or []


def set_names(sets: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the feature sets in a recipe's entry `sets`."""
    return [s["name"] for s in sets]


def rule_in_words(rule: Mapping[str, Any]) -> str:
    """Format a partition's settings, such as `n_sigma = 1.0`."""
    return ", ".join(f"{key} = {value}" for key, value in rule.items() if not str(key).startswith("_"))


def _other(key: str, theirs: Any, mine: Any) -> Iterator[str]:
    if _same(theirs, mine):
        return
    if key == "partition":
        yield f"partition by {rule_in_words(theirs)}"
    elif isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        yield from (f"{key}.{k}={theirs.get(k)}" for k in theirs if theirs.get(k) != mine.get(k))
    elif key == "label":
        yield f"dataset.label={theirs}"
    else:
        yield f"{key.replace('_', ' ')}={theirs}"


def _same(one: object, other: object) -> bool:
    """Whether two values are equal as JSON, the form in which recipes are saved."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)
