"""A synthetic concept of one side is found on that side."""

import numpy as np
import pytest
import torch

from mmmono.case_studies.gender import ConceptRemoval, RemovalSettings, class_share, concept_removal, paired_differences
from mmmono.modality import Partition
from tests.calibration.studies import concept_study

SAMPLES, FEATURES = 120, 30
PARTITION = Partition(torch.arange(8), torch.arange(8, 18), torch.arange(18, 28), torch.arange(28, 30))
A = np.arange(SAMPLES) % 2 == 0
NAMES = ("female", "male")


def synthetic(**carriers: slice) -> dict[str, torch.Tensor]:
    """Sparse codes in which, for each modality, some features alone tell the concepts apart."""
    rng = np.random.default_rng(0)
    codes = {}
    for modality in ("image", "text"):
        z = rng.gamma(1.0, size=(SAMPLES, FEATURES)) * (rng.random((SAMPLES, FEATURES)) < 0.2)
        z[:, 28:] = 0
        if modality in carriers:
            width = carriers[modality].stop - carriers[modality].start
            pattern = np.zeros(width)
            pattern[: width // 2] = 4
            z[:, carriers[modality]] = np.where(A[:, None], pattern, pattern[::-1])
        codes[modality] = torch.from_numpy(z).float()
    return codes


def row(rows: list[ConceptRemoval], samples: str, concept: str, removed: str) -> ConceptRemoval:
    return next(r for r in rows if (r.samples, r.concept, r.removed) == (samples, concept, removed))


def run(codes: dict[str, torch.Tensor], **settings: object) -> list[ConceptRemoval]:
    chosen = RemovalSettings(**{"draws": 20, **settings})  # type: ignore[arg-type]
    return concept_removal(codes, (A, ~A), np.ones(SAMPLES, bool), PARTITION, NAMES, chosen)  # type: ignore[arg-type]


def test_a_concept_in_image_features_of_images_is_found_there() -> None:
    rows = run(synthetic(image=slice(0, 8), text=slice(18, 28)))
    for concept in NAMES:
        assert row(rows, "image", concept, "ImgD").baseline.value > 0.99
        assert row(rows, "image", concept, "ImgD").drop.low > 0.2
        assert row(rows, "image", concept, "ImgD").beyond_random.interval().low > 0.2
        assert abs(row(rows, "image", concept, "TextD").drop.value) < 0.05
        assert abs(row(rows, "text", concept, "TextD").drop.value) < 0.05
    assert {r.neurons for r in rows} == {8}
    assert len(rows) == 16  # each class has random sets of its own energy
    for r in rows:
        assert 0 <= r.baseline.low < r.baseline.high <= 1, "an interval of an accuracy, near 1 too"
        assert (r.mismatch is None, r.beyond_random is None) == (r.removed in ("ImgD", "TextD"), "Random" in r.removed)
        energy = (synthetic(image=slice(0, 8), text=slice(18, 28))[r.samples] ** 2).sum(0)
        if r.removed == "ImgD":
            assert r.energy == pytest.approx(float(energy[:8].sum() / energy.sum()))
    sized = run(synthetic(image=slice(0, 8)), random_sets="size")
    assert {r.removed for r in sized} == {"ImgD", "TextD", "Random"}
    nothing = row(rows, "image", "male", "TextD").beyond_random  # no sample is classified differently
    assert nothing.value == 0
    assert nothing.equivalence_bound() == pytest.approx(1.73 / 62, rel=0.02)


def test_a_concept_in_text_features_of_texts_is_found_there() -> None:
    """TextD has ten features, of which eight are removed in each draw: enough is left to tell for some."""
    rows = run(synthetic(text=slice(8, 18)))
    drops = [row(rows, "text", concept, "TextD").drop.value for concept in NAMES]
    assert sum(drops) > 0.05
    assert abs(row(rows, "text", "female", "ImgD").drop.value) < 0.02
    assert row(rows, "image", "female", "ImgD").baseline.value < 0.7  # nothing tells the images apart


def test_distances_can_be_measured_behind_a_decoder() -> None:
    codes = synthetic(image=slice(0, 8))
    blind = torch.eye(FEATURES)
    blind[:8] = 0
    rows = run(codes, space=lambda z, _: z @ blind)
    assert row(rows, "image", "female", "ImgD").drop.value == 0
    assert (
        row(run(codes), "image", "female", "ImgD").baseline.value > row(rows, "image", "female", "ImgD").baseline.value
    )


def test_references_come_from_candidates_only_and_the_seed_decides() -> None:
    codes = synthetic(image=slice(0, 8))
    candidates = np.zeros(SAMPLES, bool)
    candidates[:6] = True
    codes["image"][6:, :8] *= -1  # everybody but the candidates is the other way round
    rows = concept_removal(codes, (A, ~A), candidates, PARTITION, NAMES, RemovalSettings(draws=20))  # type: ignore[arg-type]
    assert row(rows, "image", "female", "ImgD").baseline.value < 0.2
    assert run(codes, seed=1) == run(codes, seed=1)
    assert run(codes, seed=1) != run(codes, seed=2)


def test_too_few_samples_or_classes_are_refused() -> None:
    codes = synthetic()
    nobody = np.zeros(SAMPLES, bool)
    with pytest.raises(ValueError, match=r"concept 'female' has 60 samples, 0 of them fit for references"):
        concept_removal(codes, (A, ~A), nobody, PARTITION, NAMES, RemovalSettings())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="61 references"):
        run(codes, references=61)
    everything = Partition(
        torch.arange(30), torch.tensor([], dtype=torch.int64), *[torch.tensor([], dtype=torch.int64)] * 2
    )
    with pytest.raises(ValueError, match="30 features are ImgD and 0 TextD"):
        concept_removal(codes, (A, ~A), ~nobody, everything, NAMES, RemovalSettings())  # type: ignore[arg-type]


