import numpy as np
import pytest
import torch

from mmmono.features.retrieval import recall_at_k


def test_equals_ranks_by_sorting() -> None:
    rng = np.random.default_rng(0)
    queries, targets = rng.standard_normal((1500, 8)), rng.standard_normal((1500, 8))
    similarity = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        targets / np.linalg.norm(targets, axis=1, keepdims=True)
    ).T
    ranks = (np.argsort(-similarity, axis=1) == np.arange(1500)[:, None]).argmax(1)
    got = recall_at_k(torch.from_numpy(queries), torch.from_numpy(targets), (1, 10, 1500))
    assert got == pytest.approx({k: (ranks < k).mean() for k in (1, 10, 1500)}, abs=2e-3)


def test_features_that_say_nothing_score_chance() -> None:
    assert recall_at_k(torch.zeros(50, 3), torch.zeros(50, 3), (1, 5))[5] == pytest.approx(0.1)
    assert recall_at_k(torch.eye(4), torch.eye(4), (1,))[1] == 1.0
