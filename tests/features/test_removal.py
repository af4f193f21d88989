"""Vectors and cosines without some features are those computed anew; retrieval from them is that of other functions."""

import numpy as np
import pytest
import torch
from scipy.linalg import svdvals
from torch import Tensor

from mmmono.core.errors import NonFiniteError
from mmmono.dictionaries import DictionaryFeatures, TopKSAE
from mmmono.dictionaries.base import Dictionary
from mmmono.dictionaries.linear import LinearMap, random_rotation
from mmmono.dictionaries.pretrained import PretrainedSAE
from mmmono.dictionaries.sparc import SparcSAE
from mmmono.features import MODALITIES, Modality, RawFeatures, removal
from mmmono.features.effective_rank import effective_rank, paired_effective_rank
from mmmono.features.pair_retrieval import PairRetrieval
from mmmono.features.removal import Composition, PairedCompositions, atoms_of, composition_of, others
from mmmono.features.retrieval import clip_loss, recall_at_k

PAIRS, FEATURES, DIM = 60, 24, 10


def codes(seed: int) -> Tensor:
    drawn = torch.rand(PAIRS, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn * (drawn > 0.7)


@pytest.fixture(params=["codes", "decoded", "decoded without bias"])
def sides(request: pytest.FixtureRequest) -> tuple[Composition, Composition]:
    if request.param == "codes":
        return Composition(codes(0)), Composition(codes(0) * 0.7 + codes(1))
    random = np.random.default_rng(2)
    atoms = torch.from_numpy(random.standard_normal((FEATURES, DIM)))
    bias = torch.from_numpy(random.standard_normal((2, DIM))) if request.param == "decoded" else [None, None]
    return Composition(codes(0), atoms, bias[0]), Composition(codes(0) * 0.7 + codes(1), atoms, bias[1])


def anew(side: Composition, removed: list[int]) -> np.ndarray:
    left = side.codes.numpy().copy()
    left[:, removed] = 0
    if side.atoms is None:
        return left
    return left @ side.atoms.numpy() + (0 if side.bias is None else side.bias.numpy())


@pytest.mark.parametrize("removed", [[], [3], [1, 2, 5, 23], list(range(20)), list(range(FEATURES))])
def test_vectors_and_cosines_are_those_computed_anew(
    sides: tuple[Composition, Composition], removed: list[int]
) -> None:
    found = PairedCompositions(*sides).without(torch.tensor(removed, dtype=torch.int64))
    image, text = (anew(side, removed) for side in sides)
    np.testing.assert_allclose(found.image.numpy(), image, atol=1e-12)
    np.testing.assert_allclose(found.text.numpy(), text, atol=1e-12)
    lengths = [np.linalg.norm(side, axis=1, keepdims=True) for side in (image, text)]
    unit = [side / np.where(length > 0, length, 1) for side, length in zip((image, text), lengths, strict=True)]
    np.testing.assert_allclose(found.cosines.numpy(), unit[0] @ unit[1].T, atol=1e-10)


def test_a_sample_without_features_keeps_no_rounding_errors() -> None:
    atoms = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 4))) / 3
    side = Composition(torch.tensor([[0.1, 0.7, 0.0], [0.3, 0.0, 0.9]], dtype=torch.float64), atoms)
    found = PairedCompositions(side, side).without(torch.tensor([0, 1]))
    assert found.image[0].tolist() == [0, 0, 0, 0]
    assert found.cosines[0].tolist() == [0, 0]
    assert found.cosines[1, 1].item() == pytest.approx(1)


def test_many_removals_from_one_object_do_not_add_up(sides: tuple[Composition, Composition]) -> None:
    pairs = PairedCompositions(*sides)
    first = pairs.without(torch.tensor([4])).cosines.clone()
    pairs.without(torch.tensor([1, 2, 3]))
    assert torch.equal(pairs.without(torch.tensor([4])).cosines, first)


