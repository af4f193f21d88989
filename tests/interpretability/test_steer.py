"""The hook that all steering goes through: codes change, embeddings move by atoms, and the unexplained part stays."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.features import FeatureSet, Modality, RawFeatures
from mmmono.interpretability.steer import How, Steer, SteeredEmbeddings
from mmmono.interpretability.steerability import Steerability
from mmmono.interpretability.steering import SteeredRetrieval
from mmmono.pipeline.steering_settings import HOWS, STEERED, UNITS

DIM, FEATURES = 12, 20


class Planted(FeatureSet):
    """Codes are rectified products with a matrix; texts are decoded around another center than images."""

    name, input_dim, num_features = "planted", DIM, FEATURES

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.into, self.back = rng.standard_normal((DIM, FEATURES)), rng.standard_normal((FEATURES, DIM))
        self.centers = {"image": rng.standard_normal(DIM), "text": rng.standard_normal(DIM)}

    def encode(self, embeddings: Tensor, modality: Modality) -> Tensor:
        return ((embeddings - torch.tensor(self.centers[modality])) @ torch.tensor(self.into)).clamp_min(0).float()

    def decode(self, activations: Tensor, modality: Modality) -> Tensor:
        return (activations.double() @ torch.tensor(self.back) + torch.tensor(self.centers[modality])).float()


def expected(features: Planted, given: np.ndarray, modality: Modality, steer: Steer, normalize: bool) -> np.ndarray:
    """The same in numpy, one row at a time, by changing the codes and decoding both."""
    rows = []
    for row in given.reshape(-1, DIM):
        length = np.linalg.norm(row) if normalize else 1.0
        codes = np.maximum((row / length - features.centers[modality]) @ features.into, 0)
        new = codes.copy()
        for feature, amount in zip(steer.features, steer.amounts, strict=True):
            new[feature] = {"set": amount, "scale": codes[feature] * amount, "add": codes[feature] + amount}[steer.how]
        before, after = (c @ features.back + features.centers[modality] for c in (codes, new))
        rows.append(row + length * (after - before))
    return np.array(rows).reshape(given.shape)


@pytest.mark.parametrize("how", ["set", "scale", "add"])
@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("shape", [(DIM,), (5, DIM), (2, 3, DIM)])
def test_an_embedding_moves_by_what_the_changed_codes_decode_to(
    how: str, modality: Modality, normalize: bool, shape: tuple[int, ...]
) -> None:
    features = Planted()
    steer = Steer((3, 11), (1.5, 0.25), how)  # type: ignore[arg-type]
    given = np.random.default_rng(1).standard_normal(shape) * 4
    moved = SteeredEmbeddings(features, modality, steer, normalize)(torch.tensor(given, dtype=torch.float32))
    assert moved.shape == given.shape
    np.testing.assert_allclose(moved.numpy(), expected(features, given, modality, steer, normalize), atol=2e-5)


def test_what_the_dictionary_does_not_explain_stays_and_nothing_moves_without_a_change() -> None:
    features, given = Planted(), torch.randn(6, DIM, generator=torch.Generator().manual_seed(2))
    moved = SteeredEmbeddings(features, "image", Steer((4,), (2.0,)), normalize=True)(given)
    away = (moved - given).numpy()
    direction = features.back[4] / np.linalg.norm(features.back[4])
    np.testing.assert_allclose(away - np.outer(away @ direction, direction), 0, atol=1e-5)
    for how, amount in (("scale", 1.0), ("add", 0.0)):
        same = SteeredEmbeddings(features, "image", Steer((4, 5), (amount, amount), how), normalize=True)  # type: ignore[arg-type]
        assert torch.equal(same(given), given)
    half = SteeredEmbeddings(features, "image", Steer((4,), (2.0,)), normalize=True)(given.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), moved, atol=5e-3, rtol=5e-3)


def test_raw_features_are_the_dimensions_themselves() -> None:
    given = torch.tensor([[3.0, 0.0, 4.0]])
    moved = SteeredEmbeddings(RawFeatures(3), "text", Steer((1,), (0.5,)), normalize=True)(given)
    torch.testing.assert_close(moved, torch.tensor([[3.0, 2.5, 4.0]]))


def test_retrieval_finds_what_the_moved_embeddings_are_nearest_to() -> None:
    """The same hook: texts that are moved by it find what `SteeredRetrieval` says."""
    features, rng = Planted(), np.random.default_rng(3)
    text, image = (torch.nn.functional.normalize(torch.tensor(rng.standard_normal((n, DIM)))).float() for n in (7, 60))
    codes = {m: features.encode(x, m).double() for m, x in (("text", text), ("image", image))}  # type: ignore[arg-type]
    retrieval = SteeredRetrieval(
        text.double(), codes["text"], image.double(), codes["image"], torch.tensor(features.back), 5
    )
    for feature, strength, how in ((2, 3.0, "set"), (9, 0.0, "set"), (9, 4.0, "scale"), (13, 2.0, "add")):
        steer = Steer.of(feature, strength, float(retrieval.reference[feature]), how)  # type: ignore[arg-type]
        moved = SteeredEmbeddings(features, "text", steer, normalize=True)(text)
        cosines = moved.double().numpy() @ image.double().numpy().T
        assert retrieval.found(feature, strength, how).tolist() == np.argsort(-cosines)[:, :5].tolist()  # type: ignore[arg-type]


def test_a_control_is_the_mean_over_what_was_steered_as_one() -> None:
    rng = np.random.default_rng(4)
    before, one, two, own = (torch.tensor(rng.random((5, 6))) for _ in range(4))
    columns, reference = torch.tensor([1, 4]), torch.tensor([2.0, 0.5], dtype=torch.float64)
    found = Steerability(before, before.mean(0), columns, reference)
    found.add(0, own)
    for after in (one, two):
        found.add_control(torch.tensor([0]), after)
    result = found.result(1.0)
    np.testing.assert_allclose(result.moves[:, 0].numpy(), (own - before)[:, 1].numpy() / 2)
    np.testing.assert_allclose(result.controls[:, 0].numpy(), ((one + two) / 2 - before)[:, 1].numpy() / 2)
    assert result.controls[:, 1].isnan().all()  # nothing was its control


@pytest.mark.parametrize(("measured", "known"), [(5, False), (6, True)])
def test_staying_is_of_five_other_features_at_least(measured: int, known: bool) -> None:
    """The cosine of one number is 1 or −1, whatever happens."""
    rng = np.random.default_rng(5)
    before, after = (torch.tensor(rng.random((4, measured))) for _ in range(2))
    found = Steerability(before, before.mean(0), torch.tensor([2]), torch.ones(1).double())
    found.add(0, after)
    result = found.result(1.0)
    sides = [np.delete(side - before.numpy().mean(0), 2, axis=1) for side in (before.numpy(), after.numpy())]
    cosines = (sides[0] * sides[1]).sum(1) / np.linalg.norm(sides[0], axis=1) / np.linalg.norm(sides[1], axis=1)
    np.testing.assert_allclose(result.stays[:, 0].numpy(), cosines if known else np.full(4, np.nan))
    np.testing.assert_allclose(result.moves[:, 0].numpy(), (after - before)[:, 2].numpy())
    assert bool(result.scores().isnan().all()) is not known


def test_settings_name_the_ways_that_there_are() -> None:
    assert get_args(How) == HOWS
    assert set(STEERED) == set(UNITS) == set(HOWS)


def test_what_cannot_be_steered_is_named() -> None:
    with pytest.raises(ValueError, match="how=push is none of set, scale, add"):
        Steer((1,), (1.0,), "push")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 features but 1 amounts"):
        Steer((1, 2), (1.0,))
    with pytest.raises(ValueError, match="name one twice"):
        Steer((1, 1), (1.0, 2.0))
    with pytest.raises(ValueError, match="are not all among the 20"):
        SteeredEmbeddings(Planted(), "text", Steer((20,), (1.0,)), normalize=True)

    class Blind(Planted):
        decode = FeatureSet.decode

    with pytest.raises(DictionaryError, match="has no decoder"):
        SteeredEmbeddings(Blind(), "text", Steer((2,), (1.0,)), normalize=True)
