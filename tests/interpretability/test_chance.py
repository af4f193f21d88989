"""The chance level of EmbSim and Mono, and the errors of means over features that share random draws."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from mmmono.features import ActivationBlock
from mmmono.interpretability import TopSampleSearch
from mmmono.interpretability.chance import DRAWN, chance_level, eq5_scores, random_rows
from mmmono.interpretability.feature_means import FeatureMean
from mmmono.interpretability.report import FeatureSetInterpretability, Monosemanticity, monosemanticity
from mmmono.modality import Partition

M, DRAWS = 10, 5


def embeddings(kind: str, rows: int, dim: int = 64, seed: int = 0) -> Tensor:
    """Unit vectors: `texts` nearly orthogonal, so that S₋ is small and of either sign; `images` in a narrow cone."""
    shift = {"texts": 0.35, "images": 2.0, "centered": 0.0}[kind]
    z = np.random.default_rng(seed).standard_normal((rows, dim)) + shift
    return torch.from_numpy(z / np.linalg.norm(z, axis=1, keepdims=True))


@pytest.mark.parametrize("floor", [1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize("kind", ["texts", "images", "centered"])
def test_random_top_samples_are_0_above_chance_at_every_floor(kind: str, floor: float) -> None:
    """Features whose top samples are random ones of their own, not of the pool."""
    pool, features = 1000, 400
    e = embeddings(kind, 3000)
    top = random_rows(torch.arange(pool, 3000), features, M, 1, seed=1)[0]
    random = random_rows(torch.arange(pool), features, M, DRAWS, seed=2)
    chance = chance_level(torch.arange(pool), lambda rows: e[rows], M, DRAWS, seed=3, floor=floor)
    by_draw = torch.stack([eq5_scores(top, rows, lambda r: e[r], floor) for rows in random], dim=1)
    scores = Monosemanticity(by_draw, torch.full((features,), torch.nan), chance)
    everything = torch.ones(features, dtype=torch.bool)
    for metric in ("embsim", "mono", "winrate"):
        corrected = scores.estimate(metric, everything, corrected=True)
        assert abs(corrected.mean) < 3.5 * corrected.error, metric
        assert corrected.error < 0.15 * max(1.0, chance.level(metric))
        if kind == "texts" and metric == "embsim" and floor > 1e-3:  # what the printed form makes of nothing
            assert abs(scores.estimate(metric, everything).mean) > 3 * corrected.error


def test_the_chance_level_is_its_expectation_over_all_pairs() -> None:
    """E[S₊] E[1 / S₋] − E[S₋ / S₋], from the whole similarity matrix, with denominators moved to the floor."""
    e = embeddings("texts", 900)
    chance = chance_level(torch.arange(900), lambda rows: e[rows], M, 3, seed=0)
    similarity = (e @ e.T).numpy()[~np.eye(900, dtype=bool)]
    below = np.where(np.abs(similarity) < 0.01, np.copysign(0.01, similarity), similarity)
    expected = similarity.mean() * (1 / below).mean() - (similarity / below).mean()
    assert abs(chance.level("embsim") - expected) < 4 * chance.error("embsim")
    assert abs(expected) > 0.1
    assert abs(chance.level("winrate") - 0.5) < 4 * chance.error("winrate")
    assert chance.level("mono") == pytest.approx((chance.level("embsim") + chance.level("winrate")) / 2)


def test_the_error_of_the_chance_level_knows_the_pool() -> None:
    """Over pools drawn anew, levels spread as their errors say; the spread over sets alone is a tenth of it."""
    e = embeddings("images", 6000, dim=3)
    levels, errors, naive = [], [], []
    for pool in torch.arange(6000).split(200):
        chance = chance_level(pool, lambda rows: e[rows], 5, 5, seed=0)
        levels.append(chance.level("embsim"))
        errors.append(chance.error("embsim"))
        naive.append(float(chance.spread[0].square().sum().sqrt()) / 5)
    ratio = np.std(levels, ddof=1) / np.sqrt(np.mean(np.square(errors)))
    assert 0.65 < ratio < 1.5
    assert np.std(levels, ddof=1) > 1.2 * np.mean(naive)


def test_with_one_draw_or_few_samples_there_is_a_chance_level_too() -> None:
    e = embeddings("images", 60)
    one = chance_level(torch.arange(60), lambda rows: e[rows], M, 1, seed=0)
    assert one.error("mono") == pytest.approx(float(one.spread[3]))
    assert 0 < one.error("mono") < 1
    few = chance_level(torch.arange(15), lambda rows: e[rows], M, 2, seed=0)
    assert math.isfinite(few.level("embsim"))
    with pytest.raises(ValueError, match="m=10 samples asked for out of 9"):
        chance_level(torch.arange(9), lambda rows: e[rows], M, 1, seed=0)
    with pytest.raises(ValueError, match="no chance level of mono"):
        Monosemanticity(torch.zeros(4, 1, 2), torch.zeros(2)).of("mono", corrected=True)


def test_draws_have_parts_of_the_population_of_their_own() -> None:
    rows = random_rows(torch.arange(100), 40, 10, 5, seed=0)
    for draw, part in enumerate(rows):
        assert (part % 5 == draw).all()
    assert len(random_rows(torch.arange(99), 200, 10, 5, seed=0)[0].unique()) == 99  # too few for parts: shared


def synthetic(seed: int, sign: int = 1) -> tuple[Tensor, Tensor, np.ndarray]:
    """Dense activations, embeddings, and which features are coherent: half of them, of a topic each.

    With `sign` −1, the topics are on the negative side, which has the larger energy; the positive side is noise.
    """
    rng = np.random.default_rng(seed)
    topic = np.arange(800) % 20
    z = 0.9 + rng.standard_normal((800, 64)) + rng.standard_normal((20, 64))[topic]
    coherent = np.arange(60) < 30
    a = rng.standard_normal((800, 60))
    a += np.where(coherent & (topic[:, None] == np.arange(60) % 20), 4, 0)
    if sign < 0:
        a = np.where(a > 0, -a, 0.5 * rng.random(a.shape) * (rng.random(a.shape) < 0.9))
    return torch.from_numpy(a), torch.from_numpy(z / np.linalg.norm(z, axis=1, keepdims=True)), coherent


def scored(a: Tensor, e: Tensor, side: str) -> Monosemanticity:
    search = TopSampleSearch(M, True, pd.DataFrame({"key": range(len(a))}), side)  # type: ignore[arg-type]
    search.add(ActivationBlock(0, a, a))
    top = search.result()["image"]
    pool = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))
    random = random_rows(pool, a.shape[1], M, DRAWS, seed=0)
    chance = chance_level(pool, lambda rows: e[rows], M, DRAWS, seed=0)
    return monosemanticity(top, random, lambda rows: e[rows], chance=chance)


@pytest.mark.parametrize("seed", [0, 1])
def test_coherent_features_stand_out_from_chance_features(seed: int) -> None:
    a, e, coherent = synthetic(seed)
    scores = scored(a, e, "dominant")
    for metric in ("mono", "embsim", "winrate"):
        assert roc_auc_score(coherent, scores.of(metric, corrected=True)) >= 0.99, metric
    nothing = scores.estimate("mono", torch.from_numpy(~coherent), corrected=True)
    assert abs(nothing.mean) < 3.5 * nothing.error
    coherent_ones = scores.estimate("mono", torch.from_numpy(coherent), corrected=True)
    assert coherent_ones.mean > 10 * coherent_ones.error


def test_a_coherent_negative_side_is_found() -> None:
    a, e, coherent = synthetic(2, sign=-1)
    found, missed = (scored(a, e, side).of("mono", corrected=True) for side in ("dominant", "positive"))
    assert roc_auc_score(coherent, found) >= 0.99
    assert roc_auc_score(coherent, missed) < 0.7
    mirrored = scored(-a, e, "positive").of("mono", corrected=True)
    torch.testing.assert_close(found, mirrored)


def test_the_error_over_features_and_draws_is_right() -> None:
    """In simulated two-way tables, the mean lies within 1.96 errors about as often as it should (4 and 9 degrees)."""
    rng = np.random.default_rng(0)
    inside, errors, means = [], [], []
    for _ in range(600):
        features, draws = rng.normal(0, 0.3, 25), rng.normal(0, 0.1, 10)
        table = 1 + features + draws[:, None] + rng.normal(0, 0.4, (10, 25))
        estimate = FeatureMean.over_draws(torch.from_numpy(table))
        inside.append(abs(estimate.mean - 1) < 2.06 * estimate.error)  # t with 24 degrees of freedom
        errors.append(estimate.error**2)
        means.append(estimate.mean)
    assert np.mean(errors) == pytest.approx(np.var(means), rel=0.15)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
    assert np.mean(errors) == pytest.approx(0.3**2 / 25 + 0.1**2 / 10 + 0.4**2 / 250, rel=0.1)


def test_what_a_draw_adds_to_all_features_cancels_between_classes() -> None:
    rng = np.random.default_rng(1)
    table = torch.from_numpy(rng.normal(0, 0.1, (5, 40)) + rng.normal(0, 5, (5, 1)))
    first, second = FeatureMean.over_draws(table[:, :20]), FeatureMean.over_draws(table[:, 20:])
    assert first.error > 1
    assert (first - second).error < 0.1
    assert (first - second).mean == pytest.approx(float(table[:, :20].mean() - table[:, 20:].mean()))
    chance = table[:, :20].mean(1) - 1
    above = first.above(chance)
    assert (above.mean, above.draw_error) == (pytest.approx(1), pytest.approx(0))
    assert above.error < 0.1 < first.draw_error


def test_one_draw_or_one_feature_has_the_error_that_is_known() -> None:
    one = FeatureMean.over_draws(torch.tensor([[1.0, 2.0, 6.0, math.nan]]))
    assert (one.mean, one.count) == (3.0, 3)
    assert one.error == pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)
    assert math.isnan(one.draw_error)
    alone = FeatureMean.over_draws(torch.tensor([[1.0], [2.0]]))
    assert (alone.mean, alone.count) == (1.5, 1)
    assert math.isnan(alone.error)
    assert math.isnan(FeatureMean.over_draws(torch.full((3, 2), math.nan)).mean)


def test_rows_of_tables_hold_scores_above_chance() -> None:
    a, e, _ = synthetic(0)
    image = scored(a, e, "dominant")
    text = scored(a[:, torch.arange(59, -1, -1)], e, "dominant")
    members = [torch.arange(0, 20), torch.arange(30, 50), torch.cat([torch.arange(20, 30), torch.arange(50, 60)])]
    both = FeatureSetInterpretability("raw", Partition(*members, torch.empty(0, dtype=torch.int64)), image, text)
    rows = {(row["samples"], row["class"]): row for row in both.averages()}
    row = rows["image", "ImgD"]
    assert row["scored"] == row["features"] == 20
    assert row["mono_corrected"] == pytest.approx(row["mono"] - row["mono_chance"])
    assert 0 < row["draw_error"] < 0.1
    assert row["mono_corrected"] == pytest.approx(np.mean([r["mono_corrected"] for r in both.to_rows()[:20]]))
    visual, textual = both.modality_mono("image"), both.modality_mono("text")
    assert visual.mean == pytest.approx(row["mono"] - rows["image", "TextD"]["mono"])
    assert visual.mean > 5 * visual.error
    assert textual.mean > 5 * textual.error
    assert DRAWN[3] == "mono"
