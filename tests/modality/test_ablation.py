"""Removal ablation on synthetic classes of features, and against scikit-learn's own cross-validation."""

import time

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from mmmono.core.errors import NonFiniteError
from mmmono.modality import AblationSettings, Partition, removal_ablation
from mmmono.modality.ablation import number_of_fits

LABELS = np.repeat(["bird", "cat", "dog"], 60)


def synthetic(informative: slice) -> np.ndarray:
    """Twelve features of noise, of which some tell the label."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((len(LABELS), 12))
    centers = rng.standard_normal((3, 12)) * 2
    x[:, informative] += centers[np.unique(LABELS, return_inverse=True)[1]][:, informative]
    return x.astype(np.float32)


def parts(*sizes: int) -> Partition:
    return Partition(*torch.arange(sum(sizes)).split(sizes))


def by_name(rows: list, deletion: str, size_of: str | None = None):  # type: ignore[no-untyped-def, type-arg]
    return next(r for r in rows if r.deletion == deletion and size_of in (None, r.size_of))


def test_accuracy_with_all_features_is_scikit_learns() -> None:
    x = synthetic(slice(0, 1))
    rows = removal_ablation(x, list(LABELS), parts(4, 4, 4, 0), AblationSettings(folds=5, n_random=1), jobs=1)
    scaled = x / np.sqrt((x.astype(float) ** 2).mean())
    splitter = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = cross_val_score(LogisticRegression(max_iter=1000), scaled, LABELS, cv=splitter).mean()
    none = by_name(rows, "None").accuracy
    assert none.value == pytest.approx(expected)
    assert none.low < none.value < none.high
    error = np.sqrt(expected * (1 - expected) / len(LABELS))
    assert none.high - none.low == pytest.approx(2 * 1.96 * error, rel=0.25)


@pytest.mark.slow
def test_only_the_informative_class_hurts() -> None:
    rows = removal_ablation(synthetic(slice(0, 3)), list(LABELS), parts(3, 4, 5, 0), AblationSettings(folds=5), jobs=1)
    image, text = by_name(rows, "ImgD"), by_name(rows, "TextD")
    assert image.delta_none.high < -0.2
    assert image.delta_random.interval().high < -0.05
    assert abs(text.delta_none.value) < 0.05
    # Random features of TextD's energy are as quiet and useless; of its size alone, they may be the informative ones.
    assert abs(text.delta_random.value) < 0.05
    alone = removal_ablation(
        synthetic(slice(0, 3)), list(LABELS), parts(3, 4, 5, 0), AblationSettings(folds=5, random_sets="size"), jobs=1
    )
    assert by_name(alone, "TextD").delta_random.value > 0.01
    random = by_name(rows, "Random", "ImgD")
    assert random.delta_random is None
    assert random.mismatch > 0.2  # no other features are as loud, and the table says so
    assert by_name(alone, "Random", "ImgD").spread > 0
    assert image.delta_none.value == pytest.approx(image.accuracy.value - by_name(rows, "None").accuracy.value)
    assert image.delta_random.value == pytest.approx(image.accuracy.value - random.accuracy.value)
    assert [r.deletion for r in rows] == ["None", "Random", "ImgD", "Random", "TextD", "Random", "CrossD"]
    assert [r.neurons for r in rows] == [0, 3, 3, 4, 4, 5, 5]


@pytest.mark.slow
def test_keeping_is_the_mirror_of_removing() -> None:
    rows = removal_ablation(
        synthetic(slice(0, 3)), list(LABELS), parts(3, 4, 5, 0), AblationSettings(folds=5, keep=True), jobs=1
    )
    assert by_name(rows, "ImgD").accuracy.value > by_name(rows, "None").accuracy.value - 0.05
    assert by_name(rows, "TextD").accuracy.value < 0.5


@pytest.mark.slow
def test_zeroing_at_test_only_hurts_as_well() -> None:
    rows = removal_ablation(
        synthetic(slice(0, 3)), list(LABELS), parts(3, 4, 5, 0), AblationSettings(refit=False, folds=2), jobs=1
    )
    assert by_name(rows, "ImgD").delta_none.high < -0.1
    assert abs(by_name(rows, "TextD").delta_none.value) < 0.1
    refitted = removal_ablation(
        synthetic(slice(0, 3)), list(LABELS), parts(3, 4, 5, 0), AblationSettings(folds=2), jobs=1
    )
    assert by_name(rows, "None").accuracy == by_name(refitted, "None").accuracy


def test_an_empty_class_says_so_and_a_class_of_everything_leaves_the_commonest_label() -> None:
    rows = removal_ablation(synthetic(slice(0, 3)), list(LABELS), parts(0, 0, 12, 0), jobs=1)
    assert by_name(rows, "ImgD").accuracy is None
    assert by_name(rows, "ImgD").neurons == 0
    assert by_name(rows, "CrossD").accuracy.value == pytest.approx(1 / 3)


def test_accuracies_of_random_sets_have_intervals_between_0_and_1() -> None:
    """Also if every test sample is classified correctly without any of the random sets."""
    easy = (LABELS[:, None] == np.unique(LABELS)).astype(float).repeat(4, axis=1)
    rows = removal_ablation(easy, list(LABELS), parts(2, 2, 8, 0), jobs=1)
    random = by_name(rows, "Random", "ImgD").accuracy
    assert random.value == 1
    assert 0.8 < random.low < 1
    assert random.high == pytest.approx(1)
    for row in removal_ablation(synthetic(slice(0, 3)), list(LABELS), parts(3, 4, 5, 0), jobs=1):
        assert 0 <= row.accuracy.low < row.accuracy.high <= 1


def test_dead_features_are_not_drawn_at_random() -> None:
    """They alone say what the label is, which cannot be told from random features that are kept, nor from the class."""
    told = (LABELS[:, None] == np.unique(LABELS)).astype(float).repeat(2, axis=1)
    x = np.hstack([np.random.default_rng(0).standard_normal((len(LABELS), 6)), told])
    partition = parts(5, 1, 0, told.shape[1])
    everything, *others = removal_ablation(x, list(LABELS), partition, AblationSettings(n_random=3, keep=True), jobs=1)
    assert everything.accuracy.value > 0.95
    assert all(by_name(others, name, "ImgD").accuracy.value < 0.6 for name in ("Random", "ImgD"))


@pytest.mark.slow
@pytest.mark.parametrize("match", ["energy", "frequency", "size"])
def test_random_sets_carry_what_the_class_carries_if_they_are_matched(match: str) -> None:
    """TextD is loud and holds nothing: without matching, random sets are quieter and its loss looks like another thing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((180, 40)) * np.r_[np.full(10, 0.3), np.full(10, 3.0), rng.pareto(1.5, 20) + 0.8]
    x[:, :20] *= rng.random((180, 20)) < 0.3
    rows = removal_ablation(
        x,
        list(LABELS),
        parts(10, 10, 20, 0),
        AblationSettings(n_random=4, random_sets=match),
        jobs=1,  # type: ignore[arg-type]
    )
    energy = (x**2).sum(0) / (x**2).sum()
    class_, random = by_name(rows, "TextD"), by_name(rows, "Random", "TextD")
    assert class_.energy == pytest.approx(energy[10:20].sum())
    assert (abs(random.energy / class_.energy - 1) < 0.02) == (match == "energy")
    assert random.mismatch <= 0.05
    assert class_.delta_random.p_value >= 0


