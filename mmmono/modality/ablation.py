"""Removal ablation (Section 2.2, Table 1): how much classification suffers when a class of features is removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from joblib import Parallel, delayed
from scipy.sparse import csr_array

from mmmono.core.crossed import crossed_mean
from mmmono.core.finite import check_finite, double
from mmmono.core.ranges import check_whole
from mmmono.core.statistics import Estimate, Interval, wilson
from mmmono.modality.partition import LIVE_CLASSES, FeatureClass, Partition
from mmmono.modality.random_sets import Activity, Match, RandomSet, check_match, random_pool, random_set

Array = np.ndarray[Any, Any]
Rows = Any  # an array, or a `csr_array`: scipy has no types
SPLITS = 5  # 80/20 splits: fit on four fifths, test on one


@dataclass(frozen=True)
class Ablation:
    """One row of Table 1.

    Attributes:
        deletion: `None`, `Random`, or the class whose features were removed.
        size_of: class whose size, and energy or firing frequency, random sets have; None in the first row.
        neurons: number of features removed, or kept if the ablation keeps the class instead.
        energy: share of Σ z² over all samples that these features carry; in `Random` rows the mean over random sets.
        accuracy: test accuracy; in `Random` rows the mean over random sets. None if the class is empty,
            or if there are no random sets, since the class holds all live features.
        spread: standard deviation of the accuracy over random sets; only in `Random` rows.
        mismatch: largest mismatch of the random sets, see `RandomSet`; only in `Random` rows.
        delta_none: accuracy − accuracy with all features, paired by test sample.
        delta_random: accuracy − accuracy with random features like those of the class removed, paired by test sample.

    Accuracies have Wilson intervals: over test samples for one set, over test samples and random sets as crossed factors
    (`crossed_mean`) for the mean over random sets. Differences from random sets are estimated over both factors as well,
    other differences over test samples. All take the classifiers as fitted: other training samples would give others, which
    the folds share in part. In simulations of 200 samples and five folds, standard errors of differences are a tenth too
    small by this, and intervals cover .91 to .93.
    """

    deletion: str
    size_of: FeatureClass | None
    neurons: int
    accuracy: Interval | None
    energy: float = 0.0
    spread: float | None = None
    mismatch: float | None = None
    delta_none: Interval | None = None
    delta_random: Estimate | None = None


@dataclass(frozen=True)
class AblationSettings:
    """How classes of features are removed, and how often the classification is repeated.

    Attributes:
        folds: how many of the five 80/20 splits to use; with 5, every sample is tested once.
        n_random: random sets per class.
        random_sets: what random sets have in common with the class besides their size: `energy`, `frequency`, or only the
            `size`; see `mmmono.modality.random_sets`.
        keep: the reverse ablation: keep only the class, or random ones like it; dead features are removed, too.
        refit: refit the classifier without the features; if False, only set them to zero in the test samples.
        seed: seed of splits and random sets.

    Raises:
        ValueError: `folds`, `n_random` or `random_sets` is out of range.
    """

    folds: int = 1
    n_random: int = 5
    random_sets: Match = "energy"
    keep: bool = False
    refit: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("folds", self.folds, most=SPLITS)
        check_whole("n_random", self.n_random)
        check_match(self.random_sets)


SetName = tuple[str, FeatureClass | None]  # `deletion` and `size_of` of a row of the table


def removal_ablation(
    features: Rows,
    labels: Sequence[str],
    partition: Partition,
    settings: AblationSettings = AblationSettings(),
    *,
    jobs: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[Ablation]:
    """Classify with all features, without each class of features, and without random ones like them (Table 1).

    Uses logistic regression on features divided by the root mean square of all activations, and 80/20 splits
    stratified by label.

    Args:
        features: activations of one modality, `[samples, features]`; a matrix of those that are not 0 (`compact_rows`) gives
            the same table, up to rounding, in less time and memory.
        labels: label of each sample. Samples must be independent: one of each group, else a group is in train and test.
        partition: classes to remove; random features are drawn from the live ones.
        settings: splits, random sets, and the variant of the ablation.
        jobs: number of processes; all cores by default.
        advance: called after each of `number_of_fits` classifiers.

    Returns:
        The row `None`, then for each class a row `Random` and a row of the class.

    Raises:
        NonFiniteError: an activation is NaN or infinite.
        ValueError: there are fewer than two labels, a label has fewer than five samples, numbers of samples and labels
            differ, or the partition is of other features.
    """
    x, y = _rows(features), np.asarray(labels)
    if x.shape[0] != len(y):
        raise ValueError(f"{x.shape[0]} samples but {len(y)} labels")
    if x.shape[1:] != (len(partition),):
        raise ValueError(
            f"activations {x.shape} but a partition of {len(partition)} features: both must be of the same"
        )
    _check_labels(y)
    values = x.data if isinstance(x, csr_array) else x  # a copy, see `_rows`
    values /= np.abs(values).max(initial=0) or 1  # first, so that squares do not overflow
    values /= np.sqrt(np.square(values).sum() / np.prod(x.shape)) or 1
    activity = Activity.of_sparse(x) if isinstance(x, csr_array) else Activity.of([torch.from_numpy(x)])
    sets = _feature_sets(partition, activity, settings)
    everything = np.arange(len(partition))
    removed = {
        key: [np.setdiff1d(everything, s.members) if settings.keep and key[1] else s.members for s in several]
        for key, several in sets.items()
    }
    return _table(_hits(x, y, removed, settings, jobs, advance), sets, activity)


def _feature_sets(
    partition: Partition, activity: Activity, settings: AblationSettings
) -> dict[SetName, list[RandomSet]]:
    """Return the sets of features that are removed or kept: none, and for each class random sets and the class itself."""
    rng, weights = np.random.default_rng(settings.seed), activity.weights(settings.random_sets)
    sets: dict[SetName, list[RandomSet]] = {("None", None): [RandomSet(np.empty(0, np.int64), 0.0)]}
    for name in LIVE_CLASSES:
        members = partition[name].numpy()
        pool = random_pool(partition, name, len(members), settings.random_sets)
        drawn = settings.n_random if len(members) and len(pool) else 0
        sets["Random", name] = [random_set(pool, members, weights, rng) for _ in range(drawn)]
        sets[name, name] = [RandomSet(members, 0.0)] if len(members) else []
    return sets


def number_of_fits(partition: Partition, settings: AblationSettings) -> int:
    """Number of classifiers that `removal_ablation` fits."""
    sizes = [len(partition[name]) for name in LIVE_CLASSES if len(partition[name])]
    compared = sum(size < len(partition.live) for size in sizes)
    return settings.folds * (1 + len(sizes) + compared * settings.n_random if settings.refit else 1)


def _hits(
    x: Rows,
    y: Array,
    sets: dict[SetName, list[Array]],
    settings: AblationSettings,
    jobs: int | None,
    advance: Callable[[], None],
) -> dict[SetName, Bool[Array, "sets tested"]]:
    """Return which test samples are classified correctly without each set, for the test samples of all folds."""
    from sklearn.model_selection import StratifiedKFold  # not at the top: it takes a second

    splits = list(StratifiedKFold(SPLITS, shuffle=True, random_state=settings.seed).split(x, y))[: settings.folds]
    keys = [key for key, several in sets.items() for _ in several]
    removed = [indices for several in sets.values() for indices in several]
    jobs_of_fold = [[indices] for indices in removed] if settings.refit else [removed]
    results = []
    for found in Parallel(n_jobs=jobs or -1, return_as="generator")(
        delayed(_correct)(x, y, train, test, several) for train, test in splits for several in jobs_of_fold
    ):
        results.append(found)
        advance()
    by_fold = [np.concatenate(results[i : i + len(jobs_of_fold)]) for i in range(0, len(results), len(jobs_of_fold))]
    table = np.concatenate(by_fold, axis=1)
    return {key: table[np.array([other == key for other in keys])] for key in sets}


def _table(
    hits: dict[SetName, Bool[Array, "sets tested"]], sets: dict[SetName, list[RandomSet]], activity: Activity
) -> list[Ablation]:
    """Return the rows of the table."""
    everything = hits["None", None]
    rows = [Ablation("None", None, 0, _accuracy(everything))]
    for name in LIVE_CLASSES:
        [*random], own = sets["Random", name], hits[name, name]
        if not len(own):
            rows += [Ablation("Random", name, 0, None), Ablation(name, name, 0, None)]
            continue
        members, found = sets[name, name][0].members, hits["Random", name]
        rows += [
            _random_row(name, random, found, everything, activity) if random else Ablation("Random", name, 0, None),
            Ablation(
                name, name, len(members), _accuracy(own), activity.share(members),
                delta_none=_difference(own, everything).interval(),
                delta_random=_difference(own, found) if random else None,
            ),
        ]  # fmt: skip
    return rows


def _random_row(
    name: FeatureClass,
    random: list[RandomSet],
    found: Bool[Array, "sets tested"],
    everything: Bool[Array, "sets tested"],
    activity: Activity,
) -> Ablation:
    return Ablation(
        "Random", name, len(random[0].members), _accuracy(found),
        energy=float(np.mean([activity.share(s.members) for s in random])),
        spread=float(found.mean(1).std(ddof=1)) if len(found) > 1 else None,
        mismatch=max(s.mismatch for s in random),
        delta_none=_difference(found, everything).interval(),
    )  # fmt: skip


def _accuracy(hits: Bool[Array, "sets tested"]) -> Interval:
    """Mean accuracy over sets, with its interval."""
    sets, tested = hits.shape
    if sets > 1:
        return _over_sets(hits.astype(np.float64)).rate_interval(tested)
    return Interval(float(hits.mean()), *wilson(int(hits.sum()), tested), method="Wilson")


def _difference(hits: Bool[Array, "sets tested"], others: Bool[Array, "others tested"]) -> Estimate:
    """Mean of hits − others over test samples and sets, of which one side has one."""
    return _over_sets(hits.astype(np.float64) - others).of_outcomes(hits.shape[1])


def _over_sets(values: Float[Array, "sets tested"]) -> Estimate:
    sets, samples = np.indices(values.shape)
    return crossed_mean(values.ravel(), samples.ravel(), sets.ravel(), "test samples and random sets")


def _correct(x: Rows, y: Array, train: Array, test: Array, removed: Sequence[Array]) -> Bool[Array, "sets test"]:
    """Mask of the correctly classified test samples without each set of features.

    A single set is removed before fitting; of several sets, each is only set to zero in the test samples.
    """
    kept = np.ones(x.shape[1], dtype=bool)
    if len(removed) == 1:
        kept[removed[0]] = False
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000)
    if not kept.any():  # without features, predict the most frequent label
        names, counts = np.unique(y[train], return_counts=True)
        return (y[test] == names[counts.argmax()])[None]
    if isinstance(x, csr_array):
        # A feature that is 0 in all of training has a weight of exactly 0; most latents of a wide dictionary are such.
        heard = np.zeros_like(kept)
        heard[x[train].indices] = True
        kept = kept & heard if (kept & heard).any() else kept
    model.fit(x[train][:, kept], y[train])
    if len(removed) == 1:
        return (model.predict(x[test][:, kept]) == y[test])[None]
    tested = x[test]
    return np.stack([model.predict(_without(tested, indices)[:, kept]) == y[test] for indices in removed])


def _without(x: Rows, features: Array) -> Rows:
    """A copy in which some features are 0."""
    zeroed = x.copy()
    if isinstance(zeroed, csr_array):
        zeroed.data[np.isin(zeroed.indices, features)] = 0
    else:
        zeroed[:, features] = 0
    return zeroed


def _rows(features: Any) -> Rows:
    """Copy activations as float64, checked to be finite: an array or tensor, or a matrix of those that are not 0."""
    if isinstance(features, csr_array):
        found = features.astype(np.float64, copy=True)
        found.sum_duplicates()
        if not (finite := np.isfinite(found.data)).all():
            row = int(np.searchsorted(found.indptr, finite.argmin(), side="right")) - 1
            check_finite(torch.from_numpy(found[[row]].toarray()), "sample", row)
        return found
    tensor = double(features if isinstance(features, torch.Tensor) else torch.from_numpy(np.array(features))).cpu()
    check_finite(tensor, "sample")
    return tensor.numpy().copy()


def _check_labels(labels: Array) -> None:
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} different labels: a classification needs at least 2")
    if counts.min() < SPLITS:
        name = str(names[counts.argmin()])
        raise ValueError(f"label {name!r} has {counts.min()} samples, fewer than {SPLITS}: leave it out")
