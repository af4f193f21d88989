"""What has no answer is NaN, what is broken is named by row and feature, and neither is taken for dead, 0 or infinite."""

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch

from mmmono.core.errors import ConfigError, NonFiniteError
from mmmono.dictionaries import ReconstructionMoments, fraction_of_variance_unexplained
from mmmono.dictionaries.linear import fit_ica, fit_pca
from mmmono.dictionaries.pareto import pareto_front
from mmmono.features.retrieval import clip_loss, recall_at_k, zero_shot_accuracy
from mmmono.interpretability import (
    centered_activations,
    monosemanticity_score,
    nearest_features,
    top_samples,
)
from mmmono.modality import (
    AblationSettings,
    DominanceStream,
    Partition,
    dominance_scores,
    energy_ratio,
    image_auroc,
    modality_gap,
    partition_by_margin,
    partition_by_sigma,
    rank_correlation,
    removal_ablation,
    resample_dominance,
    sign_flip_p_values,
)
from mmmono.modality.agreement import feature_correlations
from mmmono.modality.intervals import score_intervals
from mmmono.modality.report import FeatureSetDominance
from mmmono.modality.validation import ConceptMatch, balanced_accuracy, mean_max_cosine
from tests.metrics.inputs import blocks, paired
from tests.metrics.metrics import METRICS

RESAMPLED: Callable = lambda b: resample_dominance(b, 50, 5, 2).p_value  # noqa: E731


