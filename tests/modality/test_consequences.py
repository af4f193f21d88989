"""Removing synthetic shared concepts destroys retrieval, removing the others does not; each measure against one line."""

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from mmmono.features.removal import Composition, PairedCompositions
from mmmono.features.retrieval import zero_shot_accuracy
from mmmono.features.synthetic import SyntheticPairs, SyntheticParameters, synthesize
from mmmono.modality import Partition, dominance_scores, modality_gap, partition_by_margin
from mmmono.modality.consequences import (
    Removal,
    RemovalPlan,
    difference,
    held_out_change,
    mean_of,
    number_of_sets,
    removals,
    single_removals,
)
from mmmono.modality.random_sets import Activity
from mmmono.modality.removal_outcomes import RemovalBench, ZeroShot, gap_without_groups

PAIRS = 400
PLAN = RemovalPlan(shares=(0.5, 1.0), n_random=3)
NOTHING = torch.empty(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def truth() -> SyntheticPairs:
    """Pairs whose features are the synthetic concepts themselves."""
    return synthesize(SyntheticParameters(PAIRS, 48, 16, 16, 24, active=8, correlation=0.95))


@pytest.fixture(scope="module")
def bench(truth: SyntheticPairs) -> RemovalBench:
    atoms = truth.atoms.double()
    sides = [Composition(codes.double(), atoms) for codes in (truth.image_codes, truth.text_codes)]
    return RemovalBench(PairedCompositions(*sides))


def concepts(truth: SyntheticPairs) -> Partition:
    image, text, shared = ((truth.kind == kind).nonzero().squeeze(1) for kind in range(3))
    return Partition(image, text, shared, NOTHING)


def activity(bench: RemovalBench) -> Activity:
    return Activity.of([bench.pairs.image.codes]) + Activity.of([bench.pairs.text.codes])


@pytest.fixture(scope="module")
def found(truth: SyntheticPairs, bench: RemovalBench) -> dict[tuple[str, str, float], Removal]:
    made = removals(bench, concepts(truth), activity(bench), PLAN)
    return {(removal.change, removal.of, removal.share): removal for removal in made}


def test_retrieval_needs_the_shared_concepts_alone(
    bench: RemovalBench, found: dict[tuple[str, str, float], Removal]
) -> None:
    everything = bench.outcome(NOTHING).number("r1")
    assert everything is not None
    assert everything > 0.2
    r1 = {key: removal.own[0].number("r1") for key, removal in found.items() if removal.share == 1}
    assert r1["drop", "CrossD", 1] < 3 / PAIRS  # chance is 1 / PAIRS
    assert r1["drop", "ImgD", 1] > everything + 0.05  # what only images show is noise to a text
    assert r1["drop", "TextD", 1] > everything + 0.05
    assert r1["keep", "CrossD", 1] > everything + 0.2
    assert r1["keep", "ImgD", 1] == r1["keep", "TextD", 1] == pytest.approx(1 / PAIRS)


def test_differences_from_random_sets_have_intervals_that_exclude_zero(
    found: dict[tuple[str, str, float], Removal],
) -> None:
    for key, sign in ((("drop", "CrossD", 1), -1), (("drop", "ImgD", 1), 1), (("keep", "CrossD", 1), 1)):
        removal = found[key]
        beyond = difference(removal.own, removal.random, "r1")
        assert beyond is not None
        assert beyond.p_value < 0.05
        assert np.sign(beyond.value) == sign
        direct = removal.own[0].number("r1") - np.mean([outcome.number("r1") for outcome in removal.random])
        assert beyond.value == pytest.approx(direct)
    gap = difference(found["drop", "ImgD", 1].own, found["drop", "ImgD", 1].random, "gap")
    assert gap is not None
    assert gap.error > 0
    rank = difference(found["drop", "ImgD", 1].own, found["drop", "ImgD", 1].random, "effective_rank")
    assert rank is not None
    assert np.isnan(rank.error)


def test_random_sets_are_like_the_class_and_smaller_shares_lie_in_larger_ones(
    truth: SyntheticPairs, bench: RemovalBench, found: dict[tuple[str, str, float], Removal]
) -> None:
    assert len(found) == 2 * 3 * 2
    assert [len(found["drop", "ImgD", share].own) for share in PLAN.shares] == [3, 1]
    assert all(len(removal.random) == 3 for removal in found.values())
    half, whole = (found["keep", "TextD", share] for share in PLAN.shares)
    assert (half.features, whole.features) == (8, 16)
    assert half.random_energy == pytest.approx(half.energy, rel=0.05)
    assert half.energy < whole.energy < 1
    calls = []
    again = list(removals(bench, concepts(truth), activity(bench), PLAN, lambda: calls.append(1)))
    assert len(calls) == number_of_sets(concepts(truth), PLAN) == sum(len(r.own) + len(r.random) for r in again)
    assert [r.own[0].number("r1") for r in again] == [r.own[0].number("r1") for r in found.values()]  # seeded


def test_a_class_of_all_features_is_compared_with_no_random_set(bench: RemovalBench) -> None:
    """It would be compared with itself, and an interval around 0 would say that the class is like any other."""
    everything = Partition(NOTHING, NOTHING, torch.arange(bench.features), NOTHING)
    calls: list[int] = []
    made = list(removals(bench, everything, activity(bench), PLAN, lambda: calls.append(1)))
    assert len(calls) == number_of_sets(everything, PLAN) == sum(len(removal.own) for removal in made)
    assert {(removal.random_energy, removal.mismatch, len(removal.random)) for removal in made} == {(None, None, 0)}


def test_a_plan_may_only_drop_and_rank_nothing(
    truth: SyntheticPairs, bench: RemovalBench, found: dict[tuple[str, str, float], Removal]
) -> None:
    """The same sets are dropped, and each class is measured less often."""
    plan = RemovalPlan(PLAN.shares, PLAN.n_random, changes=("drop",), ranked=0)
    calls: list[int] = []
    dropped = list(removals(bench, concepts(truth), activity(bench), plan, lambda: calls.append(1)))
    assert {removal.change for removal in dropped} == {"drop"}
    assert len(calls) == number_of_sets(concepts(truth), plan) == number_of_sets(concepts(truth), PLAN) / 2
    for removal in dropped:
        same = found[removal.change, removal.of, removal.share]
        assert [o.number("r1") for o in removal.random] == [o.number("r1") for o in same.random]
        assert all(outcome.effective_rank is None for outcome in (*removal.own, *removal.random))
    assert found["drop", "ImgD", 1.0].own[0].effective_rank is not None


def test_a_class_without_features_is_left_out(truth: SyntheticPairs, bench: RemovalBench) -> None:
    everything = torch.arange(bench.features)
    partition = Partition(NOTHING, NOTHING, everything, NOTHING)
    plan = RemovalPlan(shares=(1.0,), n_random=2, random_sets="size")
    found = list(removals(bench, partition, activity(bench), plan))
    assert [(removal.change, removal.of) for removal in found] == [("drop", "CrossD"), ("keep", "CrossD")]
    nothing_left, unchanged = (removal.own[0] for removal in found)
    assert nothing_left.gap is None  # no vector has a direction
    assert mean_of([nothing_left], "gap") is None
    assert difference([nothing_left], [unchanged], "gap") is None
    assert nothing_left.number("r1") == pytest.approx(1 / PAIRS)
    assert unchanged.number("r1") == bench.outcome(NOTHING).number("r1")


def test_each_measure_against_one_line(bench: RemovalBench, truth: SyntheticPairs) -> None:
    removed = torch.tensor([0, 5, 40])
    outcome = bench.outcome(removed)
    left = torch.ones(bench.features, dtype=torch.float64).index_fill(0, removed, 0)
    image, text = ((side.codes * left) @ truth.atoms.double() for side in (bench.pairs.image, bench.pairs.text))
    unit = [side.numpy() / np.linalg.norm(side.numpy(), axis=1, keepdims=True) for side in (image, text)]
    cosines = unit[0] @ unit[1].T
    own = np.diag(cosines)
    for k in (1, 5, 10):
        assert outcome.number(f"i2t_r{k}") == pytest.approx(((cosines > own[:, None]).sum(1) < k).mean())
        assert outcome.number(f"t2i_r{k}") == pytest.approx(((cosines > own).sum(0) < k).mean())
        mean = np.mean([outcome.number(f"i2t_r{k}"), outcome.number(f"t2i_r{k}")])
        assert outcome.number(f"r{k}") == pytest.approx(mean)
    softmax = [np.log(np.exp(cosines / 0.07).sum(axis)).mean() - own.mean() / 0.07 for axis in (0, 1)]
    assert outcome.number("contrastive_loss") == pytest.approx(np.mean(softmax))
    assert outcome.number("gap") == pytest.approx(np.linalg.norm(unit[0].mean(0) - unit[1].mean(0)))
    assert outcome.number("gap") == pytest.approx(modality_gap([(image, text)]).centroid_distance)
    centered = np.concatenate([side - side.mean(0) for side in unit])
    shares = np.linalg.svd(centered, compute_uv=False)
    shares = shares[shares > 1e-9] / shares.sum()
    assert outcome.number("effective_rank") == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert outcome.number("zero_shot") is None
    assert bench.outcome(removed, whole=False).effective_rank is None


def test_zero_shot_removes_the_features_from_the_class_texts_too(truth: SyntheticPairs) -> None:
    atoms = truth.atoms.double()
    image = Composition(truth.image_codes.double(), atoms)
    classes = Composition(truth.text_codes[:6].double(), atoms)
    target = torch.arange(PAIRS) % 7 - 1  # some pairs have no label
    removed = torch.tensor([33, 50])
    hits = ZeroShot(classes, target).hits(image.without(removed), removed)
    assert len(hits) == int((target >= 0).sum())
    expected = zero_shot_accuracy(image.without(removed), classes.without(removed), target)
    assert hits.mean().item() == pytest.approx(expected)
    everything = torch.arange(len(atoms))
    assert ZeroShot(classes, target).hits(image.without(everything), everything).mean().item() == pytest.approx(1 / 6)


def test_the_gap_without_each_group_is_that_of_the_other_pairs() -> None:
    rng = np.random.default_rng(0)
    image, text = (torch.from_numpy(rng.standard_normal((9, 4))) for _ in range(2))
    image[3] = 0.0
    groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3])
    found = gap_without_groups(image, text, groups)
    assert found is not None
    for group in range(4):
        kept = (groups != group) & (image != 0).any(1)
        assert found.without[group].item() == pytest.approx(modality_gap([(image[kept], text[kept])]).centroid_distance)