def test_paired_differences_lie_where_they_were_put() -> None:
    rng = np.random.default_rng(0)
    base = torch.from_numpy(rng.gamma(1.0, size=(40, FEATURES))).float()
    other = base.clone()
    other[:, 2] += torch.from_numpy(rng.uniform(1, 2, 40)).float()
    codes = {"image": torch.cat([base, other]), "text": torch.cat([base, base])}
    codes["text"][40:, 20] += 1
    rows = paired_differences(codes, [(i, 40 + i) for i in range(40)], PARTITION)  # type: ignore[arg-type]
    shares = {(r.samples, r.members): r.share for r in rows}
    assert shares["image", "ImgD"] == pytest.approx(1)
    assert shares["text", "CrossD"] == pytest.approx(1)
    found = next(r for r in rows if (r.samples, r.members) == ("image", "ImgD"))
    energy = (codes["image"].double() ** 2).sum(0)
    assert found.energy == pytest.approx(float(energy[:8].sum() / energy.sum()))
    assert found.enrichment.low > 1
    assert sum(r.share for r in rows if r.samples == "image") == pytest.approx(1)
    with pytest.raises(ValueError, match="1 pairs"):
        paired_differences(codes, [(0, 1)], PARTITION)  # type: ignore[arg-type]


def test_a_difference_by_rounding_is_none() -> None:
    rng = np.random.default_rng(0)
    base = torch.from_numpy(rng.gamma(1.0, size=(40, FEATURES))).float()
    other = base.clone()
    other[:20, 2] += 1  # half of the images differ, the others and all texts by rounding alone
    rounded = base * (1 + 1e-6 * torch.from_numpy(rng.standard_normal((40, FEATURES))).float())
    codes = {"image": torch.cat([base, torch.where(other == base, rounded, other)]), "text": torch.cat([base, rounded])}
    rows = paired_differences(codes, [(i, 40 + i) for i in range(40)], PARTITION)  # type: ignore[arg-type]
    assert {r.samples for r in rows} == {"image"}
    assert next(r for r in rows if r.members == "ImgD").share == pytest.approx(1)


def test_class_share_among_the_most_activated() -> None:
    codes = torch.tensor([[5.0, 4, 3, 2, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
    share = class_share(codes, torch.tensor([0, 4]), top=3)
    assert share[:2].tolist() == pytest.approx([1 / 3, 1])
    assert share[2].isnan()


def test_the_error_is_that_of_new_samples_however_many_draws_there_are() -> None:
    """Twelve times as many draws of the same 60 samples: the standard error hardly changes, and is the real one."""
    few, many = (
        [concept_study(30, draws, np.random.default_rng(seed)) for seed in range(times)]
        for draws, times in ((30, 150), (360, 25))
    )
    errors = [np.mean([e.error for e in studies]) for studies in (few, many)]
    assert errors[0] == pytest.approx(np.std([e.value for e in few], ddof=1), rel=0.2)
    assert errors[1] > 0.7 * errors[0]