@pytest.mark.parametrize("name", [*METRICS, "permutation p"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_is_named(name: str, value: float, side: int) -> None:
    if name in ("top samples", "L0") and side == 1:
        return  # they look at one side
    of = RESAMPLED if name == "permutation p" else METRICS[name].of
    sides = [side.float() for side in paired()]
    sides[side][17, 4] = value
    with pytest.raises(NonFiniteError, match=r"(feature|dimension) 4 are (NaN|not finite), first at .* 17:"):
        of(blocks(7, *sides)) if name not in ("R@3", "CLIP loss", "zero-shot", "AUROC", "FVU") else of(
            blocks(61, *sides)
        )


def test_fvu_of_broken_numbers_is_named() -> None:
    x = torch.rand(9, 3)
    x[5, 1] = torch.nan
    for arguments in ((x, x.nan_to_num()), (x.nan_to_num(), x)):
        with pytest.raises(NonFiniteError, match="dimension 1 are NaN, first at .* 5:"):
            fraction_of_variance_unexplained(*arguments)


def test_silent_features_are_undefined_in_every_score() -> None:
    image, text = (side[:, :8] for side in paired())
    image[:, 3] = text[:, 3] = 0
    for score in (
        dominance_scores([(image, text)]).scores,
        dominance_scores([(image, text)], "half").scores,
        dominance_scores([(image, text)]).standard_error,
        sign_flip_p_values(dominance_scores([(image, text)]))[0],
        sign_flip_p_values(dominance_scores([(image, text)]))[1],
        RESAMPLED([(image, text)]),
        energy_ratio([(image, text)]),
        monosemanticity_score([(image, text)]),
    ):
        assert torch.equal(score.isnan(), torch.arange(8) == 3)
    assert image_auroc(image, text)[3] == 0.5


def test_one_pair_has_a_score_and_no_error() -> None:
    image, text = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    scored = dominance_scores([(image, text)])
    assert scored.scores.tolist() == [0.75, 0.5]
    assert scored.standard_error.isnan().all()
    exact = resample_dominance([(image, text)], 50, 5, 2)
    for p, q in (sign_flip_p_values(scored), (exact.p_value, exact.q_value)):
        assert p.tolist() == q.tolist() == [1, 1]  # a single pair can say nothing


@pytest.mark.parametrize("factor", [1.0, 0.1, 1 / 3, 1e-6, 1e6])
def test_constant_activations(factor: float) -> None:
    """Equal numbers, whose mean and variance rounding must not make anything of."""
    image, text = torch.full((50, 3), 3 * factor), torch.full((50, 3), factor)
    scored = dominance_scores(blocks(7, image, text))
    np.testing.assert_allclose(scored.scores, 0.75, rtol=1e-7)
    assert scored.standard_error.max() < 1e-9
    assert monosemanticity_score([(image, torch.rand(50, 4))]).isnan().all()
    assert feature_correlations(blocks(7, image, text)).abs().max() == 0
    assert centered_activations(image, text).abs().max() == 0
    assert nearest_features(centered_activations(image, text), 2).features.max() == -1
    assert math.isnan(fraction_of_variance_unexplained(image, image))
    assert math.isnan(fraction_of_variance_unexplained(image, text))
    moments = ReconstructionMoments(3, 3)
    for x, reconstruction in blocks(7, image, text):
        moments.add(x, reconstruction, x)
    assert math.isnan(moments.result().fvu)
    assert moments.result().cosine == pytest.approx(1)
    assert math.isnan(rank_correlation(image[:, 0], torch.rand(50)))


@pytest.mark.parametrize("features", range(2, 40))
def test_equal_scores_are_cross_modal_and_have_no_skewness(features: int) -> None:
    for value in (0.1, 1 / 3, 0.7):
        scores = torch.full((features,), value, dtype=torch.float64)
        for n_sigma in (0, 0.5, 1, 3):
            assert len(partition_by_sigma(scores, n_sigma).cross_modal) == features
        counts = torch.full((features,), 20)
        scored = dominance_scores([(torch.full((20, features), value), torch.full((20, features), 1 - value))])
        summary = FeatureSetDominance("equal", scored, partition_by_sigma(scored.scores)).summary
        assert (summary.CrossD, summary.pairs) == (features, int(counts[0]))
        assert math.isnan(summary.skewness)


@pytest.mark.parametrize("margin", [0.1, 0.2, 0.3, 0.4])
def test_what_lies_on_a_border_is_cross_modal_on_either_side(margin: float) -> None:
    scores = torch.tensor([0.5 + margin, 1 - (0.5 + margin), 0.5 - margin, 1 - (0.5 - margin)], dtype=torch.float64)
    assert len(partition_by_margin(scores, margin).cross_modal) == 4


def test_a_feature_of_one_pair_has_a_wide_interval_and_no_error() -> None:
    image, text = (side[:, :8] for side in paired())
    image[1:, 0] = text[1:, 0] = 0
    scored = dominance_scores([(image, text)])
    summary = FeatureSetDominance("one pair", scored, partition_by_sigma(scored.scores)).summary
    low, high = score_intervals(scored)
    assert math.isnan(scored.error_variance[0])
    assert high[0] - low[0] > 0.5
    assert summary.half_width == pytest.approx(float((high - low).mean()) / 2)
    assert 0 < summary.reliability < 1


def test_extreme_numbers_neither_overflow_nor_vanish() -> None:
    image = torch.tensor([[3e38, 1e-45, 6e4, 0.0]])
    text = torch.tensor([[1e38, 1e-45, 2e4, 1e-45]])
    assert dominance_scores([(image, text)]).scores.tolist() == pytest.approx([0.75, 0.5, 0.75, 0.0])
    half = torch.tensor([[6e4, 6e-8]], dtype=torch.float16)
    assert dominance_scores([(half, half)]).scores.tolist() == [0.5, 0.5]
    assert RESAMPLED([(half, half)]).tolist() == [1, 1]
    assert energy_ratio([(half, half)]).tolist() == [0.5, 0.5]


def test_whole_numbers_are_scored_like_others() -> None:
    image, text = torch.tensor([[3, 0], [1, 2]]), torch.tensor([[1, 0], [1, 0]])
    assert dominance_scores([(image, text)]).scores.tolist() == [0.625, 1.0]
    assert energy_ratio([(image, text)]).tolist() == [10 / 12, 1]


def test_embeddings_of_length_zero_have_no_direction() -> None:
    z = torch.eye(4)
    zero = torch.cat([z[:3], torch.zeros(1, 4)])
    assert math.isnan(modality_gap([(zero, z)]).centroid_distance)
    assert modality_gap([(zero, z)]).mean_norm_difference == -0.25
    assert recall_at_k(zero, z, (1,))[1] == pytest.approx(3.25 / 4)  # the last one guesses among four
    assert zero_shot_accuracy(zero, z, torch.arange(4)) == pytest.approx(3.25 / 4)
    activations = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    assert monosemanticity_score(
        [(activations, torch.cat([z[:1], z[:1], z[1:2], torch.zeros(1, 4)]))]
    ) == pytest.approx(1 / 3)
    moments = ReconstructionMoments(4, 4)
    moments.add(z, zero, z)
    assert moments.result().cosine == 0.75


def test_nothing_to_look_at() -> None:
    nothing, some = torch.zeros(0, 3), torch.rand(4, 3)
    assert math.isnan(recall_at_k(nothing, nothing, (1,))[1])
    assert math.isnan(clip_loss(nothing, nothing, 1.0))
    assert math.isnan(zero_shot_accuracy(some, some, torch.full((4,), -1)))
    assert image_auroc(nothing, some).isnan().all()
    assert image_auroc(some, nothing).isnan().all()
    empty = ReconstructionMoments(3, 3)
    assert math.isnan(empty.result().fvu)
    assert math.isnan(empty.result().l0)
    assert torch.equal(dominance_scores([(nothing, nothing), (some, some)]).scores, torch.full((3,), 0.5).double())
    image_only = Partition(torch.arange(2), *[torch.arange(0)] * 3)
    assert balanced_accuracy(image_only, ConceptMatch.of(torch.eye(2)), torch.zeros(2, dtype=torch.int64)) == 1
    with pytest.raises(ValueError, match="no embeddings"):
        modality_gap([(nothing, nothing)])
    with pytest.raises(ValueError, match="4 queries but 0 targets"):
        recall_at_k(some, nothing)


def test_ties_depend_on_no_rounding() -> None:
    """Copies of one vector at other places of the matrix, which a product rounds in other ways."""
    z = torch.randn(1, 37, generator=torch.Generator().manual_seed(0)).expand(1030, -1)
    assert recall_at_k(z, z, (1, 103)) == {1: pytest.approx(1 / 1030), 103: pytest.approx(0.1)}
    assert clip_loss(z, z, 10.0) == pytest.approx(math.log(1030))
    top = top_samples([torch.ones(40, 2), torch.ones(40, 2)], 3)
    assert top.rows.tolist() == [[0, 1, 2]] * 2


def test_fewer_samples_than_top_ones() -> None:
    top = top_samples([torch.tensor([[2.0, -1.0], [1.0, 3.0]])], 5)
    assert top.rows.tolist() == [[0, 1, -1, -1, -1], [1, -1, -1, -1, -1]]
    assert top.found.tolist() == [2, 1]


def test_top_samples_keep_the_digits_of_float64() -> None:
    values = 1 + 1e-12 * torch.tensor([[3.0], [1.0], [2.0]], dtype=torch.float64)
    assert top_samples([values], 3).rows.tolist() == [[0, 2, 1]]


def test_ms_of_one_strong_and_one_weak_sample() -> None:
    """The pair's cosine, though the strong sample outweighs the weak one a hundred thousand times."""
    e = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    a = torch.zeros(6, 1)
    a[1], a[4] = 1.0, 1e-5
    assert monosemanticity_score([(a, e)]).item() == pytest.approx(float(e[1] @ e[4]), abs=1e-6)


@pytest.mark.slow
def test_counts_beyond_what_float32_can_count() -> None:
    """2²⁴ + 3 pairs with a ratio of ¾ and 2²⁴ with one of ¼: float32 sums stop counting there.

    2¹⁴ pairs of each kind are added, and then ten times the stream to itself.
    """
    ones, threes = torch.ones(1 << 14, 1), torch.full((1 << 14, 1), 3.0)
    dominance, moments = DominanceStream(), ReconstructionMoments(1, 1)
    for image, text in ((threes, ones), (ones, threes)):
        dominance.add(image, text)
        moments.add(image, text, image)
    for stream in (dominance, moments):
        for _ in range(10):
            stream.merge(deepcopy(stream))  # type: ignore[arg-type]
    dominance.add(threes[:3], ones[:3])
    moments.add(threes[:3], ones[:3], threes[:3])
    scored = dominance.result()
    total = 2 * (1 << 24) + 3
    assert scored.num_pairs == int(scored.informative_pairs) == total
    assert scored.scores.item() == pytest.approx(0.5 + 0.25 * 3 / total, abs=1e-12)
    assert moments.result().l0 == 1
    mean = (3 * ((1 << 24) + 3) + (1 << 24)) / total
    assert moments.result().fvu == pytest.approx(4 / (mean * (4 - mean) - 3 + 0), rel=1e-9)


def test_linear_controls_of_constant_and_dependent_dimensions() -> None:
    z = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    for dependent in (torch.full((200, 1), 3.0), z[:, :1], z[:, :1] + z[:, 1:2]):
        x = torch.cat([z, dependent], dim=1)
        ica = fit_ica(x)
        assert ica.num_features == 5
        for control in (fit_pca(x), ica):
            codes = control.encode(x, "image")
            assert codes.abs().max() < 20
            torch.testing.assert_close(control.decode(codes, "image"), x, atol=1e-4, rtol=0)
    for fit in (fit_pca, fit_ica):
        with pytest.raises(ConfigError, match="all 50 are equal"):
            fit(torch.full((50, 3), 0.1))
        broken = z.clone()
        broken[7, 2] = torch.nan
        with pytest.raises(NonFiniteError, match="dimension 2 are NaN, first at embedding 7"):
            fit(broken)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e4])
