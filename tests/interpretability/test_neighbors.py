import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mmmono.interpretability import centered_activations, nearest_features
from mmmono.interpretability import neighbors as module


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
