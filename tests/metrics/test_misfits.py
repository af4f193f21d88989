"""What is no tensor, or does not fit together, is refused in words: by no metric broadcast, cut or counted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.dictionaries import (
    NCLHead,
    ReconstructionMoments,
    TopKSAE,
    contrastive_loss,
    fraction_of_variance_unexplained,
)
from mmmono.dictionaries.linear import CenteredEmbeddings
from mmmono.features import FeatureStoreWriter
from mmmono.interpretability import (
    activation_histograms,
    centered_activations,
    co_firing,
    counterparts,
    embsim,
    feature_map,
    monosemanticity_score,
    nearest_features,
    top_samples,
)
from mmmono.modality import (
    FeatureSetDominance,
    MeanStream,
    Partition,
    adjusted_rand_index,
    class_certainty,
    dominance_scores,
    energy_ratio,
    image_auroc,
    load_partition,
    load_sharedness,
    match_features,
    modality_dominance_score,
    modality_gap,
    other_partners,
    partition_by_null,
    partition_by_sigma,
    rank_correlation,
    removal_ablation,
    resample_dominance,
    save_partition,
    save_sharedness,
    scaled_scores,
    score_intervals,
    sharedness_scores,
    sign_flip_p_values,
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
BLOCKWISE = [name for name in OF_PAIRS if name not in ("fvu", "contrastive loss", "quality")]


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


@pytest.mark.parametrize("name", BLOCKWISE)
def test_blocks_of_other_features_are_refused(name: str, sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="a block of 1 features after blocks of 6"):
        OF_PAIRS[name]([sides, tuple(side[:, :1] for side in sides)])


@pytest.mark.parametrize("name", OF_PAIRS)
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
        lambda: match_features([(image, text, "image")]),  # type: ignore[list-item]
        lambda: co_firing(image > 0, text > 0, 2),  # type: ignore[arg-type]
        lambda: counterparts(image, text),  # type: ignore[arg-type]
        lambda: Partition(*(np.array([i]) for i in range(4))),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=r"a torch\.Tensor expected, got numpy\.ndarray"):
            call()


def test_vectors_are_no_matrix(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, text = (side[0] for side in sides)
    for call in (
        lambda: nearest_features(image, 2),
        lambda: counterparts(image, text),
        lambda: feature_map(image, "pca"),
        lambda: centered_activations(image, text),
        lambda: match_features([(image, text, "image")]),
        lambda: co_firing(image > 0, text > 0, 2),
        lambda: TopKSAE(FEATURES, k=2).encode(image, "image"),
        lambda: TopKSAE(FEATURES, k=2).encode(sides[0][None], "image"),
        lambda: NCLHead(FEATURES).encode(sides[0][None], "image"),
    ):
        with pytest.raises(ValueError, match=r"expected.*, got .*\((6,|1, 40, 6)\)"):
            call()


def test_a_block_is_not_taken_for_all_blocks(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    for of in (*(OF_PAIRS[n] for n in BLOCKWISE if n != "means"), monosemanticity_score, match_features):
        with pytest.raises(TypeError, match=r"blocks: each must be \(.*, .*\), got Tensor: give \[\(.*\)\]"):
            of(sides)


def test_groups_are_of_all_pairs_of_all_blocks(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    for of in (dominance_scores, scaled_scores, sharedness_scores, partial(resample_dominance, n_permutations=9)):
        for number in (PAIRS - 1, PAIRS + 1):
            with pytest.raises(ValueError, match=f"groups of {number} pairs, but the blocks have {PAIRS}"):
                of([sides], groups=np.arange(number) // 2)


def test_live_features_are_a_mask(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Ones and zeros would choose features 1 and 0, and a mask of one entry would stand for all."""
    scores, drawn = dominance_scores([sides]), resample_dominance([sides], n_permutations=20, n_bootstrap=5)
    shared, live = sharedness_scores([sides]), torch.arange(FEATURES) > 1

    def rule(values: torch.Tensor, live: torch.Tensor) -> Partition:
        return partition_by_sigma(values, live=live)

    for call in (
        lambda live: sign_flip_p_values(scores, live)[1],
        drawn.q_values,
        drawn.null_std,
        shared.q_value,
        lambda live: class_certainty(scores, drawn.bootstrap, rule, live).border_p_value,
    ):
        call(live)
        for wrong in (live.long(), live.nonzero()[:, 0], live[:1], live[None], live[1:]):
            with pytest.raises(ValueError, match=r"live: a mask of 6 features expected, got .*Partition\.is_live"):
                call(wrong)
        with pytest.raises(TypeError, match=r"live: a torch\.Tensor expected, got numpy\.ndarray"):
            call(live.numpy())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"resamples \[n_bootstrap, 6\] expected, got \(5, 3\)"):
        class_certainty(scores, drawn.bootstrap[:, :3], rule, live)
    with pytest.raises(ValueError, match="n_sigma=tensor"):  # a rule takes the mask second
        class_certainty(scores, drawn.bootstrap, partition_by_sigma, live)  # type: ignore[arg-type]


