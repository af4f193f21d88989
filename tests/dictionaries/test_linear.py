"""Controls against scikit-learn, and as dictionaries like any other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from mmmono.core.errors import ConfigError
from mmmono.dictionaries import Dictionary
from mmmono.dictionaries.linear import LinearMap, fit_ica, fit_pca, random_directions, random_rotation


def mixed(samples: int = 600, dim: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Independent skewed sources, and a random mixture of them."""
    rng = np.random.default_rng(0)
    sources = rng.exponential(size=(samples, dim)) * (rng.random((samples, dim)) < 0.4)
    return torch.from_numpy(sources).float(), torch.from_numpy(sources @ rng.standard_normal((dim, dim)) + 2).float()


def test_pca_is_scikit_learns() -> None:
    _, z = mixed()
    codes = fit_pca(z).encode(z, "image")
    np.testing.assert_allclose(codes, PCA().fit_transform(z.numpy()), atol=2e-4)
    covariance = np.cov(codes.T.numpy())
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)


def test_ica_finds_the_sources_with_their_tails_up() -> None:
    sources, z = mixed()
    codes = fit_ica(z).encode(z, "text")
    correlation = np.corrcoef(sources.T.numpy(), codes.T.numpy())[:6, 6:]
    assert (correlation.max(0) > 0.95).all()
    assert sorted(correlation.argmax(0)) == list(range(6))


def test_a_rotation_keeps_lengths_and_angles() -> None:
    _, z = mixed()
    rotation = random_rotation(6, seed=1)
    codes = rotation.encode(z, "image")
    torch.testing.assert_close(codes @ codes.T, z @ z.T, rtol=1e-4, atol=1e-3)
    assert torch.linalg.det(rotation.forward_map).abs().item() == pytest.approx(1, abs=1e-5)
    assert not torch.equal(rotation.forward_map, random_rotation(6, seed=2).forward_map)
    assert torch.equal(rotation.forward_map, random_rotation(6, seed=1).forward_map)


def test_random_directions_are_of_length_1_and_decode_to_what_they_encode() -> None:
    _, z = mixed()
    directions = random_directions(6, 40, seed=1)
    torch.testing.assert_close(directions.forward_map.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(directions.decode(directions.encode(z, "image"), "image"), z, rtol=1e-3, atol=1e-3)
    assert torch.equal(directions.forward_map, random_directions(6, 40, seed=1).forward_map)
    assert float((random_directions(6, 4000).forward_map.mean(0)).norm()) < 0.05


@pytest.mark.parametrize("name", ["pca", "ica", "rotation"])
def test_controls_are_invertible_and_kept_like_dictionaries(name: str, tmp_path: Path) -> None:
    _, z = mixed()
    made = {"pca": lambda: fit_pca(z), "ica": lambda: fit_ica(z), "rotation": lambda: random_rotation(6)}[name]()
    torch.testing.assert_close(made.decode(made.encode(z, "image"), "image"), z, rtol=1e-4, atol=1e-3)
    made.save_pretrained(tmp_path)
    again = Dictionary.from_pretrained(tmp_path)
    assert isinstance(again, LinearMap)
    assert torch.equal(again.encode(z, "text"), made.encode(z, "text"))


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match="features=pca needs more samples than dimensions"):
        fit_pca(torch.rand(6, 6))
    with pytest.raises(ConfigError, match="features=ica"):
        fit_ica(torch.rand(5, 6))
