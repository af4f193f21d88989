"""Which features are steered and what they are called: as `steered_answers.names` says, or as the analysis `names` found."""

from __future__ import annotations

from collections.abc import Sequence

from mmmono.analyses.names import NAMES, best_names
from mmmono.analyses.steered_answers import Settings
from mmmono.core.errors import ConfigError
from mmmono.modality import LIVE_CLASSES
from mmmono.pipeline.results import ResultsOnDisk
from mmmono.pipeline.steering import Steerable
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.result import Result, Rows

SECTION = "steered_answers"
Names = dict[int, str]


def check_names(workspace: Workspace, settings: Settings) -> None:
    """Raise ConfigError if there can be no names, before any embedding is made or any dictionary trained."""
    sets = ",".join(workspace.specs)
    if settings.names is not None:
        if len(workspace.specs) > 1:
            raise ConfigError(
                f"{SECTION}.names calls features of one feature set, but features=[{sets}] are several: choose one"
            )
    elif next(workspace.artifacts.find("results", f"{NAMES.name}-*"), None) is None:
        raise ConfigError(_no_names(sets))


def names_of(workspace: Workspace, settings: Settings, feature_set: str) -> Names:
    """Return the features to steer, each with its name; no two have the same.

    Raises:
        ConfigError: there are no names of this feature set, or fewer than two; a feature of `show` has none, or two of them
            have the same.
    """
    if settings.names is not None:
        return settings.named
    found = ResultsOnDisk(workspace).latest(NAMES, feature_set)
    if found is None:
        raise ConfigError(_no_names(feature_set))
    rows = [row for row in Result(found.path, found.recipe).rows("names") if row["feature_set"] == feature_set]
    if settings.show is None:
        named = best_of_classes(rows, settings.per_class)
    else:
        named = shown_names(rows, settings.show, feature_set)
    if len(named) < 2:
        raise ConfigError(
            f"features={feature_set} has {len(named)} features with names that hold: two are needed at least, each is a "
            f"control of the others; raise {SECTION}.per_class, or give {SECTION}.names"
        )
    return named


def best_of_classes(rows: Rows, per_class: int) -> Names:
    """Return the features of each class whose names hold best; a name that an earlier class has is passed over.

    Args:
        rows: of the table `names`, of one feature set.
        per_class: how many of each class.
    """
    taken: dict[str, int] = {}
    for of in LIVE_CLASSES:
        fresh = [row for row in best_names(rows, of) if row["name"] not in taken]
        taken |= {row["name"]: row["feature"] for row in fresh[:per_class]}
    return {feature: name for name, feature in taken.items()}


def shown_names(rows: Rows, show: Sequence[int], feature_set: str) -> Names:
    """Return the names of given features.

    Args:
        rows: of the table `names`, of one feature set.
        show: the features.
        feature_set: name of the feature set, for messages.

    Raises:
        ConfigError: a feature has no name that holds, or two have the same.
    """
    held = {row["feature"]: row["name"] for row in rows if row["named"]}
    if unnamed := sorted(set(show) - set(held)):
        raise ConfigError(
            f"{SECTION}.show: no name of features {unnamed} of {feature_set} holds: choose of {sorted(held)}"
        )
    named = {feature: held[feature] for feature in show}
    for name in named.values():
        same = [feature for feature, other in named.items() if other == name]
        if len(same) > 1:
            raise ConfigError(
                f"{SECTION}.show: features {same} of {feature_set} have the same name, “{name}”, so that one is no control "
                "of the other: choose one of them"
            )
    return named


def activated(names: Names, of: Steerable, settings: Settings) -> Names:
    """Return the named features that some image activates.

    Raises:
        ConfigError: no image activates one that the user named, or fewer than two are left.
    """
    silent = [feature for feature in names if of.reference[feature] == 0]
    images = f"none of {len(of.codes)} images"
    if silent and (settings.names is not None or settings.show is not None):
        key = "show" if settings.names is None else "names"
        raise ConfigError(
            f"{SECTION}.{key}: {images} activates features {silent} of {of.scored.name}, so that nothing says what strong "
            "is: leave them out"
        )
    left = {feature: name for feature, name in names.items() if feature not in silent}
    if len(left) < 2:
        raise ConfigError(
            f"features={of.scored.name}: {images} activates {len(silent)} of {len(names)} named features, and two are "
            f"needed at least, each is a control of the others; raise {SECTION}.per_class or {SECTION}.images"
        )
    return left


def _no_names(feature_set: str) -> str:
    return (
        f"features={feature_set} have no names yet, by which answers are judged: run experiments/names.py with the "
        f"same model=, dataset= and features= first, or say what some are called: {SECTION}.names=[12:dog,37:sea]"
    )