def test_blocks_of_ms_have_the_same_features_and_dimensions(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    activations, embeddings = sides
    groups = np.arange(2 * PAIRS) // 3
    for given in (None, groups):
        for block in ((activations[:, :2], embeddings), (activations, embeddings[:, :2])):
            with pytest.raises(ValueError, match=r"block of \d features and \d dimensions after blocks of 6 and 6"):
                monosemanticity_score([sides, block], given)


def test_activations_are_not_taken_for_yes_and_no(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"yes or no .*expected, got torch.float32 \(40, 6\): give activations > 0"):
        co_firing(*sides, 2)


def test_a_loss_is_of_one_floating_type(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, text = sides
    for one, other in ((image, text.half()), (image.long(), text.long())):
        with pytest.raises(TypeError, match=r"features of one floating type expected, got torch"):
            contrastive_loss(one, other)
    assert contrastive_loss(image.bfloat16(), text.bfloat16()).isfinite()


def test_features_of_both_modalities_are_the_same(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="6 features on images but 2 on texts"):
        centered_activations(sides[0], sides[1][:, :2])


def test_a_modality_is_image_or_text(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    for center in ("pooled", "per_modality"):
        with pytest.raises(ValueError, match="modality='audio' is neither 'image' nor 'text'"):
            TopKSAE(FEATURES, k=2, center=center).encode(sides[0], "audio")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="modality='audio' is neither 'image' nor 'text'"):
        CenteredEmbeddings(FEATURES).encode(sides[0], "audio")  # type: ignore[arg-type]


def test_what_is_saved_goes_into_folders_named_by_strings(
    tmp_path: Path, sides: tuple[torch.Tensor, torch.Tensor]
) -> None:
    scores = dominance_scores([sides])
    found = FeatureSetDominance("mine", scores, partition_by_sigma(scores.scores))
    save_partition(found, str(tmp_path))
    assert torch.equal(load_partition(str(tmp_path), "mine").scores.scores, scores.scores)
    save_sharedness(sharedness_scores([sides]), str(tmp_path))
    assert load_sharedness(str(tmp_path)).num_pairs == PAIRS
    FeatureStoreWriter(str(tmp_path / "store"), 1)
    with pytest.raises(ValueError, match="dtype='float64' is neither 'float16' nor 'float32'"):
        FeatureStoreWriter(str(tmp_path / "other"), 1, dtype="float64")


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
        with pytest.raises(ValueError, match="groups must be one whole number from 0 on for each pair"):
            monosemanticity_score([sides], wrong)
        with pytest.raises(ValueError, match="groups must be one whole number from 0 on for each pair"):
            other_partners(wrong, 0)


def test_partitions_are_of_as_many_features(sides: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores = modality_dominance_score(*sides)
    with pytest.raises(ValueError, match="a score is infinite, but R"):
        partition_by_sigma(scores / 0)
    for live in (torch.ones(5, dtype=torch.bool), torch.ones(FEATURES, dtype=torch.int64)):
        with pytest.raises(ValueError, match="a mask of as many features expected"):
            partition_by_sigma(scores, live=live)
    with pytest.raises(ValueError, match="n_sigma=nan must be a number at least 0"):
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
