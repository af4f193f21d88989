import time

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from mmmono.core.errors import NonFiniteError
from mmmono.interpretability import centered_activations, co_firing, counterparts, feature_map, nearest_features
from mmmono.interpretability import neighbors as module
from mmmono.interpretability import together as together_module


def test_neighbors_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_FEATURES", 7)
    atoms = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 4)))
    found = nearest_features(atoms, 3)
    distance, index = NearestNeighbors(n_neighbors=4, metric="cosine").fit(atoms.numpy()).kneighbors(atoms.numpy())
    np.testing.assert_array_equal(found.features, index[:, 1:])
    np.testing.assert_allclose(found.cosines, 1 - distance[:, 1:], atol=1e-6)


def test_nothing_is_near_what_is_silent_or_opposed() -> None:
    found = nearest_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [2.0, 0.1]]), 5)
    assert found.features.tolist() == [[3, *[-1] * 4], [-1] * 5, [-1] * 5, [0, *[-1] * 4]]
    assert found.cosines[2].tolist() == [0.0] * 5
    assert nearest_features(torch.ones(1, 3), 2).features.tolist() == [[-1, -1]]
    with pytest.raises(ValueError, match="count=0"):
        nearest_features(torch.ones(3, 3), 0)


def test_correlations_are_numpys_within_a_modality() -> None:
    rng = np.random.default_rng(1)
    image, text = rng.random((50, 6)), rng.random((50, 6)) + 10 * rng.random(6)  # a gap that would swamp the rest
    found = nearest_features(centered_activations(torch.from_numpy(image), torch.from_numpy(text)), 1)
    expected = np.corrcoef(np.concatenate([image - image.mean(0), text - text.mean(0)]).T)
    np.fill_diagonal(expected, -1)
    positive = expected.max(1) > 0
    np.testing.assert_array_equal(found.features[positive, 0], expected.argmax(1)[positive])
    np.testing.assert_allclose(found.cosines[positive, 0], expected.max(1)[positive], atol=1e-6)


def test_counterparts_are_numpys_largest_correlations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_FEATURES", 4)
    rng = np.random.default_rng(2)
    mine, theirs = rng.normal(size=(9, 40)), rng.normal(size=(5, 40))
    theirs[3] = 2 * mine[7] + 1  # the same, but for scale
    mine[4] = 0
    centered = [side - side.mean(1, keepdims=True) for side in (mine, theirs)]
    found = counterparts(*map(torch.from_numpy, centered), count=2)
    with np.errstate(invalid="ignore"):
        r = np.nan_to_num(np.corrcoef(mine, theirs)[:9, 9:])
    order = np.argsort(-r, axis=1)[:, :2]
    expected = np.take_along_axis(r, order, 1)
    np.testing.assert_array_equal(found.features, np.where(expected > 0, order, -1))
    np.testing.assert_allclose(found.cosines, expected.clip(0), atol=1e-6)
    assert found.features[7, 0] == 3
    assert found.features[4].tolist() == [-1, -1]
    with pytest.raises(ValueError, match="vectors of 3 and 4 entries"):
        counterparts(torch.ones(2, 3), torch.ones(2, 4))


