import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mmmono.features import StoredRows
from mmmono.modality import dominance_scores, modality_dominance_score
from mmmono.modality.dominance import Undefined


def eq1(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Eq. 1 as printed, over the pairs where it is defined."""
    a, b = np.abs(image).astype(np.float64), np.abs(text).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.nanmean(a / (a + b), axis=0)


def sparse(rng: np.random.Generator, pairs: int, features: int, density: float) -> np.ndarray:
    return rng.standard_normal((pairs, features)).astype(np.float32) * (rng.random((pairs, features)) < density)


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("pairs", [1, 255, 256, 1000])
def test_equals_equation_1(density: float, pairs: int) -> None:
    rng = np.random.default_rng(0)
    image, text = sparse(rng, pairs, 17, density), sparse(rng, pairs, 17, density)
    text[0] = 1.0  # every feature has an informative pair, so that numpy has no mean of nothing
    got = modality_dominance_score(torch.from_numpy(image), torch.from_numpy(text))
    np.testing.assert_allclose(got.numpy(), eq1(image, text), atol=1e-7)


def test_half_counts_silent_pairs_as_undecided_and_keeps_dead_features_undefined() -> None:
    image = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    text = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert modality_dominance_score(image, text, "half").tolist()[0] == pytest.approx(0.75)
    assert modality_dominance_score(image, text, "skip").tolist()[0] == 1.0
    assert torch.isnan(modality_dominance_score(image, text, "half")[1])
    assert modality_dominance_score(image, text, "skip")[2].item() == pytest.approx((0 + 0.75) / 2)


def test_counts_and_standard_error() -> None:
    rng = np.random.default_rng(1)
    image, text = sparse(rng, 700, 5, 0.3), sparse(rng, 700, 5, 0.3)
    got = dominance_scores([(torch.from_numpy(image), torch.from_numpy(text))])
    informative = (image != 0) | (text != 0)
    assert got.informative_pairs.tolist() == informative.sum(0).tolist()
    assert got.image_active.tolist() == (image != 0).sum(0).tolist()
    assert got.text_active.tolist() == (text != 0).sum(0).tolist()
    for d in range(5):
        a, b = np.abs(image[informative[:, d], d]), np.abs(text[informative[:, d], d])
        ratio = a / (a + b)
        assert got.standard_error[d].item() == pytest.approx(ratio.std(ddof=1) / np.sqrt(len(ratio)), rel=1e-5)


def test_one_pair_has_no_standard_error() -> None:
    """Whatever rounding leaves of the pair's squared deviation from the first chunk's mean."""
    silent, image, text = torch.zeros(1, 1), torch.tensor([[0.25]]), torch.tensor([[0.5]])
    for blocks in ([(image, text)], [(silent, silent), (image, text)]):
        assert torch.isnan(dominance_scores(blocks).standard_error[0])


def test_blocks_of_any_size_give_the_same_score() -> None:
    rng = np.random.default_rng(2)
    image, text = (torch.from_numpy(sparse(rng, 900, 6, 0.5)) for _ in range(2))
    whole = dominance_scores([(image, text)])
    pieces = dominance_scores(zip(image.split(101), text.split(101), strict=True))
    torch.testing.assert_close(whole.scores, pieces.scores, atol=1e-7, rtol=0)
    assert torch.equal(whole.informative_pairs, pieces.informative_pairs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("undefined", ["skip", "half"])
def test_stored_rows_score_as_their_numbers_do(
    dtype: type, density: float, normalize: bool, undefined: Undefined
) -> None:
    """Over blocks that are no multiple of a chunk nor of the threads, with a dead feature."""
    rng = np.random.default_rng(4)
    sides = [sparse(rng, 700, 21, density).astype(dtype) for _ in range(2)]
    for side in sides:
        side[:, 5] = 0
        side[:, 7] += 1  # no row is empty
    sides[0][:, 6] = 0  # only texts activate it
    blocks = [
        tuple(StoredRows(torch.from_numpy(side[low:high]), normalize, "a test") for side in sides)
        for low, high in ((0, 101), (101, 357), (357, 700))
    ]
    got = dominance_scores(blocks, undefined)
    numbers = [side.astype(np.float64) for side in sides]
    if normalize:
        numbers = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in numbers]
    plain = dominance_scores([tuple(map(torch.from_numpy, numbers))], undefined)
    np.testing.assert_allclose(got.scores, plain.scores, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(got.standard_error, plain.standard_error, rtol=1e-5)
    for count in ("informative_pairs", "image_active", "text_active"):
        assert torch.equal(getattr(got, count), getattr(plain, count))
    assert got.num_pairs == 700
    if undefined == "skip":
        live = np.arange(21) != 5
        np.testing.assert_allclose(got.scores[live], eq1(*(n[:, live] for n in numbers)), rtol=1e-6, atol=1e-7)
    assert torch.isnan(got.scores[5])
    assert got.scores[6] == 0 or undefined == "half"


matrices = npst.arrays(
    np.float32, (12, 4), elements=st.floats(-100, 100, width=32).map(lambda v: 0.0 if abs(v) < 1e-3 else v)
)


@settings(max_examples=60, deadline=None)
@given(image=matrices, text=matrices, factor=st.floats(0.01, 100), order=st.permutations(range(12)))
def test_invariants(image: np.ndarray, text: np.ndarray, factor: float, order: list[int]) -> None:
    a, b = torch.from_numpy(image), torch.from_numpy(text)
    score = modality_dominance_score(a, b)
    close = dict(atol=1e-5, rtol=0, equal_nan=True)
    torch.testing.assert_close(modality_dominance_score(b, a), 1 - score, **close)
    torch.testing.assert_close(modality_dominance_score(-factor * a, factor * b), score, **close)
    torch.testing.assert_close(modality_dominance_score(a[order], b[order]), score, **close)
    live = ~torch.isnan(score)
    assert torch.equal(live, ((a != 0) | (b != 0)).any(0))
    assert ((score[live] >= 0) & (score[live] <= 1)).all()


def test_half_precision_activations_keep_float32_digits() -> None:
    rng = np.random.default_rng(3)
    image, text = (rng.standard_normal((5000, 3)).astype(np.float16) for _ in range(2))
    got = modality_dominance_score(torch.from_numpy(image), torch.from_numpy(text))
    np.testing.assert_allclose(got.numpy(), eq1(image.astype(np.float64), text.astype(np.float64)), atol=1e-6)


def test_refuses_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="paired blocks"):
        modality_dominance_score(torch.ones(3, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="no activations"):
        dominance_scores([])
    with pytest.raises(ValueError, match="neither"):
        modality_dominance_score(torch.ones(1, 1), torch.ones(1, 1), "zero")  # type: ignore[arg-type]
