"""What is planted is what the parameters say."""

import numpy as np
import pytest
import torch

from mmmono.core.errors import ConfigError
from mmmono.features import FeatureStore
from mmmono.features.planted import PlantedParameters, plant, read_truth, write_planted
from mmmono.modality import modality_dominance_score, modality_gap


def test_embeddings_are_codes_times_atoms() -> None:
    planted = plant(PlantedParameters(pairs=500, gap=0, noise=0))
    torch.testing.assert_close(planted.image, planted.image_codes @ planted.atoms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(planted.text, planted.text_codes @ planted.atoms, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(planted.atoms.norm(dim=1), torch.ones(96))


def test_kinds_show_on_their_side_only() -> None:
    planted = plant(PlantedParameters(pairs=4000))
    image, text = planted.image_codes > 0, planted.text_codes > 0
    assert not image[:, planted.kind == 1].any()
    assert not text[:, planted.kind == 0].any()
    scores = modality_dominance_score(planted.image_codes, planted.text_codes)
    assert (scores[planted.kind == 0] == 1).all()
    assert (scores[planted.kind == 1] == 0).all()
    assert scores[planted.kind == 2].std() > 0.05  # gains differ
    for atom in torch.nonzero(planted.kind == 2).flatten().tolist():
        strength = [codes[codes[:, atom] > 0, atom].mean() for codes in (planted.image_codes, planted.text_codes)]
        assert strength[0] / strength[1] == pytest.approx(float(planted.gain[atom]), rel=0.15)
    assert planted.gain[planted.kind == 0].isinf().all()
    assert (planted.gain[planted.kind == 1] == 0).all()
    assert image.any(1).all()
    assert image.sum(1).float().mean() == pytest.approx(6, rel=0.05)
    assert text.sum(1).float().mean() == pytest.approx(6, rel=0.05)


def test_frequencies_follow_zipf() -> None:
    planted = plant(PlantedParameters(pairs=40_000, zipf=1.0, image_atoms=16, text_atoms=16, shared_atoms=16, active=3))
    frequency = (planted.image_codes > 0).float().mean(0)[planted.kind == 0]
    expected = frequency[0] / torch.arange(1, 17)
    np.testing.assert_allclose(frequency, expected, rtol=0.15, atol=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_correlation_of_shared_concepts(correlation: float) -> None:
    parameters = PlantedParameters(
        pairs=30_000, correlation=correlation, image_atoms=64, text_atoms=64, shared_atoms=8, active=2
    )
    planted = plant(parameters)
    shared = planted.kind == 2
    image, text = (c[:, shared].numpy() > 0 for c in (planted.image_codes, planted.text_codes))
    found = np.mean([np.corrcoef(image[:, d], text[:, d])[0, 1] for d in range(8)])
    assert found == pytest.approx(correlation, abs=0.03)


def test_gap_and_noise_have_the_lengths_they_say() -> None:
    quiet = plant(PlantedParameters(pairs=3000, gap=0, noise=0))
    length = (quiet.image.square().sum(1).mean() / 2 + quiet.text.square().sum(1).mean() / 2).sqrt()
    loud = plant(PlantedParameters(pairs=3000, gap=0, noise=0.5))
    noise = (loud.image - quiet.image).square().sum(1).mean().sqrt()
    assert noise / length == pytest.approx(0.5, rel=0.03)
    apart = plant(PlantedParameters(pairs=3000, gap=2.0, noise=0))
    shift = (apart.image - quiet.image).mean(0) - (apart.text - quiet.text).mean(0)
    assert shift.norm() / length == pytest.approx(2.0, rel=0.01)
    gaps = [modality_gap([(p.image, p.text)]).centroid_distance for p in (quiet, apart)]
    assert gaps[1] > gaps[0] + 0.3


def test_a_planted_store_has_its_answer_beside_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    parameters = PlantedParameters(pairs=20_000, dim=16)
    write_planted(tmp_path, parameters)
    store, truth, planted = FeatureStore(tmp_path), read_truth(tmp_path), plant(parameters)
    assert (len(store), store.dim) == (20_000, 16)
    torch.testing.assert_close(store.read("text", 0, 20_000).float(), planted.text, rtol=2e-3, atol=2e-3)
    assert torch.equal(truth["image_codes"], planted.image_codes)
    assert torch.equal(truth["gain"], planted.gain)
    metadata = store.metadata()
    assert metadata.caption[17_000] == "concepts " + " ".join(map(str, np.flatnonzero(planted.text_codes[17_000])))
    assert not torch.equal(plant(PlantedParameters(pairs=20_000, dim=16, seed=1)).image, planted.image)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (dict(image_atoms=0), "dataset.image_atoms=0: planted pairs need at least one"),
        (dict(text_atoms=0), "dataset.text_atoms=0: planted pairs need at least one"),
        (dict(correlation=1.5), "dataset.correlation=1.5 is a probability"),
        (dict(noise=-1), "dataset.noise=-1 must not be negative"),
        (dict(active=70), "dataset.active=70 concepts a sample, but a modality has only 64 atoms"),
        (dict(active=50, zipf=2), "a probability above 1"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PlantedParameters(**parameters)  # type: ignore[arg-type]