def test_linear_controls_follow_the_scale(scale: float) -> None:
    z = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) ** 3
    for fit, power in ((fit_pca, 1), (fit_ica, 0)):
        plain, scaled = fit(z).encode(z, "text"), fit(z * scale).encode(z * scale, "text")
        torch.testing.assert_close(scaled / scale**power, plain, atol=1e-3, rtol=1e-3)


def test_ablation_of_silent_and_of_broken_features() -> None:
    labels = ["a"] * 20 + ["b"] * 20
    partition = Partition(*torch.arange(4).split([1, 1, 2, 0]))
    rows = removal_ablation(np.zeros((40, 4)), labels, partition, AblationSettings(n_random=1), jobs=1)
    assert rows[0].accuracy is not None
    assert rows[0].accuracy.value == 0.5
    x = np.random.default_rng(0).standard_normal((40, 4))
    x[13, 2] = np.nan
    with pytest.raises(NonFiniteError, match="feature 2 are NaN, first at sample 13"):
        removal_ablation(x, labels, partition, jobs=1)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e4, 1e200])
def test_ablation_does_not_depend_on_scale_or_type(scale: float) -> None:
    rng = np.random.default_rng(1)
    labels = ["a"] * 30 + ["b"] * 30
    x = (rng.standard_normal((60, 4)) + np.repeat([0, 1], 30)[:, None]).astype(np.float16)
    partition = Partition(*torch.arange(4).split([1, 1, 2, 0]))
    settings = AblationSettings(n_random=1)
    plain = removal_ablation(x.astype(np.float64), labels, partition, settings, jobs=1)
    assert removal_ablation(x, labels, partition, settings, jobs=1) == plain
    assert removal_ablation(x.astype(np.float32), labels, partition, settings, jobs=1) == plain
    scaled = removal_ablation(x.astype(np.float64) * scale, labels, partition, settings, jobs=1)
    assert [row.accuracy for row in scaled] == [row.accuracy for row in plain]


