"""Summary of the scores of a feature set."""

import pytest
import torch

from mmmono.modality import dominance_scores, partition_by_sigma
from mmmono.modality.report import FeatureSetDominance


def test_summary_is_of_live_features() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.rand(200, 80, generator=generator) for _ in range(2))
    image *= 1 + torch.rand(80, generator=generator)
    image[:, :5] = text[:, :5] = 0
    scores = dominance_scores([(image, text)])
    result = FeatureSetDominance("sae", scores, partition_by_sigma(scores.scores))
    live = result.scores.scores[5:].numpy()
    summary = result.summary
    assert (summary.features, summary.dead, summary.pairs) == (80, 5, 200)
    assert summary.mean == pytest.approx(live.mean())
    assert summary.std == pytest.approx(live.std())
    assert summary.skewness == pytest.approx((((live - live.mean()) / live.std()) ** 3).mean())
    rows = result.to_rows()
    assert [row["class"] for row in rows[:5]] == ["dead"] * 5
    assert sum(row["class"] == "ImgD" for row in rows) == summary.ImgD
