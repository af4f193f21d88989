"""Removal ablation (Section 2.2, Table 1): how much classification suffers when a class of features is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from mmmono.core.finite import check_finite, double
from mmmono.modality.partition import LIVE_CLASSES, FeatureClass, Partition

Array = np.ndarray[Any, Any]
SPLITS = 5  # 80/20 splits: fit on four fifths, test on one


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % bootstrap confidence interval over test samples."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
    """

    deletion: str
    size_of: FeatureClass | None
    neurons: int
    accuracy: Interval | None
    spread: float | None = None
    delta_none: Interval | None = None
    delta_random: Interval | None = None


def removal_ablation(
    features: Float[Array, "samples features"],
    labels: Sequence[str],
    partition: Partition,
    *,
    folds: int = 1,
    n_random: int = 5,
    keep: bool = False,
    refit: bool = True,
    n_bootstrap: int = 2000,
    seed: int = 0,
    jobs: int | None = None,
) -> list[Ablation]:
    """Classify with all features, without each class of features, and without equally many random ones (Table 1).

    Uses logistic regression on features divided by the root mean square of all activations, and 80/20 splits
    stratified by label.

    Args:
        features: activations of one modality.
        labels: label of each sample.
        partition: classes to remove; random features are drawn from the live ones.
        folds: how many of the five 80/20 splits to use; with 5, every sample is tested once.
        n_random: random sets per class.
        keep: the reverse ablation: of the live features, keep only the class, or equally many random ones.
        refit: refit the classifier without the features; if False, only set them to zero in the test samples.
        n_bootstrap: bootstrap resamples of the test samples.
        seed: seed of splits, random sets and resamples.
        jobs: number of processes; all cores by default.

    Returns:
        The row `None`, then for each class a row `Random` and a row of the class.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there are fewer than two labels, a label has fewer than five samples, numbers of samples and
            labels differ, or `folds`, `n_random` or `n_bootstrap` is out of range.
    """
    x, y = _rows(features), np.asarray(labels)
    if len(x) != len(y):
        raise ValueError(f"{len(x)} samples but {len(y)} labels")
    check_ablation(y, folds, n_random, n_bootstrap)
    largest = np.abs(x).max()  # divide by it first, so that squares do not overflow
    x = x / (largest or 1)
    x /= np.sqrt(np.mean(np.square(x))) or 1
    rng = np.random.default_rng(seed)
    live = np.concatenate([partition[name].numpy() for name in LIVE_CLASSES])
    sets: dict[tuple[str, FeatureClass | None], list[Array]] = {("None", None): [np.empty(0, np.int64)]}
    for name in LIVE_CLASSES:
        members = partition[name].numpy()
        if len(members):
            sets["Random", name] = [rng.choice(live, len(members), replace=False) for _ in range(n_random)]
            sets[name, name] = [members]
    if keep:
        sets = {key: [np.setdiff1d(live, s) for s in removed] if key[1] else removed for key, removed in sets.items()}

    splits = list(StratifiedKFold(SPLITS, shuffle=True, random_state=seed).split(x, y))[:folds]
    keys = [key for key, several in sets.items() for _ in several]
    removed = [indices for several in sets.values() for indices in several]
    jobs_of_fold = [[indices] for indices in removed] if refit else [removed]
    results = Parallel(n_jobs=jobs or -1)(
        delayed(_correct)(x, y, train, test, several) for train, test in splits for several in jobs_of_fold
    )
    by_fold = [np.concatenate(results[i : i + len(jobs_of_fold)]) for i in range(0, len(results), len(jobs_of_fold))]
    table = np.concatenate(by_fold, axis=1)
    hits = {key: table[[i for i, other in enumerate(keys) if other == key]] for key in sets}
    weights = rng.multinomial(table.shape[1], np.full(table.shape[1], 1 / table.shape[1]), size=n_bootstrap)

    def interval(per_sample: Array) -> Interval:
        resampled = weights @ per_sample / len(per_sample)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Interval(float(per_sample.mean()), float(low), float(high))

    everything = hits["None", None].mean(0)
    rows = [Ablation("None", None, 0, interval(everything))]
    for name in LIVE_CLASSES:
        size = len(partition[name])
        if not size:
            rows += [Ablation("Random", name, 0, None), Ablation(name, name, 0, None)]
            continue
        random, own = hits["Random", name], hits[name, name].mean(0)
        rows += [
            Ablation(
                "Random", name, size, interval(random.mean(0)), float(random.mean(1).std(ddof=1)) if n_random > 1 else None,
                interval(random.mean(0) - everything),
            ),
            Ablation(name, name, size, interval(own), None, interval(own - everything), interval(own - random.mean(0))),
        ]  # fmt: skip
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


def check_ablation(labels: Array | Sequence[object], folds: int, n_random: int, n_bootstrap: int) -> None:
    """Check settings and labels of `removal_ablation` without activations. Raises ValueError if one cannot work."""
    if not 1 <= folds <= SPLITS:
        raise ValueError(f"folds={folds} must lie between 1 and {SPLITS}")
    if n_random < 1:
        raise ValueError(f"n_random={n_random}: give at least 1")
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap={n_bootstrap}: give at least 1")
    names, counts = np.unique(np.asarray(labels), return_counts=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} different labels: a classification needs at least 2")
    if counts.min() < SPLITS:
        name = str(names[counts.argmin()])
        raise ValueError(f"label {name!r} has {counts.min()} samples, fewer than {SPLITS}: leave it out")
