"""EmbSim and WinRate agree with Eq. 5 in numpy, in every type and at every scale that is no unit length too."""

import numpy as np
import pytest
import torch

from mmmono.core.errors import NonFiniteError
from mmmono.interpretability import embsim, winrate
from tests.metrics.inputs import DTYPES, LAYOUTS
from tests.metrics.references import embsim_and_winrate


def samples(seed: int, dtype: torch.dtype, features: int = 4, m: int = 6, dim: int = 10) -> torch.Tensor:
    """Unit vectors around a common direction, some pairs of them nearly orthogonal."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((features, m, dim))
    x[..., 0] += 1.5
    return torch.from_numpy(x / np.linalg.norm(x, axis=-1, keepdims=True)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_numpys_in_every_type(dtype: torch.dtype) -> None:
    active, random = samples(0, dtype), samples(1, dtype)
    printed, pooled, wins = embsim_and_winrate(active.double().numpy(), random.double().numpy())
    np.testing.assert_allclose(embsim(active, random), printed, rtol=1e-9)
    np.testing.assert_allclose(embsim(active, random, "pooled"), pooled, rtol=1e-9)
    np.testing.assert_allclose(winrate(active, random), wins, rtol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_gradients_change_nothing(layout: str) -> None:
    active, random = samples(2, torch.float32), samples(3, torch.float32)
    laid = [torch.stack([LAYOUTS[layout](x) for x in side]) for side in (active, random)]
    for score in (embsim, winrate):
        got = score(*laid)
        assert not got.requires_grad
        assert torch.equal(got, score(active, random))


def test_equal_samples_are_no_win_however_their_lengths_were_rounded() -> None:
    """Every sample of a feature is one vector; which of two rounded lengths is larger says nothing."""
    vectors = torch.nn.functional.normalize(torch.randn(40, 1, 33, generator=torch.Generator().manual_seed(0)), dim=2)
    active, random = (side.expand(-1, 5, -1) for side in (vectors, vectors.roll(1, 0)))
    assert winrate(active, random).max() == 0
    assert embsim(active, random).abs().max() < 1e-6


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_embeddings_are_named(value: float) -> None:
    for side, name in enumerate(("active", "random")):
        sides = [samples(4, torch.float32), samples(5, torch.float32)]
        sides[side][1, 2, 3] = value
        for score in (embsim, winrate):
            with pytest.raises(NonFiniteError, match=f"dimension 3 .*{name} sample 8"):
                score(*sides)


def test_two_samples_are_one_pair() -> None:
    active, random = samples(6, torch.float64, m=2), samples(7, torch.float64, m=2)
    printed, _, wins = embsim_and_winrate(active.numpy(), random.numpy())
    np.testing.assert_allclose(embsim(active, random), printed)
    assert set(winrate(active, random).tolist()) <= {0.0, 1.0}
    np.testing.assert_allclose(winrate(active, random), wins)