@pytest.mark.parametrize("share", [0.02, 0.4])  # counted one by one, and by a matrix product
def test_co_firing_is_numpys_phi_within_modalities(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(together_module, "CHUNK_FEATURES", 5)
    rng = np.random.default_rng(3)
    image, text = rng.random((300, 12)) < share, rng.random((200, 12)) < share
    image[:, 1], text[:, 1] = image[:, 0], text[:, 0]  # always together
    image[:, 2], image[:, 3] = True, True  # on all images and no texts: that alone is not going together
    text[:, 2], text[:, 3] = False, False
    found = co_firing(torch.from_numpy(image), torch.from_numpy(text), 3)
    centered = np.concatenate([image - image.mean(0), text - text.mean(0)])
    with np.errstate(invalid="ignore"):
        phi = np.nan_to_num(np.corrcoef(centered.T))
    np.fill_diagonal(phi, -1)
    order = np.argsort(-phi, axis=1, kind="stable")[:, :3]
    expected = np.take_along_axis(phi, order, 1)
    np.testing.assert_allclose(found.cosines, expected.clip(0), atol=1e-6)
    assert found.features[0, 0] == 1
    assert found.cosines[0, 0] == pytest.approx(1)
    assert (found.features[2:4] == -1).all()
    with pytest.raises(ValueError, match="12 features on images but 3"):
        co_firing(torch.from_numpy(image), torch.from_numpy(text[:, :3]), 2)
    assert (co_firing(torch.zeros(0, 4, dtype=torch.bool), torch.zeros(0, 4, dtype=torch.bool), 2).features == -1).all()


def test_a_map_keeps_neighbors_together() -> None:
    rng = np.random.default_rng(4)
    centers = rng.normal(size=(5, 20)) * 3
    directions = torch.from_numpy(np.repeat(centers, 16, axis=0) + 0.3 * rng.normal(size=(80, 20)))
    directions[17] = 0
    places = feature_map(directions, seed=1)
    assert places[17].isnan().all()
    kept = ~places.isnan().any(1)
    assert kept.sum() == 79
    assert (places[kept] >= 0).all()
    assert (places[kept] <= 1).all()
    unit = torch.nn.functional.normalize(directions[kept], dim=1)
    assert trustworthiness(unit.numpy(), places[kept].numpy(), n_neighbors=5) > 0.9
    torch.testing.assert_close(feature_map(directions, seed=1), places, equal_nan=True)  # the same again
    scaled = feature_map(directions * torch.linspace(0.5, 9, 80, dtype=torch.float64)[:, None], "pca")
    torch.testing.assert_close(scaled, feature_map(directions, "pca"), equal_nan=True, atol=1e-4, rtol=0)


@pytest.mark.parametrize("features", [0, 1, 2, 3, 5])
def test_a_map_of_few_features(features: int) -> None:
    places = feature_map(torch.eye(max(1, features))[:features])
    assert places.shape == (features, 2)
    assert ((places >= 0) & (places <= 1)).all()
    assert feature_map(torch.ones(3, 1)).tolist() == [[0.5, 0.5]] * 3  # all alike
    with pytest.raises(NonFiniteError):
        feature_map(torch.full((3, 2), torch.nan))
    with pytest.raises(ValueError, match="method=umap"):
        feature_map(torch.ones(3, 1), "umap")  # type: ignore[arg-type]


def test_co_firing_of_rare_features_is_found_from_those_that_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image, text = (torch.from_numpy(rng.random((200, 300)) < 0.02) for _ in range(2))
    image[:, 7], text[:, 7] = image[:, 3], text[:, 3]
    image[:, 9] = text[:, 9] = False
    found = co_firing(image, text, 300)
    monkeypatch.setattr(together_module, "SPARSE", 0)  # all pairs of features
    every = co_firing(image, text, 300)
    assert torch.equal(found.cosines, every.cosines)
    chosen = found.features >= 0
    assert torch.equal(chosen, every.features >= 0)
    for feature in range(300):  # equal φ may come in another order
        mine, theirs = (
            sorted(zip(of.cosines[feature].tolist(), of.features[feature].tolist(), strict=True))
            for of in (found, every)
        )
        assert mine == theirs
    assert found.features[3, 0] == 7
    assert not bool(chosen[9].any())


def test_co_firing_of_a_wide_dictionary_takes_no_time_for_features_that_never_meet() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = [torch.zeros(100, 65_536, dtype=torch.bool) for _ in range(2)]
    for side in sides:
        side.scatter_(1, torch.randint(0, 65_536, (100, 32), generator=generator), True)
    start = time.process_time()
    co_firing(*sides, 4)
    assert time.process_time() - start < 20  # as a matrix of all with all it takes minutes
