"""Summary of the scores of a feature set."""

import numpy as np
import pytest
import torch

from mmmono.modality import dominance_scores, partition_by_sigma
from mmmono.modality.intervals import score_intervals
from mmmono.modality.report import FeatureSetDominance, median


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
    error = result.scores.standard_error[5:].numpy()
    reliable = live.var() - (error**2).mean()
    assert summary.reliability == pytest.approx(reliable / live.var())
    assert summary.corrected_std == pytest.approx(reliable**0.5)
    low, high = score_intervals(scores)[:, 5:]
    assert summary.half_width == pytest.approx(float((high - low).mean()) / 2)
    assert summary.half_width == pytest.approx(1.96 * error.mean(), rel=0.02)
    ratio = (image / (image + text))[:, 5:].numpy()
    assert summary.null_std == pytest.approx(np.sqrt((((ratio - 0.5) ** 2).sum(0) / 200**2).mean()), rel=1e-4)
    assert (summary.groups, summary.design_effect) == (200, 1)
    assert summary.skewness == pytest.approx((((live - live.mean()) / live.std()) ** 3).mean())
    rows = result.to_rows()
    assert [row["class"] for row in rows[:5]] == ["dead"] * 5
    assert sum(row["class"] == "ImgD" for row in rows) == summary.ImgD


def test_scores_of_noise_alone_have_no_reliability() -> None:
    """No feature prefers a modality: σ is that of the null, whatever the size of the groups."""
    generator = torch.Generator().manual_seed(1)
    codes = torch.arange(100).repeat_interleave(4)
    image, text = (torch.rand(100, 500, generator=generator)[codes] for _ in range(2))
    scores = dominance_scores([(image, text)], groups=codes)
    summary = FeatureSetDominance("noise", scores, partition_by_sigma(scores.scores)).summary
    assert summary.reliability < 0.15
    assert summary.corrected_std < 0.4 * summary.std
    assert summary.null_std == pytest.approx(summary.std, rel=0.1)
    assert (summary.pairs, summary.groups) == (400, 100)
    assert summary.design_effect == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("largest", [1, 100, 350])  # pairs of one group, beside 100 that are alone
@pytest.mark.parametrize("alike", [False, True])  # the pairs of the group
def test_reliability_is_right_where_one_group_has_most_of_the_pairs(largest: int, alike: bool) -> None:
    """It was .9 and more where .1 of the variance was of the features: the group pulls R(d) towards itself."""
    generator = torch.Generator().manual_seed(largest)
    codes = torch.cat([torch.zeros(largest, dtype=torch.int64), torch.arange(1, 101)])
    truth = torch.rand(4000, generator=generator)
    flips = torch.rand(101, 4000, generator=generator)[codes] if alike else torch.rand(
        len(codes), 4000, generator=generator
    )  # fmt: skip
    image = (flips < truth).double()
    scores = dominance_scores([(image, 1 - image)], groups=codes)
    summary = FeatureSetDominance("one group", scores, partition_by_sigma(scores.scores)).summary
    assert summary.reliability == pytest.approx(float(truth.var() / scores.scores.var()), abs=0.03)
    low, high = score_intervals(scores)
    assert ((low <= truth) & (truth <= high)).double().mean() > 0.93
    assert summary.half_width == pytest.approx(float((high - low).mean()) / 2)


def test_the_error_variance_is_the_squared_standard_error_of_groups_of_equal_size() -> None:
    generator = torch.Generator().manual_seed(2)
    codes = torch.arange(50).repeat_interleave(4)
    image, text = (torch.rand(200, 30, generator=generator) for _ in range(2))
    scores = dominance_scores([(image, text)], groups=codes)
    torch.testing.assert_close(scores.error_variance, scores.standard_error.square())
    assert dominance_scores([(image, text)], groups=torch.zeros_like(codes)).error_variance.isnan().all()


@pytest.mark.parametrize("count", [1, 4, 5])
def test_the_median_is_numpys(count: int) -> None:
    """Of an even number of values it was the lower one of the middle two, and another command printed their mean."""
    values = np.append(np.random.default_rng(0).standard_normal(count), np.nan)
    assert median(torch.from_numpy(values)) == pytest.approx(np.nanmedian(values))
    assert np.isnan(median(torch.full((2,), torch.nan, dtype=torch.float64)))
    assert np.isnan(median(torch.empty(0, dtype=torch.float64)))