def test_cosines_of_tiny_directions_and_of_dead_ones() -> None:
    atoms = torch.eye(3)
    assert mean_max_cosine(atoms, 1e-30 * atoms) == 1
    assert mean_max_cosine(atoms, torch.cat([atoms[:2], torch.zeros(1, 3)])) == pytest.approx(2 / 3)
    with pytest.raises(NonFiniteError, match="learned direction 1"):
        mean_max_cosine(atoms, torch.tensor([[1.0, 0, 0], [0, torch.nan, 0]]))


def test_nothing_beats_an_equal_run_and_unknown_ones_are_off_the_front() -> None:
    costs = np.array([[1.0, 2.0], [1.0, 2.0], [np.nan, 0.0], [2.0, 2.0], [0.5, 3.0]])
    assert pareto_front(costs).tolist() == [True, True, False, False, True]


def test_intervals_of_many_features() -> None:
    """More numbers than torch.quantile takes at once."""
    image, text = torch.rand(3, 20_000), torch.rand(3, 20_000)
    resamples = resample_dominance([(image, text)], 1, 1000, 1)
    low, high = resamples.interval()
    assert low.shape == (20_000,)
    expected = np.nanquantile(resamples.bootstrap[:, -1].numpy(), [0.025, 0.975])
    np.testing.assert_allclose([low[-1], high[-1]], expected)
