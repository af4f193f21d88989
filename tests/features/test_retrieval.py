import numpy as np
import pytest
import torch
from scipy.stats import hypergeom

from mmmono.features.retrieval import clip_loss, recall_at_k, zero_shot_accuracy


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


def normalized(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_any_target_of_the_group_is_right() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 60, 300)
    centers = rng.standard_normal((60, 8))[groups]
    queries, targets = (centers + 1.5 * rng.standard_normal((300, 8)) for _ in range(2))
    order = np.argsort(-normalized(queries) @ normalized(targets).T, axis=1)
    got = recall_at_k(torch.from_numpy(queries), torch.from_numpy(targets), (1, 5, 10), groups)
    expected = {k: (groups[order[:, :k]] == groups[:, None]).any(1).mean() for k in (1, 5, 10)}
    assert got == pytest.approx(expected)
    own_only = recall_at_k(torch.from_numpy(queries), torch.from_numpy(targets), (1, 5, 10))
    assert all(own_only[k] < got[k] - 0.02 for k in own_only)


def test_pairs_that_are_their_own_groups_score_as_without_groups() -> None:
    queries, targets = torch.randn(2, 200, 4, generator=torch.Generator().manual_seed(0))
    assert recall_at_k(queries, targets, (1, 7), np.arange(200)) == recall_at_k(queries, targets, (1, 7))


def test_an_image_with_five_captions_is_one_image() -> None:
    """As COCO is evaluated: captions find one of the images, images find one of their own captions."""
    rng = np.random.default_rng(2)
    images, captions = rng.standard_normal((40, 6)), rng.standard_normal((200, 6))
    of = np.repeat(np.arange(40), 5)
    captions += images[of]
    shuffled = rng.permutation(200)
    rows = images[of].astype(np.float16).astype(np.float32) * rng.uniform(0.9995, 1.0005, (200, 6))  # as stored twice
    rows, texts, groups = rows[shuffled], captions[shuffled], of[shuffled]
    got = recall_at_k(torch.from_numpy(texts), torch.from_numpy(rows), (1, 3), groups)
    similarity = normalized(captions) @ normalized(images).T
    ranks = (similarity > similarity[np.arange(200), of][:, None] + 2e-3).sum(1)
    assert got == pytest.approx({k: (ranks < k).mean() for k in (1, 3)}, abs=0.02)
    back = recall_at_k(torch.from_numpy(rows), torch.from_numpy(texts), (1, 3), groups)
    order = np.argsort(-similarity.T, axis=1)
    hit = {k: (of[order[:, :k]] == np.arange(40)[:, None]).any(1).mean() for k in (1, 3)}
    assert back == pytest.approx(hit, abs=0.03)
    assert all(back[k] * 40 % 1 == pytest.approx(0, abs=1e-9) for k in back)  # 40 queries, not 200


def test_tied_groups_count_with_the_probability_of_a_right_one() -> None:
    """All equal: of 6 + 54 targets, k drawn at random hold one of the six with a hypergeometric probability."""
    groups = np.repeat(np.arange(10), 6)
    targets = torch.eye(60) + 1  # distinct rows, all equally far from the query
    got = recall_at_k(torch.ones(60, 60), targets, (1, 4, 55), groups)
    assert got == pytest.approx({k: hypergeom(60, 6, k).sf(0) for k in (1, 4, 55)})


def test_groups_must_be_those_of_the_pairs() -> None:
    with pytest.raises(ValueError, match="4 pairs but 3 groups"):
        recall_at_k(torch.eye(4), torch.eye(4), (1,), np.arange(3))


def test_sides_that_do_not_fit_are_refused() -> None:
    z = torch.rand(4, 3)
    with pytest.raises(ValueError, match="a sample is of class 5, but the 2 classes are numbered from 0"):
        zero_shot_accuracy(z, z[:2], torch.tensor([0, 1, -1, 5]))
    with pytest.raises(ValueError, match=r"4 samples but targets of shape \(3,\)"):
        zero_shot_accuracy(z, z, torch.arange(3))
    with pytest.raises(ValueError, match="query embeddings of 3 dimensions but target embeddings of 2"):
        recall_at_k(z, z[:, :2])
    with pytest.raises(ValueError, match="4 images but 3 texts"):
        clip_loss(z, z[:3], 1.0)
