"""Both sides of signed features in one pass, against a full sort and sums of squares in numpy."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmmono.features import ActivationBlock, StoredRows
from mmmono.interpretability import (
    BothSidesStream,
    TopSamples,
    TopSampleSearch,
    negative_dominates,
    top_sample_search,
    top_samples,
)
from mmmono.interpretability.sides import BothSides
from mmmono.interpretability.top_sample_search import SearchOfSome
from tests.interpretability.test_top_samples import by_sorting


def both(blocks: list[torch.Tensor | StoredRows], m: int) -> BothSides:
    stream = BothSidesStream(m)
    for block in blocks:
        stream.add(block)
    return stream.result()


def check(found: BothSides, a: np.ndarray, m: int) -> None:
    energy = [(a.astype(float) ** 2).sum(0), (np.minimum(a, 0).astype(float) ** 2).sum(0)]
    np.testing.assert_allclose(found.energy, energy, rtol=1e-5, atol=1e-9)
    for top, signed in ((found.positive, a), (found.negative, -a)):
        if top is None:
            assert (signed <= 0).all()
            continue
        for d, rows in enumerate(by_sorting(signed, m)):
            assert top.rows[d].tolist() == rows + [-1] * (m - len(rows))
            np.testing.assert_array_equal(top.values[d, : len(rows)], a[rows, d])
            assert not top.values[d, len(rows) :].any()


@pytest.mark.slow
@given(
    arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 6)), elements=st.integers(-5, 3)),
    st.integers(1, 8),
    st.integers(1, 25),
)
@settings(max_examples=100, deadline=None)
def test_one_pass_equals_two_sorts(a: np.ndarray, m: int, block: int) -> None:
    blocks = torch.from_numpy(a).split(block)
    stored = [StoredRows(values.half(), False, "a test") for values in blocks]
    for given_as in (blocks, stored, [pair[i % 2] for i, pair in enumerate(zip(blocks, stored, strict=True))]):
        check(both(list(given_as), m), a, m)


@pytest.mark.parametrize("normalize", [False, True])
def test_stored_rows_of_many_features(normalize: bool) -> None:
    a = np.random.default_rng(0).standard_normal((900, 300)).astype(np.float16)
    found = both([StoredRows(torch.from_numpy(a[i : i + 256]), normalize, "a test") for i in range(0, 900, 256)], 20)
    exact = a.astype(np.float64)
    exact = exact / np.linalg.norm(exact, axis=1, keepdims=True) if normalize else exact
    assert found.positive.rows.tolist() == by_sorting(exact, 20)
    assert found.negative is not None
    assert found.negative.rows.tolist() == by_sorting(-exact, 20)
    np.testing.assert_allclose(found.energy[1], (np.minimum(exact, 0) ** 2).sum(0), rtol=1e-5)


def test_non_negative_features_are_found_bit_by_bit_as_without_sides() -> None:
    a = torch.from_numpy(np.random.default_rng(0).gamma(1, size=(700, 40))).float() * (torch.rand(700, 40) < 0.1)
    found, alone = both(list(a.split(64)), 7), top_samples(a.split(64), 7)
    for negative in (torch.zeros(40, dtype=torch.bool), negative_dominates(found, found)):
        chosen = found.of(negative)
        assert torch.equal(chosen.values, alone.values)
        assert torch.equal(chosen.rows, alone.rows)


def test_the_first_negative_activation_may_come_late() -> None:
    """Positions go on counting over blocks without one, and their energy is not lost."""
    a = torch.ones(100, 2)
    a[90:, 1] = -2
    found = both(list(a.split(30)), 3)
    assert found.negative is not None
    assert found.negative.rows.tolist() == [[-1, -1, -1], [90, 91, 92]]
    np.testing.assert_allclose(found.energy, [[100, 130], [0, 40]], rtol=1e-6)
    first, second = BothSidesStream(3), BothSidesStream(3)
    first.add(a[:50])
    second.add(a[50:])
    first.merge(second)
    assert torch.equal(first.result().of(torch.tensor([False, True])).rows, torch.tensor([[0, 1, 2], [90, 91, 92]]))


def search(image: torch.Tensor, text: torch.Tensor, side: str, captions: list[str] | None = None, m: int = 3) -> dict:
    metadata = pd.DataFrame({"caption": captions or [f"text {i}" for i in range(len(image))]})
    found = TopSampleSearch(m, True, metadata, side)  # type: ignore[arg-type]
    block = ActivationBlock(0, image, text)
    found.add(block)
    return found.deepened(lambda deeper: walked(deeper, [block]))


def walked(deeper: SearchOfSome, blocks: list[ActivationBlock]) -> TopSamples:
    for block in blocks:
        deeper.add(block)
    return deeper.result()


def test_one_side_is_chosen_for_both_modalities_by_their_joint_energy() -> None:
    rng = np.random.default_rng(0)
    image, text = (torch.from_numpy(rng.normal(shift, 1, (200, 30))) for shift in ([-0.4] * 15 + [0.4] * 15, 0.1))
    found = search(image, text, "dominant")
    z = np.concatenate([image, text])
    negative = (np.minimum(z, 0) ** 2).sum(0) > (np.maximum(z, 0) ** 2).sum(0)
    assert 8 < negative.sum() < 22
    for modality, a in (("image", image.numpy()), ("text", text.numpy())):
        assert (found[modality].negative.numpy() == negative).all()
        assert found[modality].rows.tolist() == by_sorting(a * np.where(negative, -1, 1), 3)
        assert search(image, text, "positive")[modality].rows.tolist() == by_sorting(a, 3)


def test_a_mirrored_feature_has_the_same_top_samples() -> None:
    """The sign of a direction is arbitrary: what is shown of it must not depend on it."""
    rng = np.random.default_rng(1)
    image, text = (torch.from_numpy(rng.normal(0.1, 1, (150, 8)).astype(np.float32)) for _ in range(2))
    mirrored = search(-image, -text, "dominant")
    for modality, top in search(image, text, "dominant").items():
        assert torch.equal(mirrored[modality].rows, top.rows)
        assert torch.equal(mirrored[modality].values, -top.values)


@pytest.mark.parametrize("side", ["positive", "dominant"])
@pytest.mark.parametrize("sign", [1, -1])
def test_captions_that_repeat_very_often_do_not_hide_a_feature(side: str, sign: int) -> None:
    """Of 4,000 texts, the 3,900 strongest all say the same; m = 3 different ones exist all the same."""
    a = torch.linspace(2, 1, 4000)[:, None].repeat(1, 2)
    a[:, 1] = 1 / a[:, 1]
    captions = ["a photo"] * 3900 + [f"text {i}" for i in range(100)]
    found = search(a, a * sign if side == "dominant" else a, side, captions)
    if side == "dominant" and sign < 0:
        found = search(a * sign, a * sign, side, captions)
    assert found["text"].rows.tolist() == [[0, 3900, 3901], [3999, 3998, 3997]]
    assert found["image"].rows.tolist() == [[0, 1, 2], [3999, 3998, 3997]]
    np.testing.assert_allclose(found["text"].values.abs(), a[found["text"].rows, torch.tensor([[0], [1]])])


def test_further_passes_are_made_only_for_features_that_need_them() -> None:
    def refused(deeper: SearchOfSome) -> TopSamples:
        raise AssertionError("a pass that nobody needs")

    a = torch.rand(450, 4, generator=torch.Generator().manual_seed(0))
    metadata = pd.DataFrame({"caption": [f"text {i % 20}" for i in range(450)]})
    for m, few in ((5, False), (30, True)):  # 30 different texts do not exist, and all are looked at
        found = TopSampleSearch(m, True, metadata)
        found.add(ActivationBlock(0, a, a))
        assert (found.deepened(refused)["text"].found == (20 if few else m)).all()


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(ValueError, match="side='negative' is neither"):
        search(torch.ones(2, 1), torch.ones(2, 1), "negative")


def test_what_memory_does_not_allow_to_look_for_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_sample_search, "MOST_CANDIDATES", 100)
    a = torch.linspace(2, 1, 400)[:, None].repeat(1, 2)
    metadata = pd.DataFrame({"caption": ["a photo"] * 390 + [f"text {i}" for i in range(10)]})
    found = TopSampleSearch(3, True, metadata)
    found.add(ActivationBlock(0, a, a))
    assert found.deepened(lambda deeper: walked(deeper, []))["text"].found.tolist() == [1, 1]
    assert found.cut == {"image": 0, "text": 2}