def test_single_features_are_chosen_on_one_half_and_measured_on_the_other(
    truth: SyntheticPairs, bench: RemovalBench
) -> None:
    singles = single_removals(bench, torch.arange(bench.features))
    shared = truth.kind == 2
    assert singles.everything[shared].mean() < -0.005
    assert singles.everything[~shared].mean() > 0
    assert singles.agreement > 0.5
    assert int(singles.second_half.sum()) == PAIRS  # half of the queries of both ways
    both = (singles.selecting + singles.held_out) / 2
    torch.testing.assert_close(both, singles.everything)
    most = singles.most(5)
    assert most == np.argsort(-singles.selecting.abs().numpy(), kind="stable")[:5].tolist()
    mrr, recall = held_out_change(bench, singles, most[0])
    assert mrr.value == pytest.approx(singles.held_out[most[0]].item())
    assert mrr.interval().low < mrr.value < mrr.interval().high
    assert -1 <= recall.value <= 1


def class_effect(seed: int, in_sample: bool) -> float:
    """R@1 beyond random without ImgD and TextD, minus that without CrossD, of codes that have no modality.

    Any code is active in both modalities of a pair, or in either, with the same probability as any other.
    """
    rng, size = np.random.default_rng(seed), (120, 200)
    both = rng.random(size) < 0.01
    image, text = (
        torch.from_numpy(np.where(both | (rng.random(size) < 0.01), rng.gamma(4, 0.25, size), 0)) for _ in range(2)
    )
    chosen = slice(60) if in_sample else slice(60, 120)
    scores = dominance_scores([(image[chosen], text[chosen])]).scores
    partition = partition_by_margin(scores, 0.3, ~scores.isnan())
    bench = RemovalBench(PairedCompositions(*(Composition(side[:60]) for side in (image, text))))
    plan = RemovalPlan((1.0,), 3, seed=seed, changes=("drop",), ranked=0)
    beyond = {}
    for removal in removals(bench, partition, activity(bench), plan):
        found = difference(removal.own, removal.random, "r1")
        assert found is not None
        beyond[removal.of] = found.value
    return beyond["ImgD"] + beyond["TextD"] - beyond["CrossD"]