def test_a_feature_set_is_taken_apart() -> None:
    z = torch.randn(7, DIM, generator=torch.Generator().manual_seed(0))
    raw = composition_of(RawFeatures(DIM), z, "image", decoded=False)
    assert raw.atoms is None
    assert torch.equal(raw.vectors, z.double())
    rotation = DictionaryFeatures("rotation", random_rotation(DIM))
    decoded = composition_of(rotation, z, "image", decoded=True)
    torch.testing.assert_close(decoded.vectors, z.double(), atol=1e-5, rtol=0)
    kept = others(torch.tensor([0, 3]), DIM)
    expected = rotation.decode(rotation.encode(z, "image").index_fill(1, torch.tensor([0, 3]), 0), "image")
    torch.testing.assert_close(decoded.without(torch.tensor([0, 3])), expected.double(), atol=1e-5, rtol=0)
    assert kept.tolist() == [1, 2, 4, 5, 6, 7, 8, 9]


def test_sides_that_do_not_fit_are_refused() -> None:
    side = Composition(codes(0))
    with pytest.raises(ValueError, match=r"images have codes \(60, 24\), texts \(59, 24\)"):
        PairedCompositions(side, Composition(codes(0)[1:]))
    with pytest.raises(ValueError, match="one side has atoms"):
        PairedCompositions(side, Composition(codes(0), torch.eye(FEATURES, dtype=torch.float64)))
    with pytest.raises(ValueError, match="24 features but 3 atoms"):
        Composition(codes(0), torch.eye(3, dtype=torch.float64))
    with pytest.raises(NonFiniteError, match="sample 0"):
        Composition(torch.full((2, 2), torch.nan, dtype=torch.float64))


def test_retrieval_is_that_of_recall_at_k_also_with_groups_ties_and_repeated_rows() -> None:
    image, text = codes(0), codes(0) + 0.3 * codes(1)
    image[1], text[2], image[5] = image[0], text[3], 0.0
    groups = np.arange(PAIRS) // 2
    unit = [torch.nn.functional.normalize(side, dim=1) for side in (image, text)]
    for given in (None, groups):
        found = PairRetrieval(image, text, given).measure(unit[0] @ unit[1].T)
        for k in (1, 5, 10):
            ways = recall_at_k(image, text, (k,), given)[k], recall_at_k(text, image, (k,), given)[k]
            assert found.image_to_text.hits(k).mean().item() == pytest.approx(ways[0], abs=1e-12)
            assert found.text_to_image.hits(k).mean().item() == pytest.approx(ways[1], abs=1e-12)
            assert found.recall(k).mean().item() == pytest.approx(np.mean(ways), abs=1e-12)


def test_reciprocal_ranks_are_those_of_sorting() -> None:
    cosines = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (PAIRS, PAIRS)))
    found = PairRetrieval(torch.rand(PAIRS, 3), torch.rand(PAIRS, 3)).measure(cosines)
    ranks = [(row > row[i]).sum() + 1 for i, row in enumerate(cosines.numpy())]
    np.testing.assert_allclose(found.image_to_text.reciprocal().numpy(), 1 / np.array(ranks))
    tied = PairRetrieval(torch.rand(3, 2), torch.rand(3, 2)).measure(torch.zeros(3, 3, dtype=torch.float64))
    assert tied.image_to_text.reciprocal().tolist() == [0.5, 0.5, 0.5]  # expected rank 2 of 3


def test_losses_are_those_of_clip_loss() -> None:
    image, text = codes(0) + 0.01, codes(1) + 0.01
    unit = [torch.nn.functional.normalize(side, dim=1) for side in (image, text)]
    retrieval = PairRetrieval(image, text)
    for temperature in (0.005, 0.07, 1.0):
        found = retrieval.losses(unit[0] @ unit[1].T, temperature).mean().item()
        assert found == pytest.approx(clip_loss(image, text, 1 / temperature), rel=1e-9)
    with pytest.raises(ValueError, match=r"temperature=0.001 must be at least 0.005"):
        retrieval.losses(unit[0] @ unit[1].T, 0.001)


