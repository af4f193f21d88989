"""What is no tensor, or does not fit together, is refused in words: by no metric broadcast, cut or counted."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.dictionaries import ReconstructionMoments, contrastive_loss, fraction_of_variance_unexplained
from mmmono.interpretability import activation_histograms, embsim, monosemanticity_score, top_samples
from mmmono.modality import (
    MeanStream,
    adjusted_rand_index,
    dominance_scores,
    energy_ratio,
    image_auroc,
    modality_dominance_score,
    modality_gap,
    partition_by_null,
    partition_by_sigma,
    rank_correlation,
    removal_ablation,
    resample_dominance,
    scaled_scores,
    score_intervals,
    sharedness_scores,
)

PAIRS, FEATURES = 40, 6


def means(blocks: list) -> object:
    stream = MeanStream()
    for image, text in blocks:
        stream.add(image, text)
    return stream.result()


def quality(blocks: list) -> object:
    stream = ReconstructionMoments(FEATURES, FEATURES)
    for image, text in blocks:
        stream.add(image, text, image)
    return stream.result()


OF_PAIRS: dict[str, Callable] = {
    "mds": lambda b: dominance_scores(b),
    "sharedness": lambda b: sharedness_scores(b),
    "resampled": lambda b: resample_dominance(b, 50, 5, 2),
    "energy": lambda b: energy_ratio(b),
    "gap": lambda b: modality_gap(b),
    "scaled": lambda b: scaled_scores(b),
    "histograms": lambda b: activation_histograms(b),
    "means": means,
    "quality": quality,
    "fvu": lambda b: fraction_of_variance_unexplained(*b[0]),
    "contrastive loss": lambda b: contrastive_loss(*b[0]),
}


@pytest.fixture
def sides() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, PAIRS, FEATURES, generator=generator)
    return image, text


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("cut", [np.s_[:30], np.s_[:1], np.s_[:, :1], np.s_[:, :3], np.s_[0]])
def test_sides_of_other_shapes_are_refused(name: str, cut: object, sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, text = sides
    for block in ((image, text[cut]), (image[cut], text)):
        with pytest.raises(ValueError, match=r"\(40, 6\)"):
            OF_PAIRS[name]([block])


@pytest.mark.parametrize("name", [n for n in OF_PAIRS if n not in ("fvu", "contrastive loss", "quality")])
def test_blocks_of_other_features_are_refused(name: str, sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="a block of 1 features after blocks of 6"):
        OF_PAIRS[name]([sides, tuple(side[:, :1] for side in sides)])


@pytest.mark.parametrize("name", [n for n in OF_PAIRS if n != "contrastive loss"])
@pytest.mark.parametrize("convert", [lambda x: x.numpy(), lambda x: pd.DataFrame(x.numpy()), lambda x: x.tolist()])
def test_arrays_are_refused_with_the_remedy(
    name: str, convert: Callable, sides: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with pytest.raises(TypeError, match=r"a torch\.Tensor expected, got .*: give torch\.as_tensor"):
        OF_PAIRS[name]([tuple(map(convert, sides))])


def test_arrays_are_refused_by_the_others_too(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, text = (side.numpy() for side in sides)
    for call in (
        lambda: modality_dominance_score(image, text),  # type: ignore[arg-type]
        lambda: top_samples([image], 3),  # type: ignore[list-item]
        lambda: monosemanticity_score([(image, text)]),  # type: ignore[list-item]
        lambda: embsim(image[None], text[None]),  # type: ignore[arg-type]
        lambda: image_auroc(image, text),  # type: ignore[arg-type]
        lambda: rank_correlation(image[0], text[0]),  # type: ignore[arg-type]
        lambda: partition_by_sigma(image[0]),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=r"a torch\.Tensor expected, got numpy\.ndarray"):
            call()


def test_scaled_scores_are_those_of_exact_products(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, text = (side.bfloat16() for side in sides)
    [scaled] = scaled_scores([(image, text)], factors=(0.8,)).values()
    torch.testing.assert_close(scaled.scores, modality_dominance_score(image.double() * 0.8, text), rtol=0, atol=1e-6)


def test_a_block_without_samples_changes_no_top_samples(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, _ = sides
    found = top_samples([image[:0], image[:20], image[:0], image[20:]], 3)
    assert torch.equal(found.rows, top_samples([image], 3).rows)
    assert not top_samples([image[:0]], 3).found.any()
    for block in (image[0], image[:, :2]):
        with pytest.raises(ValueError, match=r"activations \[samples, 6\] expected"):
            top_samples([image, block], 3)


def test_groups_are_whole_numbers_of_any_kind_of_list(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    groups = np.arange(PAIRS) // 2
    for given in (groups, torch.from_numpy(groups), groups.tolist()):
        assert sharedness_scores([sides], given).num_groups == PAIRS // 2
        assert torch.equal(
            monosemanticity_score([sides], given), monosemanticity_score([sides], torch.from_numpy(groups))
        )
    for wrong in (groups / 2, -groups, ["a"] * PAIRS):
        with pytest.raises(ValueError, match="groups must be one whole number from 0 on for each pair"):
            sharedness_scores([sides], wrong)


def test_partitions_are_of_as_many_features(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores = modality_dominance_score(*sides)
    for live in (torch.ones(5, dtype=torch.bool), torch.ones(FEATURES, dtype=torch.int64)):
        with pytest.raises(ValueError, match="a mask of as many features expected"):
            partition_by_sigma(scores, live=live)
    with pytest.raises(ValueError, match="n_sigma=nan must not be negative"):
        partition_by_sigma(scores, n_sigma=float("nan"))
    with pytest.raises(ValueError, match="q-values for"):
        partition_by_null(scores, scores[:1])
    whole, smaller = partition_by_sigma(scores), partition_by_sigma(scores[:5])
    with pytest.raises(ValueError, match="partitions of 6 and of 5 features"):
        adjusted_rand_index(whole, smaller)
    labels = ["a", "b"] * (PAIRS // 2)
    with pytest.raises(ValueError, match="but a partition of 5 features"):
        removal_ablation(sides[0].numpy(), labels, smaller)
    table = pd.DataFrame(sides[0].numpy())
    assert removal_ablation(table, labels, whole, jobs=1) == removal_ablation(sides[0], labels, whole, jobs=1)


def test_an_interval_has_a_level(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="level=95 must lie between 0 and 1"):
        score_intervals(dominance_scores([sides]), level=95)