@pytest.mark.slow
def test_the_seed_decides() -> None:
    x, labels, partition = synthetic(slice(0, 6)), list(LABELS), parts(3, 4, 5, 0)
    first = removal_ablation(x, labels, partition, AblationSettings(seed=3), jobs=1)
    assert first == removal_ablation(x, labels, partition, AblationSettings(seed=3), jobs=2)
    assert first != removal_ablation(x, labels, partition, AblationSettings(seed=4), jobs=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(labels=["a"] * 180), "1 different labels"),
        (dict(labels=["a"] * 176 + ["b"] * 4), "label 'b' has 4 samples"),
        (dict(labels=["a"] * 9), "180 samples but 9 labels"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], message: str) -> None:
    arguments = {"features": synthetic(slice(0, 3)), "labels": list(LABELS), "partition": parts(3, 4, 5, 0), **change}
    with pytest.raises(ValueError, match=message):
        removal_ablation(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [dict(folds=0), dict(folds=6), dict(n_random=0), dict(random_sets="length")])
def test_settings_out_of_range_are_refused(change: dict[str, object]) -> None:
    [(name, value)] = change.items()
    with pytest.raises(ValueError, match=f"{name}={value} (must|is none of)"):
        AblationSettings(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("refit", [True, False])
def test_a_class_of_all_features_is_compared_with_no_random_set(refit: bool) -> None:
    settings, fits = AblationSettings(folds=5, n_random=2, refit=refit), []
    x, everything = synthetic(slice(0, 3)), parts(0, 0, 12, 0)
    rows = removal_ablation(x, list(LABELS), everything, settings, jobs=1, advance=lambda: fits.append(1))
    [random, own] = [row for row in rows if row.size_of == "CrossD"]
    assert (random.accuracy, random.mismatch, own.delta_random, own.neurons) == (None, None, None, 12)
    assert own.delta_none is not None
    assert len(fits) == number_of_fits(everything, settings)


@pytest.mark.parametrize("change", [{}, {"keep": True}, {"refit": False}])
def test_activations_without_their_zeros_give_the_same_table(change: dict[str, bool]) -> None:
    rng = np.random.default_rng(0)
    x = synthetic(slice(0, 3)) * (rng.random((len(LABELS), 12)) < 0.5)
    x[:, 11] = 0
    partition, settings = parts(3, 4, 4, 1), AblationSettings(folds=5, n_random=2, **change)
    before = csr_array(x)
    fits: list[int] = []
    rows = removal_ablation(before, list(LABELS), partition, settings, jobs=1, advance=lambda: fits.append(1))
    assert len(fits) == number_of_fits(partition, settings)
    for mine, dense in zip(rows, removal_ablation(x, list(LABELS), partition, settings, jobs=1), strict=True):
        assert mine.accuracy == dense.accuracy
        assert mine.energy == pytest.approx(dense.energy)
        assert mine.delta_random == dense.delta_random
    assert (before.toarray() == x).all()  # not scaled in place
    before.data[7] = np.nan
    with pytest.raises(NonFiniteError, match=f"first at sample {before.nonzero()[0][7]}"):
        removal_ablation(before, list(LABELS), partition, settings, jobs=1)


def test_a_wide_dictionary_takes_no_more_time_than_its_activations_that_are_not_0() -> None:
    rng, width = np.random.default_rng(0), 65_536
    codes = np.zeros((len(LABELS), 32), np.int64) + rng.integers(0, width, (len(LABELS), 32))
    rows = np.repeat(np.arange(len(LABELS)), 32)
    wide = csr_array((rng.random(codes.size), (rows, codes.ravel())), shape=(len(LABELS), width))
    partition = parts(20_000, 20_000, 20_000, width - 60_000)
    start = time.process_time()
    table = removal_ablation(wide, list(LABELS), partition, AblationSettings(n_random=1), jobs=1)
    assert time.process_time() - start < 30  # with the zeros it takes minutes, and gigabytes
    assert len(table) == 7
