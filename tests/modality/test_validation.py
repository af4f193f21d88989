"""Recovery scores where the right ones are known."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mmmono.features.synthetic import SyntheticParameters, synthesize
from mmmono.modality import Partition, modality_dominance_score, partition_by_null, resample_dominance
from mmmono.modality.validation import (
    CLASS_OF_KIND,
    ConceptMatch,
    balanced_accuracy,
    discoveries,
    matched_cosine,
    mean_interval,
    mean_max_cosine,
    separation,
    shared_auroc,
)

KIND = torch.tensor([0, 0, 1, 1, 2, 2, 2])
GAIN = torch.tensor([torch.inf, torch.inf, 0, 0, 0.6, 1.0, 1.5])
SCORES = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.4, 0.5, 0.6])
NO_DEAD = torch.tensor([], dtype=torch.int64)


def test_perfect_features() -> None:
    """Seven features that are the concepts, in another order, and one that is nothing."""
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    correlations = torch.zeros(7, 8)
    correlations[torch.arange(7), order] = 1
    scores = torch.full((8,), torch.nan)
    scores[order] = SCORES
    classes = Partition(order[:2].sort()[0], order[2:4].sort()[0], order[4:].sort()[0], torch.tensor([7]))
    match = ConceptMatch.of(correlations)
    assert torch.equal(match.feature, order)
    assert torch.equal(match.concept[order], torch.arange(7))
    assert match.correlation.tolist() == [1] * 7
    found = separation(scores, match, KIND, GAIN)
    assert (found.auroc_image, found.auroc_text) == (1, 1)
    assert found.rank_correlation == pytest.approx(1)
    assert balanced_accuracy(classes, match, KIND) == 1
    assert discoveries(classes, match, KIND).false == 0


def test_reversed_scores() -> None:
    match = ConceptMatch.of(torch.eye(7))
    found = separation(1 - SCORES, match, KIND, GAIN)
    assert (found.auroc_image, found.auroc_text) == (0, 0)
    assert found.rank_correlation == pytest.approx(-1)
    assert np.isnan(separation(SCORES, match, KIND, torch.ones(7)).rank_correlation)


@settings(max_examples=50, deadline=None)
@given(classes=st.lists(st.sampled_from(["ImgD", "TextD", "CrossD"]), min_size=7, max_size=7))
def test_balanced_accuracy_is_scikit_learns(classes: list[str]) -> None:
    members = [
        torch.tensor([i for i, c in enumerate(classes) if c == name], dtype=torch.int64) for name in CLASS_OF_KIND
    ]
    expected = balanced_accuracy_score([CLASS_OF_KIND[k] for k in KIND], classes)
    assert balanced_accuracy(Partition(*members, NO_DEAD), ConceptMatch.of(torch.eye(7)), KIND) == pytest.approx(
        expected
    )


def test_dead_features_are_in_no_class() -> None:
    dead = Partition(torch.tensor([0]), torch.tensor([2, 3]), torch.tensor([4, 5, 6]), torch.tensor([1]))
    assert balanced_accuracy(dead, ConceptMatch.of(torch.eye(7)), KIND) == pytest.approx((0.5 + 1 + 1) / 3)
    scores = SCORES.clone()
    scores[:2] = torch.nan
    assert np.isnan(separation(scores, ConceptMatch.of(torch.eye(7)), KIND, GAIN).auroc_image)


def test_false_discoveries_are_counted() -> None:
    match = ConceptMatch.of(torch.eye(7))
    eager = Partition(torch.tensor([0, 1, 5, 6]), torch.tensor([2, 3, 4]), NO_DEAD, NO_DEAD)
    counted = discoveries(eager, match, KIND)
    assert (counted.made, counted.false) == (7, 3)
    assert counted.proportion == pytest.approx(3 / 7)
    nothing = Partition(NO_DEAD, NO_DEAD, torch.arange(7), NO_DEAD)
    assert discoveries(nothing, match, KIND).proportion == 0


def test_cosines_of_known_directions() -> None:
    atoms = torch.eye(3)
    assert mean_max_cosine(atoms, 5 * atoms[[2, 0, 1]]) == pytest.approx(1)
    assert matched_cosine(atoms, 5 * atoms[[2, 0, 1]]) == pytest.approx(1)
    between = torch.tensor([[1.0, 1, 0]])
    assert mean_max_cosine(atoms, between) == pytest.approx(2 * 0.5**0.5 / 3)
    assert matched_cosine(atoms, between) == pytest.approx(0.5**0.5 / 3)  # it may stand for one of the two


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), latents=st.integers(4, 6))
def test_matching_is_the_best_of_all(seed: int, latents: int) -> None:
    """Against every assignment there is."""
    generator = torch.Generator().manual_seed(seed)
    atoms, learned = torch.randn(4, 3, generator=generator), torch.randn(latents, 3, generator=generator)
    cosines = torch.cosine_similarity(atoms[:, None], learned[None], dim=2).numpy()
    best = max(cosines[np.arange(4), chosen].mean() for chosen in permutations(range(latents), 4))
    assert matched_cosine(atoms, learned) == pytest.approx(best, abs=1e-5)
    assert matched_cosine(atoms, learned) <= mean_max_cosine(atoms, learned) + 1e-6


def test_t_interval() -> None:
    of = mean_interval([1.0, 2.0, 3.0])
    assert (of.value, of.level) == (2, 0.95)
    assert (of.high - of.value, of.value - of.low) == pytest.approx(
        (4.3027 / 3**0.5,) * 2, rel=1e-4
    )  # t table, 2 degrees of freedom
    values = [0.1, 0.4, float("nan"), 0.35, 0.8]
    known = np.array([0.1, 0.4, 0.35, 0.8])
    half = t.ppf(0.95, 3) * known.std(ddof=1) / 2
    of = mean_interval(values, 0.9)
    assert (of.value, of.low, of.high) == pytest.approx((known.mean(), known.mean() - half, known.mean() + half))
    assert of.level == 0.9
    equal = mean_interval([0.5, 0.5])
    assert (equal.value, equal.bounded) == (0.5, False), "two equal seeds do not tell what others would give"
    assert mean_interval([0.5]).value == 0.5
    assert np.isnan([mean_interval([0.5]).low, mean_interval([0.5]).high]).all()
    assert np.isnan([*mean_interval([]).columns("mean").values()]).all()


@pytest.mark.slow
def test_the_null_keeps_its_rate_where_it_is_true() -> None:
    """Concepts with equal gains: Benjamini and Hochberg's rate is at most the nominal one times their share."""
    found = []
    for seed in range(12):
        parameters = SyntheticParameters(
            pairs=800, gain_spread=0, image_atoms=8, text_atoms=8, shared_atoms=48, active=8, seed=seed
        )
        pairs = synthesize(parameters)
        codes = (pairs.image_codes, pairs.text_codes)
        q = resample_dominance([codes], 1000, 1, 1, seed).q_value
        classes = partition_by_null(modality_dominance_score(*codes), q, fdr=0.2)
        counted = discoveries(classes, ConceptMatch.of(torch.eye(64)), pairs.kind)
        assert counted.made - counted.false == 16  # those that lean are all found
        found.append(counted.proportion)
    # Expected 0.2 · 48/64 = 0.15; a null that is no null at all would make it 0.75.
    assert 0.05 < np.mean(found) < 0.2


def test_auroc_of_shared_against_single_modality_concepts() -> None:
    match = ConceptMatch(torch.tensor([3, 0, 1, 2, 4]), torch.ones(5), torch.zeros(6, dtype=torch.int64))
    kind = torch.tensor([0, 1, 2, 2, 2])
    values = torch.tensor([0.3, 0.9, 0.2, 0.1, torch.nan, 5.0])  # by feature; concepts have .1, .3, .9, .2 and none
    assert shared_auroc(values, match, kind) == pytest.approx(roc_auc_score([0, 0, 1, 1], [0.1, 0.3, 0.9, 0.2]))
