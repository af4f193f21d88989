"""Synthetic pairs have the statistics that their parameters ask for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmmono.core.errors import ConfigError, StoreError
from mmmono.features import FeatureStore, FeatureView, split_view
from mmmono.features.covariance import covariance_root
from mmmono.features.store import Manifest
from mmmono.features.synthetic import (
    SyntheticPairs,
    SyntheticParameters,
    parameters_digest,
    read_truth,
    synthesize,
    write_synthetic,
)
from mmmono.features.writer import FeatureStoreWriter
from mmmono.modality import modality_dominance_score, modality_gap, sharedness_scores

NUMBERS_BEFORE = 23618.196398834305  # sum of absolute values, at most 9 each, of 500 pairs by version 1 of this module


def test_embeddings_are_codes_times_atoms() -> None:
    pairs = synthesize(SyntheticParameters(pairs=500, gap=0, noise=0))
    torch.testing.assert_close(pairs.image, pairs.image_codes @ pairs.atoms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pairs.text, pairs.text_codes @ pairs.atoms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pairs.atoms.norm(dim=1), torch.ones(96))


def test_kinds_show_on_their_side_only() -> None:
    pairs = synthesize(SyntheticParameters(pairs=4000))
    image, text = pairs.image_codes > 0, pairs.text_codes > 0
    assert not image[:, pairs.kind == 1].any()
    assert not text[:, pairs.kind == 0].any()
    scores = modality_dominance_score(pairs.image_codes, pairs.text_codes)
    assert (scores[pairs.kind == 0] == 1).all()
    assert (scores[pairs.kind == 1] == 0).all()
    assert scores[pairs.kind == 2].std() > 0.05  # gains differ
    for atom in torch.nonzero(pairs.kind == 2).flatten().tolist():
        strength = [codes[codes[:, atom] > 0, atom].mean() for codes in (pairs.image_codes, pairs.text_codes)]
        assert strength[0] / strength[1] == pytest.approx(float(pairs.gain[atom]), rel=0.15)
    assert pairs.gain[pairs.kind == 0].isinf().all()
    assert (pairs.gain[pairs.kind == 1] == 0).all()
    assert image.any(1).all()
    assert image.sum(1).float().mean() == pytest.approx(6, rel=0.05)
    assert text.sum(1).float().mean() == pytest.approx(6, rel=0.05)


def test_frequencies_follow_zipf() -> None:
    pairs = synthesize(
        SyntheticParameters(pairs=40_000, zipf=1.0, image_atoms=16, text_atoms=16, shared_atoms=16, active=3)
    )
    frequency = (pairs.image_codes > 0).float().mean(0)[pairs.kind == 0]
    expected = frequency[0] / torch.arange(1, 17)
    np.testing.assert_allclose(frequency, expected, rtol=0.15, atol=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_correlation_of_shared_concepts(correlation: float) -> None:
    parameters = SyntheticParameters(
        pairs=30_000, correlation=correlation, image_atoms=64, text_atoms=64, shared_atoms=8, active=2
    )
    pairs = synthesize(parameters)
    shared = pairs.kind == 2
    image, text = (c[:, shared].numpy() > 0 for c in (pairs.image_codes, pairs.text_codes))
    found = np.mean([np.corrcoef(image[:, d], text[:, d])[0, 1] for d in range(8)])
    assert found == pytest.approx(correlation, abs=0.03)


def test_gap_and_noise_have_the_lengths_they_say() -> None:
    quiet = synthesize(SyntheticParameters(pairs=3000, gap=0, noise=0))
    length = (quiet.image.square().sum(1).mean() / 2 + quiet.text.square().sum(1).mean() / 2).sqrt()
    loud = synthesize(SyntheticParameters(pairs=3000, gap=0, noise=0.5))
    noise = (loud.image - quiet.image).square().sum(1).mean().sqrt()
    assert noise / length == pytest.approx(0.5, rel=0.03)
    apart = synthesize(SyntheticParameters(pairs=3000, gap=2.0, noise=0))
    shift = (apart.image - quiet.image).mean(0) - (apart.text - quiet.text).mean(0)
    assert shift.norm() / length == pytest.approx(2.0, rel=0.01)
    gaps = [modality_gap([(p.image, p.text)]).centroid_distance for p in (quiet, apart)]
    assert gaps[1] > gaps[0] + 0.3


def test_a_synthetic_store_has_its_answer_beside_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    parameters = SyntheticParameters(pairs=20_000, dim=16)
    write_synthetic(tmp_path, parameters)
    store, truth, pairs = FeatureStore(tmp_path), read_truth(tmp_path), synthesize(parameters)
    assert (len(store), store.dim) == (20_000, 16)
    torch.testing.assert_close(store.read("text", 0, 20_000).float(), pairs.text, rtol=2e-3, atol=2e-3)
    assert torch.equal(truth["image_codes"], pairs.image_codes)
    assert torch.equal(truth["gain"], pairs.gain)
    metadata = store.metadata()
    assert metadata.caption[17_000] == "concepts " + " ".join(map(str, np.flatnonzero(pairs.text_codes[17_000])))
    assert not torch.equal(synthesize(SyntheticParameters(pairs=20_000, dim=16, seed=1)).image, pairs.image)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (dict(image_atoms=0), "dataset.image_atoms=0: synthetic pairs need at least one"),
        (dict(text_atoms=0), "dataset.text_atoms=0: synthetic pairs need at least one"),
        (dict(correlation=1.5), "dataset.correlation=1.5 is a probability"),
        (dict(noise=-1), "dataset.noise=-1 must not be negative"),
        (dict(group_size=0), "dataset.group_size=0: synthetic pairs need at least one"),
        (dict(leak=-1), "dataset.leak=-1 must not be negative"),
        (dict(leak_frequency=2), "dataset.leak_frequency=2 is a probability"),
        (dict(gain_ratio=0.5), "dataset.gain_ratio=0.5: give at least 1"),
        (dict(direction_cosine=-1), "dataset.direction_cosine=-1 is a cosine"),
        (dict(direction_cosine=1.1), "dataset.direction_cosine=1.1 is a cosine"),
        (dict(active=70), "dataset.active=70 concepts a sample, but a modality has only 64 atoms"),
        (dict(active=50, zipf=2), "a probability above 1"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticParameters(**parameters)  # type: ignore[arg-type]


def fires(pairs: SyntheticPairs) -> tuple[torch.Tensor, torch.Tensor]:
    return pairs.image_codes != 0, pairs.text_codes != 0


def test_later_options_leave_numbers_and_addresses_as_they_were() -> None:
    """Computed before there were any: a digest of all numbers, and that of the parameters."""
    pairs = synthesize(SyntheticParameters(pairs=500))
    numbers = (pairs.image, pairs.text, pairs.atoms, pairs.gain, pairs.image_codes, pairs.text_codes)
    assert parameters_digest(SyntheticParameters(pairs=500)) == "0d74d44acf362ebb"
    assert parameters_digest(SyntheticParameters(pairs=500, tail=1)) != "0d74d44acf362ebb"
    assert float(sum(x.double().abs().clamp(max=9).sum() for x in numbers)) == pytest.approx(NUMBERS_BEFORE, rel=1e-9)


def test_pairs_of_a_group_are_alike_and_the_store_says_which(tmp_path: Path) -> None:
    parameters = SyntheticParameters(pairs=2001, dim=16, group_size=4)
    pairs = synthesize(parameters)
    for side in fires(pairs):
        rows = side[:2000].reshape(500, 4, -1).double()
        inside = ((rows[:, 0] == rows[:, 3]).double().mean(), (rows[:, 0] == rows[:, 3].roll(1, 0)).double().mean())
        assert inside[0] > inside[1] + 0.05
        assert side.double().sum(1).mean() == pytest.approx(6, rel=0.08)
    write_synthetic(tmp_path, parameters)
    groups = FeatureView(FeatureStore(tmp_path)).groups()
    np.testing.assert_array_equal(groups, np.arange(2001) // 4)
    val = split_view(FeatureStore(tmp_path), "val")
    assert val.rows is not None
    assert not set(groups[val.rows]) & set(np.delete(groups, val.rows))


def test_strengths_have_the_tail_they_say() -> None:
    light, heavy = (
        synthesize(SyntheticParameters(pairs=4000, tail=tail, gain_spread=0)).image_codes for tail in (0, 1)
    )
    assert torch.equal(light > 0, heavy > 0)
    ratio = np.log((heavy / light)[light > 0].numpy())
    assert (ratio.mean(), ratio.std()) == (pytest.approx(-0.5, abs=0.02), pytest.approx(1, rel=0.02))
    assert heavy.mean() == pytest.approx(float(light.mean()), rel=0.05)


def test_dense_codes_are_shared_as_concepts_are() -> None:
    pairs = synthesize(SyntheticParameters(pairs=4000, dense=0.5, active=0.01, correlation=0.6, gain_spread=0))
    found = sharedness_scores([(pairs.image_codes, pairs.text_codes)])
    assert found.correlation[pairs.kind == 2].mean() == pytest.approx(0.6, abs=0.02)
    assert pairs.image_codes[:, pairs.kind == 0].std() == pytest.approx(0.5, rel=0.1)
    assert not pairs.image_codes[:, pairs.kind == 1].any()


def test_parents_are_present_with_their_children() -> None:
    pairs = synthesize(SyntheticParameters(pairs=3000, parents=0.25))
    image, text = fires(pairs)
    for start, side in ((0, image), (32, text), (64, image), (64, text)):
        for parent in range(8):
            children = side[:, start + 8 + parent : start + 32 : 8]
            assert children.shape[1] == 3
            assert side[children.any(1), start + parent].all()
            assert side[~children.any(1), start + parent].any()


def test_leaks_are_weak_rarer_and_independent_of_the_pair() -> None:
    pairs = synthesize(SyntheticParameters(pairs=20_000, leak=0.2, leak_frequency=0.5))
    image, text = fires(pairs)
    for own, other, codes, kind in ((image, text, pairs.text_codes, 0), (text, image, pairs.image_codes, 1)):
        of = pairs.kind == kind
        assert other[:, of].double().mean() == pytest.approx(0.5 * float(own[:, of].double().mean()), rel=0.05)
        assert codes[:, of][other[:, of]].mean() == pytest.approx(0.2, rel=0.03)
    found = sharedness_scores([(pairs.image_codes, pairs.text_codes)])
    assert found.score[pairs.kind != 2].abs().max() < 0.03
    assert found.score[pairs.kind == 2].min() > 0.6
    assert image.sum(1).double().mean() == pytest.approx(7.5, rel=0.03)  # 6, and half of 3 of the other modality


def test_directions_of_shared_concepts_differ_by_their_angle() -> None:
    pairs = synthesize(SyntheticParameters(pairs=2000, dim=16, direction_cosine=0.3, gap=0, noise=0))
    sides = ((pairs.image_codes, pairs.image), (pairs.text_codes, pairs.text))
    image, text = (torch.linalg.lstsq(codes.double(), z.double(), driver="gelsd").solution for codes, z in sides)
    shared, atoms = pairs.kind == 2, pairs.atoms.double()
    torch.testing.assert_close(image[pairs.kind == 0], atoms[pairs.kind == 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(text[pairs.kind == 1], atoms[pairs.kind == 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        (image[shared] * text[shared]).sum(1), torch.full((32,), 0.3).double(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(F.normalize((image + text)[shared], dim=1), atoms[shared], atol=1e-5, rtol=0)
    same = synthesize(SyntheticParameters(pairs=2000, dim=16, gap=0, noise=0))
    assert torch.equal(same.image_codes, pairs.image_codes)


def test_gain_ratios_lie_between_their_bounds() -> None:
    gain = synthesize(SyntheticParameters(pairs=10, shared_atoms=500, gain_spread=0, gain_ratio=10)).gain[64:]
    assert 0.1 <= gain.min() < 0.12
    assert 8 < gain.max() <= 10
    assert np.log10(gain).std() == pytest.approx(1 / 3**0.5, rel=0.1)  # uniform between −1 and 1


def test_the_covariance_of_few_dimensions_that_vary_has_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide and conquer, which LAPACK of some processors gives up on such a matrix, as it does here."""

    def gives_up(_: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")

    rows = torch.zeros(2000, 512, dtype=torch.float64)
    rows[:, ::50] = torch.randn(2000, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.cov(rows.T)
    for eigh in (torch.linalg.eigh, gives_up):
        monkeypatch.setattr(torch.linalg, "eigh", eigh)
        root = covariance_root(rows)
        torch.testing.assert_close(root @ root, expected / expected.trace() * 512)


@pytest.mark.parametrize("rows", [torch.ones(5, 4), torch.rand(1, 4)])
def test_rows_that_do_not_vary_have_no_covariance(rows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="do not vary"):
        covariance_root(rows)


def test_noise_has_the_covariance_of_a_store(tmp_path: Path) -> None:
    writer = FeatureStoreWriter(tmp_path, 1, "float32")
    rng = np.random.default_rng(0)
    shape = np.diag([3.0, 1.0, 0.1, 0.1])
    image, text = (torch.from_numpy(rng.standard_normal((5000, 4)) @ m).float() for m in (shape, shape[::-1].copy()))
    writer.write(0, image + 7, text, [{"key": str(i)} for i in range(5000)])
    writer.finish(Manifest("a", "b", "c", "d", 4, 5000, "float32", content=""), [0])
    few = dict(pairs=20_000, dim=4, image_atoms=2, text_atoms=2, shared_atoms=2, active=1, zipf=0)
    quiet = synthesize(SyntheticParameters(**few, noise=0))  # type: ignore[arg-type]
    white = synthesize(SyntheticParameters(**few, noise=0.5))  # type: ignore[arg-type]
    shaped = synthesize(SyntheticParameters(**few, noise=0.5, noise_from=str(tmp_path)))  # type: ignore[arg-type]
    for side, of in (("image", image), ("text", text)):
        noise = getattr(shaped, side) - getattr(quiet, side)
        size = (getattr(white, side) - getattr(quiet, side)).square().sum(1).mean()
        assert noise.square().sum(1).mean() == pytest.approx(float(size), rel=0.03)
        expected, got = torch.cov(of.T), torch.cov(noise.T)
        torch.testing.assert_close(got / got.trace(), expected / expected.trace(), rtol=0.1, atol=0.01)
    with pytest.raises(ConfigError, match="set dataset.dim=4"):
        synthesize(SyntheticParameters(dim=8, noise_from=str(tmp_path)))
    with pytest.raises(StoreError):
        synthesize(SyntheticParameters(noise_from=str(tmp_path / "nothing")))
