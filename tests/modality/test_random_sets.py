"""Random sets carry what the class carries, and say when none does."""

import numpy as np
import pytest
import torch

from mmmono.features.removal import Composition, PairedCompositions
from mmmono.modality import Partition
from mmmono.modality.random_sets import Activity, Match, random_name, random_pool, random_set
from mmmono.modality.removal_outcomes import RemovalBench

RNG = np.random.default_rng(0)
SPECTRUM = np.sort(RNG.pareto(1.5, 400))[::-1] / 100  # a few features carry most of the energy
POOL = np.arange(400)


def drawn(like: np.ndarray, weights: np.ndarray, times: int = 40) -> list:  # type: ignore[type-arg]
    rng = np.random.default_rng(1)
    return [random_set(POOL, like, weights, rng) for _ in range(times)]


@pytest.mark.parametrize("like", [np.arange(200, 280), np.arange(20, 60), np.arange(0, 400, 7)])
def test_matched_sets_carry_the_energy_of_the_class_and_unmatched_ones_do_not(like: np.ndarray) -> None:
    target = SPECTRUM[like].sum()
    matched = [SPECTRUM[s.members].sum() / target for s in drawn(like, SPECTRUM)]
    assert max(abs(np.array(matched) - 1)) <= 0.01
    unmatched = [SPECTRUM[s.members].sum() / target for s in drawn(like, np.ones(400))]
    assert np.mean(np.abs(np.array(unmatched) - 1) > 0.05) > 0.8


def test_sets_are_random_without_replacement_and_of_the_size_of_the_class() -> None:
    like = np.arange(100, 180)
    sets = drawn(like, SPECTRUM)
    assert all(len(np.unique(s.members)) == 80 for s in sets)
    assert len({tuple(s.members) for s in sets}) == len(sets)
    often = np.bincount(np.concatenate([s.members for s in sets]), minlength=400)[100:]
    assert (often == 0).mean() < 0.1  # every feature of ordinary energy may be drawn
    again = random_set(POOL, like, SPECTRUM, np.random.default_rng(1))
    np.testing.assert_array_equal(again.members, sets[0].members)


def test_of_equal_weights_it_is_a_simple_random_set() -> None:
    for s in drawn(np.arange(5), np.ones(400)):
        assert s.mismatch == 0
    counts = np.bincount(np.concatenate([s.members for s in drawn(np.arange(100), np.ones(400), 400)]), minlength=400)
    assert counts.min() > 60  # 100 expected, sd 9
    assert counts.max() < 140


def test_a_class_that_nothing_is_like_is_pointed_out() -> None:
    weights = np.r_[np.full(2, 100.0), np.full(10, 1.0)]
    lonely = random_set(np.arange(2, 12), np.array([0, 1]), weights, np.random.default_rng(0))
    assert lonely.mismatch == pytest.approx(1 - 2 / 200)


def test_everything_is_like_everything_and_nothing_like_nothing() -> None:
    rng = np.random.default_rng(0)
    assert random_set(POOL, POOL, SPECTRUM, rng).members.tolist() == POOL.tolist()
    assert random_set(POOL, POOL[:0], SPECTRUM, rng).members.tolist() == []


def test_a_class_that_is_silent_gets_a_silent_set_if_there_is_one() -> None:
    weights = np.r_[np.zeros(30), np.ones(30)]
    assert weights[random_set(np.arange(60), np.arange(10), weights, np.random.default_rng(0)).members].sum() == 0


def test_sets_are_drawn_outside_the_class_if_there_are_enough_features() -> None:
    partition = Partition(*torch.arange(12).split([3, 4, 4, 1]))
    assert random_pool(partition, "ImgD", 3, "energy").tolist() == [*range(3, 11)]
    assert random_pool(partition, "ImgD", 3, "size").tolist() == [*range(11)]
    assert random_pool(partition, "CrossD", 8, "energy").tolist() == [*range(11)]


@pytest.mark.parametrize("match", ["energy", "frequency", "size"])
def test_a_class_of_all_live_features_has_nothing_to_be_compared_with(match: Match) -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    partition = Partition(nothing, nothing, torch.arange(11), torch.tensor([11]))
    for size in (11, 3):
        assert len(random_pool(partition, "CrossD", size, match)) == 0


def test_activity_is_energy_and_frequency() -> None:
    z = torch.tensor([[1.0, 0, -2], [0, 0, 2]])
    for blocks in ([z], z.split(1)):
        found = Activity.of(blocks)
        np.testing.assert_allclose(found.energy, [1 / 9, 0, 8 / 9])
        np.testing.assert_allclose(found.frequency, [0.5, 0, 1])
    assert found.share(np.array([1, 2])) == pytest.approx(8 / 9)
    np.testing.assert_allclose(found.weights("size"), 1)
    np.testing.assert_allclose((found + Activity.of([z[:1]])).energy, [(1 / 9 + 1 / 5) / 2, 0, (8 / 9 + 4 / 5) / 2])
    assert random_name("size", "ImgD") == "Random"
    assert random_name("energy", "ImgD") == "Random-ImgD"


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="5 random features cannot be drawn from 3"):
        random_set(POOL[:3], POOL[:5], SPECTRUM, rng)
    with pytest.raises(ValueError, match="must be finite and at least 0"):
        random_set(POOL, POOL[:5], -SPECTRUM, rng)
    with pytest.raises(ValueError, match="random_sets=length is none of energy, frequency, size"):
        Activity.of([torch.ones(2, 3)]).weights("length")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no activations"):
        Activity.of([])


def test_energy_does_not_depend_on_where_a_length_is_kept() -> None:
    """A latent with a code ten times as large and an atom of a tenth of its length adds the same to every vector."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(40, 6, generator=generator, dtype=torch.float64)
    atoms = torch.nn.functional.normalize(torch.randn(6, 4, generator=generator, dtype=torch.float64), dim=1)
    scale = torch.tensor([100.0, 0.1, 1, 10, 3, 0.01], dtype=torch.float64)

    def bench(codes: torch.Tensor, atoms: torch.Tensor | None) -> RemovalBench:
        return RemovalBench(PairedCompositions(Composition(codes, atoms), Composition(codes.flip(0), atoms)))

    one, other = bench(codes, atoms), bench(codes * scale, atoms / scale[:, None])
    torch.testing.assert_close(one.pairs.image.vectors, other.pairs.image.vectors)
    np.testing.assert_allclose(one.activity().energy, other.activity().energy)
    plain = (Activity.of([codes]) + Activity.of([codes.flip(0)])).energy
    np.testing.assert_array_equal(one.activity().energy, plain)  # atoms of length 1 change no bit
    np.testing.assert_array_equal(bench(codes, None).activity().energy, plain)
