"""Scale, means, broken pairs and agreement against numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

from mmmono.modality import (
    MeanStream,
    dominance_scores,
    other_partners,
    partition_by_margin,
    partition_by_sigma,
    scaled_scores,
    score_agreement,
)
from mmmono.modality.report import FeatureSetDominance


def pairs(seed: int = 0, count: int = 300, features: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    gains = rng.uniform(0.5, 2, features)
    image, text = rng.standard_normal((2, count, features))
    return torch.from_numpy(image * gains).float(), torch.from_numpy(text).float()


def scored(image: torch.Tensor, text: torch.Tensor, n_sigma: float = 1.0) -> FeatureSetDominance:
    scores = dominance_scores([(image, text)])
    return FeatureSetDominance("x", scores, partition_by_sigma(scores.scores, n_sigma))


def test_scores_of_scaled_images_are_eq_1_of_them() -> None:
    image, text = pairs()
    image[:40] = 0  # silent sides stay silent
    found = scaled_scores([(image[:100], text[:100]), (image[100:], text[100:])], (0.5, 3.0))
    for factor, scores in found.items():
        a, b = (x.double().abs().numpy() for x in (image * factor, text))
        np.testing.assert_allclose(scores.scores, (a / (a + b)).mean(0), atol=1e-7)
    assert list(found) == [0.5, 3.0]


def test_classes_by_a_fixed_margin_depend_on_the_scale_and_those_by_sigma_hardly_do() -> None:
    image, text = pairs()
    base = dominance_scores([(image, text)]).scores
    louder = scaled_scores([(image, text)], (2.0,))[2.0].scores
    margin = [len(partition_by_margin(scores, 0.1)["ImgD"]) for scores in (base, louder)]
    assert margin[1] > 1.2 * margin[0]
    sigma = [set(partition_by_sigma(scores)["ImgD"].tolist()) for scores in (base, louder)]
    assert len(sigma[0] ^ sigma[1]) <= 1


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_must_be_positive(factor: float) -> None:
    with pytest.raises(ValueError, match=r"factors=.* must be a positive number"):
        scaled_scores([pairs()], (factor,))


def test_means_of_both_modalities() -> None:
    image, text = pairs()
    stream = MeanStream()
    stream.add(image[:7], text[:7])
    stream.add(image[7:], text[7:])
    expected = np.stack([side.double().numpy().mean(0) for side in (image, text)])
    np.testing.assert_allclose(stream.result(), expected, atol=1e-12)
    with pytest.raises(ValueError, match="no activations to average"):
        MeanStream().result()


def test_agreement_is_that_of_scipy_and_scikit_learn() -> None:
    before, after = scored(*pairs(0)), scored(*pairs(0), n_sigma=0.5)
    other = scored(*pairs(3))
    after = FeatureSetDominance("x", other.scores, after.partition)
    old, new = (np.array(side.partition.class_of()) for side in (before, after))
    found = score_agreement(before, after)
    assert found.rho == pytest.approx(spearmanr(before.scores.scores, after.scores.scores).statistic)
    assert found.ari == pytest.approx(adjusted_rand_score(old, new))
    assert found.same == (old == new).mean()
    assert found.ImgD_kept == ((old == "ImgD") & (new == "ImgD")).sum()
    assert found.TextD_kept == ((old == "TextD") & (new == "TextD")).sum()
    rng = np.random.default_rng(0)
    drawn = [(old == rng.permutation(new)).mean() for _ in range(2000)]
    assert found.same_by_chance == pytest.approx(np.mean(drawn), abs=0.01)


def test_features_that_are_dead_in_either_are_left_out() -> None:
    image, text = pairs(0)
    before = scored(image, text)
    image[:, 0] = text[:, 0] = 0
    after = scored(image, text)
    found = score_agreement(before, after)
    classes = [np.array(side.partition.class_of()) for side in (before, after)]
    assert classes[1][0] == "dead"
    assert found.same == (classes[0][1:] == classes[1][1:]).mean()
    assert found.rho == pytest.approx(1)
    with pytest.raises(ValueError, match="40 features cannot be compared with 3"):
        score_agreement(before, scored(image[:, 1:4], text[:, 1:4]))


def test_broken_pairs_use_every_text_once_and_none_of_the_own_group() -> None:
    groups = np.random.default_rng(0).integers(0, 30, 200)
    partners = other_partners(groups, seed=1)
    assert sorted(partners) == list(range(200))
    assert (groups[partners] != groups).all()
    assert (partners != other_partners(groups, seed=2)).mean() > 0.9
    alone = other_partners(np.arange(50), seed=0)
    assert (alone != np.arange(50)).all()


def test_broken_pairs_need_other_groups() -> None:
    with pytest.raises(ValueError, match="one group has 3 of 5 pairs"):
        other_partners(np.array([0, 0, 0, 1, 2]), seed=0)
