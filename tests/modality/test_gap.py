import numpy as np
import pytest
import torch

from mmmono.modality import modality_gap


def test_equals_both_definitions() -> None:
    rng = np.random.default_rng(0)
    image, text = rng.standard_normal((300, 8)) + 1, 2 * rng.standard_normal((300, 8)) - 0.5
    gap = modality_gap(
        (torch.from_numpy(image[i : i + 70]), torch.from_numpy(text[i : i + 70])) for i in range(0, 300, 70)
    )
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (image, text)]
    assert gap.centroid_distance == pytest.approx(np.linalg.norm(unit[0].mean(0) - unit[1].mean(0)))
    norms = [np.linalg.norm(z, axis=1).mean() for z in (image, text)]
    assert gap.mean_norm_difference == pytest.approx(norms[0] - norms[1])


def test_equal_modalities_have_no_gap_and_swapping_keeps_the_distance() -> None:
    image, text = torch.randn(50, 4), torch.randn(50, 4)
    assert modality_gap([(image, image)]).centroid_distance == pytest.approx(0, abs=1e-12)
    assert modality_gap([(image, text)]).centroid_distance == pytest.approx(
        modality_gap([(text, image)]).centroid_distance
    )
    with pytest.raises(ValueError, match="no embeddings"):
        modality_gap([])