def test_classes_of_codes_without_a_modality_matter_only_on_the_pairs_that_they_were_chosen_by() -> None:
    effects = {in_sample: [class_effect(seed, in_sample) for seed in range(12)] for in_sample in (True, False)}
    assert ttest_1samp(effects[True], 0).pvalue < 1e-3
    assert np.mean(effects[True]) > 0.1
    assert ttest_1samp(effects[False], 0).pvalue > 0.05
    assert abs(np.mean(effects[False])) < 0.05


def test_groups_are_the_units_of_the_intervals(truth: SyntheticPairs) -> None:
    """Every pair twice: the measures of distinct groups stay, and so do their errors."""
    atoms = truth.atoms.double()
    codes = [c[:80].double() for c in (truth.image_codes, truth.text_codes)]
    once = RemovalBench(PairedCompositions(*(Composition(c, atoms) for c in codes)))
    twice = RemovalBench(
        PairedCompositions(*(Composition(c.repeat(2, 1), atoms) for c in codes)), np.tile(np.arange(80), 2)
    )
    outcomes = [bench.outcome(torch.tensor([1, 2]), whole=False) for bench in (once, twice)]
    for measure in ("r1", "r10", "gap"):
        first, second = (mean_of([outcome], measure) for outcome in outcomes)
        assert first is not None
        assert second is not None
        assert second.value == pytest.approx(first.value)
        assert second.error == pytest.approx(first.error)


