"""Removal ablation (Section 2.2, Table 1): how much classification suffers when a class of features is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from mmmono.core.finite import check_finite, double
from mmmono.core.statistics import Interval
from mmmono.modality.partition import LIVE_CLASSES, FeatureClass, Partition

Array = np.ndarray[Any, Any]
SPLITS = 5  # 80/20 splits: fit on four fifths, test on one


@dataclass(frozen=True)
class Ablation:
    """One row of Table 1.

    Attributes:
        deletion: `None`, `Random`, or the class whose features were removed.
        size_of: class whose size determines how many features were removed; None in the first row.
        neurons: number of features removed, or kept if the ablation keeps the class instead.
        accuracy: test accuracy; in `Random` rows the mean over random sets. None if the class is empty.
        spread: standard deviation of the accuracy over random sets; only in `Random` rows.
        delta_none: accuracy − accuracy with all features, paired by test sample.
        delta_random: accuracy − accuracy with equally many random features removed, paired by test sample.

    Intervals are bootstrapped over test samples.
    """

    deletion: str
    size_of: FeatureClass | None
    neurons: int
    accuracy: Interval | None
    spread: float | None = None
    delta_none: Interval | None = None
    delta_random: Interval | None = None


@dataclass(frozen=True)
class AblationSettings:
    """How classes of features are removed, and how often the classification is repeated.

    Attributes:
        folds: how many of the five 80/20 splits to use; with 5, every sample is tested once.
        n_random: random sets per class.
        keep: the reverse ablation: of the live features, keep only the class, or equally many random ones.
        refit: refit the classifier without the features; if False, only set them to zero in the test samples.
        n_bootstrap: bootstrap resamples of the test samples.
        seed: seed of splits, random sets and resamples.

    Raises:
        ValueError: `folds`, `n_random` or `n_bootstrap` is out of range.
    """

    folds: int = 1
    n_random: int = 5
    keep: bool = False
    refit: bool = True
    n_bootstrap: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.folds <= SPLITS:
            raise ValueError(f"folds={self.folds} must lie between 1 and {SPLITS}")
        if self.n_random < 1:
            raise ValueError(f"n_random={self.n_random} must be at least 1")
        if self.n_bootstrap < 1:
            raise ValueError(f"n_bootstrap={self.n_bootstrap} must be at least 1")


SetName = tuple[str, FeatureClass | None]  # `deletion` and `size_of` of a row of the table


def removal_ablation(
    features: Float[Array, "samples features"],
    labels: Sequence[str],
    partition: Partition,
    settings: AblationSettings = AblationSettings(),
    *,
    jobs: int | None = None,
) -> list[Ablation]:
    """Classify with all features, without each class of features, and without equally many random ones (Table 1).

    Uses logistic regression on features divided by the root mean square of all activations, and 80/20 splits
    stratified by label.

    Args:
        features: activations of one modality.
        labels: label of each sample.
        partition: classes to remove; random features are drawn from the live ones.
        settings: splits, random sets, resamples, and the variant of the ablation.
        jobs: number of processes; all cores by default.

    Returns:
        The row `None`, then for each class a row `Random` and a row of the class.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there are fewer than two labels, a label has fewer than five samples, or numbers of samples and
            labels differ.
    """
    x, y = _rows(features), np.asarray(labels)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} samples but {len(y)} labels")
    _check_labels(y)
    largest = np.abs(x).max()  # divide by it first, so that squares do not overflow
    x = x / (largest or 1)
    x /= np.sqrt(np.mean(np.square(x))) or 1
    rng = np.random.default_rng(settings.seed)
    hits = _hits(x, y, _removed_sets(partition, settings, rng), settings, jobs)
    tested = hits["None", None].shape[1]
    return _table(hits, partition, rng.multinomial(tested, np.full(tested, 1 / tested), size=settings.n_bootstrap))


def _removed_sets(
    partition: Partition, settings: AblationSettings, rng: np.random.Generator
) -> dict[SetName, list[Array]]:
    """Return the sets of features that are removed: none, and for each class random sets and the class itself."""
    live = np.concatenate([partition[name].numpy() for name in LIVE_CLASSES])
    sets: dict[SetName, list[Array]] = {("None", None): [np.empty(0, np.int64)]}
    for name in LIVE_CLASSES:
        members = partition[name].numpy()
        if len(members):
            sets["Random", name] = [rng.choice(live, len(members), replace=False) for _ in range(settings.n_random)]
            sets[name, name] = [members]
    if settings.keep:
        return {key: [np.setdiff1d(live, s) for s in removed] if key[1] else removed for key, removed in sets.items()}
    return sets


def _hits(
    x: Array, y: Array, sets: dict[SetName, list[Array]], settings: AblationSettings, jobs: int | None
) -> dict[SetName, Bool[Array, "sets tested"]]:
    """Return which test samples are classified correctly without each set, for the test samples of all folds."""
    splits = list(StratifiedKFold(SPLITS, shuffle=True, random_state=settings.seed).split(x, y))[: settings.folds]
    keys = [key for key, several in sets.items() for _ in several]
    removed = [indices for several in sets.values() for indices in several]
    jobs_of_fold = [[indices] for indices in removed] if settings.refit else [removed]
    results = Parallel(n_jobs=jobs or -1)(
        delayed(_correct)(x, y, train, test, several) for train, test in splits for several in jobs_of_fold
    )
    by_fold = [np.concatenate(results[i : i + len(jobs_of_fold)]) for i in range(0, len(results), len(jobs_of_fold))]
    table = np.concatenate(by_fold, axis=1)
    return {key: table[[i for i, other in enumerate(keys) if other == key]] for key in sets}


def _table(
    hits: dict[SetName, Bool[Array, "sets tested"]], partition: Partition, weights: Int[Array, "resamples tested"]
) -> list[Ablation]:
    """Return the rows of the table; `weights` says how often each resample contains each test sample."""

    def interval(per_sample: Array) -> Interval:
        resampled = weights @ per_sample / len(per_sample)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Interval(float(per_sample.mean()), float(low), float(high), method="percentile bootstrap")

    everything = hits["None", None].mean(0)
    rows = [Ablation("None", None, 0, interval(everything))]
    for name in LIVE_CLASSES:
        size = len(partition[name])
        if not size:
            rows += [Ablation("Random", name, 0, None), Ablation(name, name, 0, None)]
            continue
        sets, own = hits["Random", name], hits[name, name].mean(0)
        random = sets.mean(0)
        spread = float(sets.mean(1).std(ddof=1)) if len(sets) > 1 else None
        rows += [
            Ablation("Random", name, size, interval(random), spread, interval(random - everything)),
            Ablation(name, name, size, interval(own), None, interval(own - everything), interval(own - random)),
        ]
    return rows


def _correct(x: Array, y: Array, train: Array, test: Array, removed: Sequence[Array]) -> Bool[Array, "sets test"]:
    """Mask of the correctly classified test samples without each set of features.

    A single set is removed before fitting; of several sets, each is only set to zero in the test samples.
    """
    kept = np.ones(x.shape[1], dtype=bool)
    if len(removed) == 1:
        kept[removed[0]] = False
    model = LogisticRegression(max_iter=1000)
    if not kept.any():  # without features, predict the most frequent label
        names, counts = np.unique(y[train], return_counts=True)
        return (y[test] == names[counts.argmax()])[None]
    model.fit(x[train][:, kept], y[train])
    if len(removed) == 1:
        return (model.predict(x[test][:, kept]) == y[test])[None]
    rows = []
    for indices in removed:
        zeroed = x[test].copy()
        zeroed[:, indices] = 0
        rows.append(model.predict(zeroed) == y[test])
    return np.stack(rows)


def _rows(features: Any) -> Array:
    """Convert an array or tensor of activations to a float64 array, checked to be finite."""
    tensor = double(torch.as_tensor(features)).cpu()
    check_finite(tensor, "sample")
    return tensor.numpy()


def _check_labels(labels: Array) -> None:
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} different labels: a classification needs at least 2")
    if counts.min() < SPLITS:
        name = str(names[counts.argmin()])
        raise ValueError(f"label {name!r} has {counts.min()} samples, fewer than {SPLITS}: leave it out")
