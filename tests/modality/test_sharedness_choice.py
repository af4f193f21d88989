"""Why sparse features are compared by firing and dense ones by activations: the table of mmmono/modality/sharedness.py."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mmmono.modality import sharedness_scores

Array = npt.NDArray[np.float64]
FEATURES, PAIRS = 200, 1000
SHARED = np.arange(FEATURES) < FEATURES // 2


def sparse(rng: np.random.Generator, tail: float) -> tuple[Array, Array]:
    """Sides that fire as one in a tenth of the pairs if shared; log(strength) has an additional deviation `tail`."""
    shape = (PAIRS, FEATURES)
    rate = rng.uniform(0.01, 0.1, FEATURES)
    joint, as_one = rng.random(shape) < rate, (rng.random(shape) < 0.1) & SHARED
    fires = [np.where(as_one, joint, rng.random(shape) < rate) for _ in range(2)]
    image, text = (f * (0.5 + rng.gamma(2, 0.25, shape)) * np.exp(tail * rng.standard_normal(shape)) for f in fires)
    return image, 0.1 * text


def dense(rng: np.random.Generator, mean: float) -> tuple[Array, Array]:
    """Normal activations, correlated by .1 if shared, with means ± `mean`."""
    shape = (PAIRS, FEATURES)
    common = rng.standard_normal(shape) * SHARED * 0.1**0.5
    own = np.sqrt(1 - 0.1 * SHARED)
    return common + own * rng.standard_normal(shape) + mean, common + own * rng.standard_normal(shape) - mean


DRAWN = {
    "light tails": (sparse, 0.0, (0.93, 0.93, 0.95)),
    "log-normal": (sparse, 1.5, (0.77, 0.77, 0.95)),
    "means of 0": (dense, 0.0, (0.98, 0.56, None)),
    "means apart": (dense, 1.0, (0.98, 0.05, None)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_table_of_the_docstring(name: str) -> None:
    draw, parameter, expected = DRAWN[name]
    found = []
    for seed in range(5):
        image, text = (torch.from_numpy(side) for side in draw(np.random.default_rng(seed), parameter))
        signed, magnitude = sharedness_scores([(image, text)]), sharedness_scores([(image.abs(), text.abs())])
        found.append(
            [roc_auc_score(SHARED, x.nan_to_num(0)) for x in (signed.correlation, magnitude.correlation, signed.phi)]
        )
        torch.testing.assert_close(signed.score, signed.phi if draw is sparse else signed.correlation)
    for value, stated in zip(np.mean(found, 0), expected, strict=True):
        assert stated is None or value == pytest.approx(stated, abs=0.01)
