"""Average precision and purity, against scikit-learn and by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from mmmono.interpretability.label_scores import average_precision, chance_precision, chance_purity, purity


def test_average_precision_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=(200, 100)), rng.integers(0, 3, (200, 60)), np.zeros((200, 1))], axis=1)
    members = rng.random((200, 3)) < [0.5, 0.1, 0.02]
    found = average_precision(torch.from_numpy(values), torch.from_numpy(members)).numpy()
    for feature in (0, 50, 99, 100, 127, 128, 159, 160):
        for label in range(3):
            expected = average_precision_score(members[:, label], values[:, feature])
            assert found[feature, label] == pytest.approx(expected, abs=1e-12)
    assert found[160] == pytest.approx(members.mean(0))  # says nothing


def test_a_label_that_no_sample_has_has_no_average_precision() -> None:
    members = torch.tensor([[True, False], [False, False]])
    assert average_precision(torch.tensor([[2.0], [1.0]]), members)[0].tolist() == pytest.approx(
        [1, np.nan], nan_ok=True
    )


@pytest.mark.parametrize(("members", "samples"), [(1, 40), (5, 40), (39, 40), (40, 40), (1, 1)])
def test_chance_is_the_mean_average_precision_of_random_orders(members: int, samples: int) -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.random((samples, 4000)))
    wanted = torch.arange(samples)[:, None] < members
    found = average_precision(values, wanted)[:, 0].numpy()
    error = found.std() / 4000**0.5
    assert chance_precision(members, samples) == pytest.approx(found.mean(), abs=4 * error + 1e-12)


def test_purity_is_the_share_of_the_commonest_label_of_features_that_are_active_enough() -> None:
    labels = np.array([0, 1, 1, 2, 0])
    values = torch.tensor([[5.0, 1, 0], [4, 2, 0], [3, 3, 1], [2, 4, 0], [1, 5, 0]])
    found = purity(values, labels, 3)
    assert found.share.tolist() == pytest.approx([2 / 3, 1 / 3, np.nan], nan_ok=True)
    assert found.label.tolist()[0] == 1
    assert found.label.tolist()[2] == -1
    assert purity(values, labels, 6).share.isnan().all()


def test_purity_by_chance_is_above_the_commonest_label_and_exact_for_a_single_one() -> None:
    rng = np.random.default_rng(0)
    assert chance_purity(np.zeros(50, np.int64), 10, rng) == 1
    even = chance_purity(np.arange(1000) % 10, 20, rng, draws=400)
    expected = np.mean([np.bincount(rng.integers(0, 10, 20)).max() / 20 for _ in range(4000)])
    assert even == pytest.approx(expected, abs=0.01)
    assert even > 0.1


def test_average_precision_of_many_labels_costs_hardly_more_than_that_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2000, 256, generator=generator)
    members = torch.randint(0, 100, (2000,), generator=generator)[:, None] == torch.arange(100)

    def seconds(labels: torch.Tensor) -> float:
        found = []
        for _ in range(3):
            start = time.process_time()
            average_precision(values, labels)
            found.append(time.process_time() - start)
        return min(found)

    assert seconds(members) < 10 * seconds(members[:, :1])
