"""EmbSim, WinRate and MS against the formulas, written out pair by pair."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmmono.interpretability import MonosemanticityStream, embsim, monosemanticity_score, ms, winrate
from mmmono.interpretability.chance import random_rows
from mmmono.interpretability.feature_means import FeatureMean
from mmmono.interpretability.report import monosemanticity
from mmmono.interpretability.top_samples import top_samples

SHAPE = (3, 5, 4)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def samples(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Unit vectors in one half space, so that no two are orthogonal."""
    x = np.random.default_rng(seed).standard_normal(shape)
    x[..., 0] = 2 + abs(x[..., 0])
    return unit(x)


def eq5(active: np.ndarray, random: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 5 as it is printed: a sum over all i ≠ j."""
    m = active.shape[1]
    ratio, wins = np.zeros(len(active)), np.zeros(len(active))
    for d in range(len(active)):
        positive, negative = active[d] @ active[d].T, random[d] @ random[d].T
        for i in range(m):
            for j in range(m):
                if i != j:
                    ratio[d] += (positive[i, j] - negative[i, j]) / negative[i, j] / (m * (m - 1))
                    wins[d] += (positive[i, j] > negative[i, j]) / (m * (m - 1))
    return ratio, wins


def test_embsim_and_winrate_are_eq_5() -> None:
    active, random = samples(0), samples(1)
    similarity, wins = eq5(active, random)
    a, r = torch.from_numpy(active), torch.from_numpy(random)
    np.testing.assert_allclose(embsim(a, r), similarity, rtol=1e-12)
    np.testing.assert_allclose(winrate(a, r), wins, rtol=1e-12)


def test_pooled_form_is_a_ratio_of_means() -> None:
    active, random = samples(2), samples(3)
    off = ~np.eye(SHAPE[1], dtype=bool)
    means = [np.array([(z @ z.T)[off].mean() for z in zs]) for zs in (active, random)]
    mine = embsim(torch.from_numpy(active), torch.from_numpy(random), form="pooled")
    np.testing.assert_allclose(mine, means[0] / means[1] - 1, rtol=1e-12)


def test_one_set_of_random_samples_can_serve_all_features() -> None:
    active, random = torch.from_numpy(samples(4)), torch.from_numpy(samples(5, (1, 5, 4)))
    assert torch.equal(winrate(active, random), winrate(active, random.expand(3, -1, -1)))
    torch.testing.assert_close(embsim(active, random), embsim(active, random.expand(3, -1, -1)))


def test_orthogonal_random_samples_do_not_divide_by_zero() -> None:
    random = torch.eye(5)[None]
    active = torch.ones(1, 5, 5) / 5**0.5
    assert embsim(active, random, floor=0.01).item() == pytest.approx(100)
    assert embsim(active, random, form="pooled", floor=0.01).item() == pytest.approx(100)
    assert embsim(random, random).item() == 0
    assert winrate(active, random).item() == 1


def test_the_same_samples_on_both_sides_score_zero_and_win_nothing() -> None:
    z = torch.from_numpy(samples(6))
    assert embsim(z, z).abs().max() == 0
    assert winrate(z, z).max() == 0  # ties are no wins


@given(st.permutations(range(5)), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_order_of_both_sides_samples_together_does_not_matter(order: list[int], seed: int) -> None:
    active, random = torch.from_numpy(samples(seed)), torch.from_numpy(samples(seed + 1))
    for score in (embsim, winrate):
        torch.testing.assert_close(score(active[:, order], random[:, order]), score(active, random))


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_swapping_top_and_random_samples_turns_wins_into_losses(seed: int) -> None:
    active, random = torch.from_numpy(samples(seed)), torch.from_numpy(samples(seed + 1))
    torch.testing.assert_close(winrate(active, random) + winrate(random, active), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("length", [1e-6, 1e6])
def test_winrate_of_embeddings_of_any_length_is_that_of_the_similarities_order(length: float) -> None:
    active, random = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(winrate(length * active, length * random), winrate(active, random))


def test_wrong_shapes_are_refused() -> None:
    z = torch.ones(3, 5, 4)
    for active, random in ((z, z[:, :4]), (z[0], z[0]), (z[:, :1], z[:, :1]), (z, z[:2])):
        with pytest.raises(ValueError, match="features"):
            embsim(active, random)
    with pytest.raises(ValueError, match="printed"):
        embsim(z, z, form="other")  # type: ignore[arg-type]


def ms_by_pairs(a: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Pach et al. 2025, Eq. 4 to 8: min-max scaled activations, all pairs of samples."""
    e = unit(e)
    span = a.max(0) - a.min(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = (a - a.min(0)) / span
    above, below = np.zeros(a.shape[1]), np.zeros(a.shape[1])
    for i in range(len(a)):
        for j in range(i + 1, len(a)):
            above += a[i] * a[j] * (e[i] @ e[j])
            below += a[i] * a[j]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 1e-12, above / below, np.nan)


def sparse(seed: int, rows: int = 40, features: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.gamma(1.0, size=(rows, features)) * (rng.random((rows, features)) < 0.3)


@pytest.mark.parametrize("block", [40, 7, 1])
@pytest.mark.parametrize("kind", ["dense", "sparse", "signed", "ties"])
def test_ms_equals_the_pairwise_definition(kind: str, block: int) -> None:
    rng = np.random.default_rng(7)
    a = {
        "dense": rng.random((40, 8)),
        "sparse": sparse(7),
        "signed": rng.standard_normal((40, 8)) + 3,
        "ties": rng.integers(0, 3, (40, 8)).astype(float),
    }[kind]
    e = rng.standard_normal((40, 6)) + 0.5
    blocks = zip(torch.from_numpy(a).split(block), torch.from_numpy(e).split(block), strict=True)
    np.testing.assert_allclose(monosemanticity_score(blocks), ms_by_pairs(a, e), rtol=1e-9)


@pytest.mark.parametrize("block", [60, 7, 1])
@pytest.mark.parametrize("kind", ["single", "few", "many", "one of most"])
def test_ms_by_group_leaves_out_pairs_of_one_group(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ms, "CHUNK_ROWS", 16)  # so that groups lie across chunks, or exceed them
    rng = np.random.default_rng(3)
    groups = np.sort(
        {
            "single": np.arange(60),
            "few": rng.integers(0, 4, 60),
            "many": rng.integers(0, 40, 60),
            "one of most": np.where(rng.random(60) < 0.8, 7, np.arange(60)),
        }[kind]
    )
    a = np.abs(rng.standard_normal((60, 5))) * (rng.random((60, 5)) < 0.6) + rng.random(5)
    e = rng.standard_normal((60, 6)) + rng.standard_normal((60, 6))[groups] + 0.3
    e[5] = 0
    blocks = list(zip(torch.from_numpy(a).split(block), torch.from_numpy(e).split(block), strict=True))
    with np.errstate(invalid="ignore"):
        directions = np.where(e.any(1, keepdims=True), unit(e), 0)
    expected = ms_by_pairs_of_units(a, directions, groups)
    np.testing.assert_allclose(monosemanticity_score(blocks, torch.from_numpy(groups)), expected, rtol=1e-9)
    if kind == "single":
        np.testing.assert_allclose(monosemanticity_score(blocks), expected, rtol=1e-9)
    cut = int(np.searchsorted(groups, groups[30]))
    parts = [monosemanticity_stream(a[part], e[part], groups[part]) for part in (slice(cut), slice(cut, None))]
    parts[0].merge(parts[1])
    np.testing.assert_allclose(parts[0].result(), expected, rtol=1e-9)


def ms_by_pairs_of_units(a: np.ndarray, e: np.ndarray, groups: np.ndarray) -> np.ndarray:
    a = (a - a.min(0)) / (a.max(0) - a.min(0))
    different = groups[:, None] != groups
    weight = np.einsum("id,jd,ij->d", a, a, different)
    return np.einsum("id,jd,ij->d", a, a, different * (e @ e.T)) / weight


def monosemanticity_stream(a: np.ndarray, e: np.ndarray, groups: np.ndarray) -> MonosemanticityStream:
    stream = MonosemanticityStream()
    stream.add(*(torch.from_numpy(part) for part in (a, e, groups)))
    stream.result()  # asking does not end a group
    return stream


def test_five_copies_of_a_sample_do_not_change_its_ms_by_group() -> None:
    """What `dataset.captions=all` does to images: five rows each."""
    rng = np.random.default_rng(0)
    a, e = torch.from_numpy(sparse(1)), torch.from_numpy(rng.standard_normal((40, 6)))
    once, copies = monosemanticity_score([(a, e)]), [x.repeat_interleave(5, 0) for x in (a, e)]
    torch.testing.assert_close(monosemanticity_score([tuple(copies)], torch.arange(40).repeat_interleave(5)), once)  # type: ignore[list-item]
    assert (monosemanticity_score([tuple(copies)]) - once).abs().nanmean() > 0.02  # type: ignore[list-item]


def test_groups_out_of_order_are_refused() -> None:
    a, e = torch.ones(4, 2), torch.eye(4)
    for groups, message in (([0, 1, 0, 1], "ascending"), ([0, 1, 2], "3 groups for"), ([0, 1, 2, 3, 4], "5 groups")):
        with pytest.raises(ValueError, match=message):
            monosemanticity_score([(a, e)], torch.tensor(groups))
    for groups in (None, torch.arange(4)):
        stream = MonosemanticityStream()
        stream.add(a, e, groups)
        with pytest.raises(ValueError, match="of all samples, or of none"):
            stream.add(a, e, torch.arange(4, 8) if groups is None else None)
    first, second = (monosemanticity_stream(a.numpy(), e.numpy(), np.arange(4)) for _ in range(2))
    with pytest.raises(ValueError, match="group 0 of the other stream"):
        first.merge(second)


def test_ms_of_features_without_two_active_samples_is_undefined() -> None:
    a = torch.zeros(6, 4)
    a[2, 1] = 5.0  # one sample
    a[:, 2] = 3.0  # all equally
    a[1, 3], a[4, 3] = 1.0, 2.0
    e = torch.eye(6)[:, :5] + 1
    score = monosemanticity_score([(a, e)])
    assert score.isnan().tolist() == [True, True, True, False]
    unit_e = torch.nn.functional.normalize(e, dim=1)
    assert score[3].item() == pytest.approx(float(unit_e[1] @ unit_e[4]), abs=1e-6)


@given(arrays(np.float64, (12, 3), elements=st.floats(0, 4)), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=40, deadline=None)
def test_ms_ignores_scale_and_offset_of_activations(a: np.ndarray, scale: float, offset: float) -> None:
    a[np.abs(a) < 1e-3] = 0
    e = torch.from_numpy(np.random.default_rng(0).standard_normal((12, 5)))
    before = monosemanticity_score([(torch.from_numpy(a), e)])
    after = monosemanticity_score([(torch.from_numpy(a * scale + offset), e)])
    both = ~(before.isnan() | after.isnan())
    torch.testing.assert_close(before[both], after[both], rtol=1e-4, atol=1e-4)


def test_scores_of_all_features_are_those_of_each_alone() -> None:
    """The whole path from activations to scores: synthetic clusters, a dead feature, one with too few samples."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(4), 25)
    e = torch.from_numpy(unit(np.eye(4)[cluster] + 0.3 + 0.05 * rng.standard_normal((100, 4)))).float()
    a = torch.zeros(100, 4)
    a[:, 0] = torch.from_numpy((cluster == 2) * rng.uniform(1, 2, 100)).float()  # one concept
    a[:, 1] = torch.from_numpy(rng.uniform(1, 2, 100)).float()  # anything
    a[:3, 3] = 1.0  # three samples only
    top = top_samples(a.split(30), 10)
    random = random_rows(torch.arange(100), 4, 10, draws=3, seed=0)
    scores = monosemanticity(top, random, lambda rows: e[rows])
    assert scores.mono.isnan().tolist() == [False, False, True, True]
    assert scores.winrate[0] > 0.7
    assert 0.3 < scores.winrate[1] < 0.7
    assert scores.embsim[0] > 5 * abs(scores.embsim[1])
    expected = [eq5(e[top.rows[:1]].numpy().astype(float), e[draw[:1]].numpy().astype(float)) for draw in random]
    assert scores.embsim[0].item() == pytest.approx(np.mean([similarity for similarity, _ in expected]), rel=1e-5)
    assert scores.winrate[0].item() == pytest.approx(np.mean([wins for _, wins in expected]), rel=1e-6)
    assert scores.mono[0].item() == pytest.approx(float(scores.embsim[0] + scores.winrate[0]) / 2)


def test_random_samples_do_not_repeat_within_a_feature() -> None:
    population = torch.tensor([3, 5, 8, 13, 21])
    rows = random_rows(population, features=50, m=4, draws=2, seed=1)
    assert rows.shape == (2, 50, 4)
    assert set(rows.unique().tolist()) == set(population.tolist())
    assert all(len(set(row.tolist())) == 4 for row in rows.flatten(0, 1))
    assert not torch.equal(rows[0], rows[1])
    assert torch.equal(rows, random_rows(population, 50, 4, 2, seed=1))
    with pytest.raises(ValueError, match="out of 5"):
        random_rows(population, 1, 6, 1, 0)


def test_an_estimate_leaves_out_what_is_undefined() -> None:
    values = torch.tensor([1.0, 2.0, float("nan"), 6.0])
    estimate = FeatureMean.of(values)
    assert (estimate.mean, estimate.count) == (3.0, 3)
    assert estimate.error == pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)
    nothing = FeatureMean.of(torch.tensor([]))
    assert np.isnan(nothing.mean)
    assert np.isnan((estimate - nothing).mean)
    assert (estimate - estimate).error == pytest.approx(2**0.5 * estimate.error)
