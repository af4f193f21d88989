"""Agreement of partitions and scores, against scikit-learn, scipy and known permutations."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from mmmono.modality import (
    adjusted_rand_index,
    energy_ratio,
    image_auroc,
    match_features,
    partition_by_sigma,
    rank_correlation,
)
from mmmono.modality.agreement import reordered

GENERATOR = torch.Generator().manual_seed(0)


def test_rand_index_looks_at_features_live_in_both() -> None:
    a = torch.rand(50, generator=GENERATOR)
    b = a + 0.2 * torch.rand(50, generator=GENERATOR)
    b[3] = torch.nan
    first, second = partition_by_sigma(a, 0.7), partition_by_sigma(b, 0.7)
    both = [i for i in range(50) if i != 3]
    expected = adjusted_rand_score([first.class_of()[i] for i in both], [second.class_of()[i] for i in both])
    assert adjusted_rand_index(first, second) == pytest.approx(expected)
    assert 0 < expected < 1
    assert adjusted_rand_index(first, first) == 1
    dead = partition_by_sigma(torch.full((50,), torch.nan))
    assert np.isnan(adjusted_rand_index(first, dead))


def test_rank_correlation_is_spearmans() -> None:
    a, b = torch.rand(30, generator=GENERATOR), torch.rand(30, generator=GENERATOR)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert np.isnan(rank_correlation(a, torch.ones(30)))
    assert np.isnan(rank_correlation(a, torch.full((30,), torch.nan)))


def test_matching_undoes_a_permutation_and_partitions_follow() -> None:
    a = torch.rand(200, 12, generator=GENERATOR)
    a[:, 5] = 0
    order = torch.randperm(12, generator=GENERATOR)
    b = 3 * a[:, order] + 0.05 * torch.rand(200, 12, generator=GENERATOR)
    b[:, order == 5] = 0
    partners, match = match_features((x, y, "image") for x, y in zip(a.split(33), b.split(33), strict=True))
    live = [i for i in range(12) if i != 5]
    assert order[partners][live].tolist() == live
    assert match[live].min() > 0.95
    assert match[5] == 0
    correlation = np.corrcoef(a[:, live[0]], b[:, partners[live[0]]])[0, 1]
    assert match[live[0]].item() == pytest.approx(correlation)
    scores = torch.arange(12.0)
    renamed = reordered(partition_by_sigma(scores[order]), partners)
    assert renamed.class_of() == partition_by_sigma(scores).class_of()


def test_auroc_is_scikit_learns_with_ties() -> None:
    image = torch.randint(-3, 4, (60, 5), generator=GENERATOR).float()
    text = torch.randint(-2, 3, (45, 5), generator=GENERATOR).float()
    scores = image_auroc(image, text)
    target = [1] * 60 + [0] * 45
    for d in range(5):
        expected = roc_auc_score(target, torch.cat([image[:, d], text[:, d]]).abs())
        assert scores[d].item() == pytest.approx(expected)
    torch.testing.assert_close(image_auroc(text, image), 1 - scores)


def test_energy_ratio() -> None:
    image, text = torch.rand(40, 4, generator=GENERATOR), torch.rand(40, 4, generator=GENERATOR)
    image[:, 3] = text[:, 3] = 0
    blocks = list(zip(image.split(7), text.split(7), strict=True))
    a, b = (image.numpy() ** 2).sum(0), (text.numpy() ** 2).sum(0)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(energy_ratio(blocks), a / (a + b), rtol=1e-5)
    swapped = energy_ratio([(t, i) for i, t in blocks])
    torch.testing.assert_close(swapped[:3], 1 - energy_ratio(blocks)[:3])
    with pytest.raises(ValueError, match="no activations"):
        energy_ratio([])
    with pytest.raises(ValueError, match="no activations"):
        match_features([])