@pytest.mark.parametrize(
    "wrong",
    [{"shares": ()}, {"shares": (0.5, 0.25, 1)}, {"shares": (0.5,)}, {"shares": (0, 1)}, {"n_random": 1},
     {"random_sets": "luck"}],
)  # fmt: skip
def test_wrong_plans_are_named(wrong: dict[str, object]) -> None:
    [name] = wrong
    with pytest.raises(ValueError, match=f"^{name}="):
        RemovalPlan(**wrong)  # type: ignore[arg-type]


def test_features_that_no_pair_activates_cost_nothing_and_change_nothing(
    truth: SyntheticPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [torch.nn.functional.pad(c[:60].double(), (0, 500)) for c in (truth.image_codes, truth.text_codes)]
    atoms = torch.nn.functional.pad(truth.atoms.double(), (0, 0, 0, 500), value=1.0)
    bench = RemovalBench(PairedCompositions(*(Composition(c, atoms) for c in codes)))
    silent = torch.arange(bench.features)[(codes[0] == 0).all(0) & (codes[1] == 0).all(0)]
    ranked: list[torch.Tensor] = []
    retrieved = bench.retrieved
    monkeypatch.setattr(bench, "retrieved", lambda removed: ranked.append(removed) or retrieved(removed))  # type: ignore[func-returns-value]
    advanced: list[int] = []
    singles = single_removals(bench, torch.cat([torch.tensor([0]), silent]), advance=lambda: advanced.append(1))
    assert len(ranked) == 2  # of all features, and without feature 0
    assert len(advanced) == len(silent) + 1
    assert bool((singles.everything[1:] == 0).all())
    change = retrieved(silent[[0]]).reciprocal() - retrieved(torch.empty(0, dtype=torch.int64)).reciprocal()
    assert bool((change == 0).all())  # as it would be if it was ranked again