def test_effective_rank_is_the_exponential_of_an_entropy() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 6)) @ np.diag([5, 3, 1, 1, 0.1, 0])
    shares = svdvals(rows) / svdvals(rows).sum()
    expected = np.exp(-sum(p * np.log(p) for p in shares if p > 1e-12))
    assert effective_rank(torch.from_numpy(rows)) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(torch.from_numpy(rows.T)) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(torch.eye(4).repeat(3, 1)) == pytest.approx(4)
    assert effective_rank(1e-30 * torch.ones(5, 3)) == pytest.approx(1)
    assert np.isnan(effective_rank(torch.zeros(5, 3)))


def test_the_gap_between_modalities_is_no_direction_of_the_effective_rank() -> None:
    rows = torch.nn.functional.one_hot(torch.arange(40) % 2, 5).double()
    assert paired_effective_rank(rows, rows) == pytest.approx(1)
    shifted = rows + 3 * torch.nn.functional.one_hot(torch.full((40,), 4), 5)
    assert paired_effective_rank(rows, shifted) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1.0])
def test_sparse_codes_are_added_up_without_their_zeros_to_the_same_vectors(share: float) -> None:
    rng = np.random.default_rng(1)
    values = torch.from_numpy(rng.standard_normal((40, 300)) * (rng.random((40, 300)) < 0.03))
    atoms, bias = torch.from_numpy(rng.standard_normal((300, 8))), torch.from_numpy(rng.standard_normal(8))
    side = Composition(values, atoms, bias)
    removed = torch.from_numpy(np.sort(rng.choice(300, round(300 * share), replace=False)))
    assert side._few is not None
    torch.testing.assert_close(side.without(removed), values.index_fill(1, removed, 0.0) @ atoms + bias)
    silent = (values.index_fill(1, removed, 0.0) == 0).all(1)
    assert (side.without(removed)[silent] == bias).all()
    if share == 1:
        assert silent.all()


def test_atoms_of_a_wide_dictionary_are_found_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    features = DictionaryFeatures("linear", LinearMap.of(torch.randn(64, DIM)))
    chosen = torch.arange(64)
    expected = atoms_of(features, chosen, "image")
    sizes: list[int] = []
    decode = features.decode

    def watched(codes: Tensor, modality: Modality) -> Tensor:
        sizes.append(codes.numel())
        return decode(codes, modality)

    monkeypatch.setattr(features, "decode", watched)
    monkeypatch.setattr(removal, "ONE_HOT_VALUES", 640)
    torch.testing.assert_close(atoms_of(features, chosen, "image"), expected)
    assert max(sizes) <= 640


class Halved(TopKSAE):
    """A user's own, which decodes in another way."""

    architecture = "halved_sae"

    def decode(self, codes: Tensor, modality: Modality) -> Tensor:
        return super().decode(codes, modality) / 2


@pytest.mark.parametrize("made", [TopKSAE, SparcSAE, PretrainedSAE, Halved])
@pytest.mark.parametrize("modality", MODALITIES)
def test_atoms_of_an_autoencoder_are_its_rows_to_the_bit(
    made: type[Dictionary], modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide one would otherwise multiply a matrix of as many codes as it has latents, squared."""
    encoding = {"activation": "topk", "input_norm": "constant"} if made is PretrainedSAE else {}
    dictionary = made(DIM, 64, k=4, **encoding).eval()
    with torch.no_grad():
        for _, values in (*dictionary.named_parameters(), *dictionary.named_buffers()):
            values.copy_(torch.randn_like(values))
    features, chosen = DictionaryFeatures("sae", dictionary), torch.tensor([5, 0, 63])
    with torch.inference_mode():
        found = atoms_of(features, chosen, modality)
        with monkeypatch.context() as patch:
            decoded: list[int] = []
            patch.setattr(
                features, "decode", lambda codes, m: decoded.append(len(codes)) or dictionary.decode(codes, m)
            )
            atoms_of(features, chosen, modality)
            assert decoded == ([1, 3] if made is Halved else [1])
            patch.setattr(features, "decode_each", lambda *_: None)
            assert torch.equal(found, atoms_of(features, chosen, modality))
