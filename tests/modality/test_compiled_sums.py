"""Sums by the compiled loops against those of PyTorch, for any groups, blocks and types; and errors that name the row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mmmono.core.errors import NonFiniteError, StoreError
from mmmono.features import EncodedRows, KernelRows, StoredRows
from mmmono.features.rows import Origin
from mmmono.modality import dominance_scores, sharedness_scores
from mmmono.modality.groups import WholeGroups

pytest.importorskip("numba", reason="the fast extra brings it")

SIDES = ("image", "text")


def some_pairs(rng: np.random.Generator, pairs: int, features: int, share: float) -> list[Tensor]:
    """Activations of which a share is not 0; some features are silent, and all are of some blocks."""
    values = rng.standard_normal((2, pairs, features)) * (rng.random((2, pairs, features)) < share)
    values[:, :, rng.random(features) < 0.1] = 0
    values[:, : pairs // 3, rng.random(features) < 0.3] = 0
    return [torch.from_numpy(side.astype(np.float32)) for side in values]


def some_groups(rng: np.random.Generator, pairs: int, kind: str) -> np.ndarray | None:
    if kind == "none":
        return None
    groups = np.repeat(np.arange(pairs), rng.integers(1, 30 if kind == "large" else 6, pairs))[:pairs]
    return rng.permutation(groups) if kind == "scattered" else groups


def blocks_of(sides: list[Any], ends: list[int]) -> list[tuple[Any, ...]]:
    return [tuple(side[start:end] for side in sides) for start, end in pairwise([0, *ends, len(sides[0])])]


def assert_same(one: Any, other: Any, tolerance: float) -> None:
    for field in fields(one):
        mine, theirs = (getattr(result, field.name) for result in (one, other))
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance, err_msg=field.name)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pairs=st.integers(2, 400),
    features=st.sampled_from([1, 63, 64, 65, 150]),
    share=st.sampled_from([0.01, 0.2, 1.0]),
    kind=st.sampled_from(["none", "small", "large", "scattered"]),
    ends=st.lists(st.integers(0, 400), max_size=3),
    undefined=st.sampled_from(["skip", "half"]),
)
def test_of_a_feature_sets_activations(
    seed: int, pairs: int, features: int, share: float, kind: str, ends: list[int], undefined: Any
) -> None:
    rng = np.random.default_rng(seed)
    sides, groups = some_pairs(rng, pairs, features, share), some_groups(rng, pairs, kind)
    cuts = sorted(min(end, pairs) for end in ends)
    rows = [
        tuple(EncodedRows(side, name) for side, name in zip(block, SIDES, strict=True))
        for block in blocks_of(sides, cuts)
    ]
    exact = [tuple(side.double() for side in sides)]
    assert_same(sharedness_scores(rows, groups), sharedness_scores(exact, groups), 1e-6)
    assert_same(
        dominance_scores(rows, undefined, groups), dominance_scores(exact, undefined, groups), 1e-4
    )  # counts are equal in any case, as they are whole


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("kind", ["none", "small", "large", "scattered"])
def test_of_stored_embeddings(dtype: torch.dtype, kind: str) -> None:
    rng = np.random.default_rng(3)
    sides = [torch.from_numpy(rng.standard_normal((500, 70))).to(dtype) for _ in SIDES]
    groups = some_groups(rng, 500, kind)
    stored = [tuple(StoredRows(side, True, "a test") for side in block) for block in blocks_of(sides, [190, 333])]
    exact = [tuple(F.normalize(side.double()) for side in sides)]
    assert_same(sharedness_scores(stored, groups), sharedness_scores(exact, groups), 2e-4)
    found, expected = dominance_scores(stored, groups=groups), dominance_scores(exact, groups=groups)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, rtol=1e-4)


SCORES: dict[str, Callable[[list[Any], Any], object]] = {
    "sharedness": sharedness_scores,
    "dominance": lambda blocks, groups: dominance_scores(blocks, groups=groups),
}


@pytest.mark.parametrize("groups", [None, [0, 1, 2, 3, 4, 4, 5, 5], [0, 0, 1, 2, 3, 3, 3, 3], [3, 0, 1, 2, 3, 4, 0, 0]])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_a_value_that_is_not_finite_is_named_by_its_place(score: Callable, side: int, groups: list[int] | None) -> None:
    """In a group that is whole in its block, in one that is not, and in a pair of its own."""
    for place in range(8):
        sides = [torch.rand(8, 70), torch.rand(8, 70)]
        sides[side][place, 66] = float("nan")
        encoded = [tuple(map(EncodedRows, block, SIDES)) for block in blocks_of(sides, [3])]
        # A stream counts from its first pair, and pairs of groups are not added in order.
        with pytest.raises(NonFiniteError, match=f"feature 66 are NaN, first at {SIDES[side]} {place}:"):
            score(encoded, groups)
        stored = [
            tuple(
                StoredRows(rows, True, Origin("a store", name, start)) for rows, name in zip(block, SIDES, strict=True)
            )
            for block, start in zip(blocks_of(sides, [3]), (10, 13), strict=True)
        ]
        with pytest.raises(
            StoreError, match=f"{SIDES[side]} embeddings that are .* first row {place + 10}, dimension 66"
        ):
            score(stored, groups)


@given(codes=st.lists(st.integers(0, 8), min_size=1, max_size=40), end=st.integers(0, 40))
def test_whole_groups_are_those_that_a_block_has_all_of(codes: list[int], end: int) -> None:
    everything = np.array(codes)
    sizes, block = np.bincount(everything), everything[:end]
    begun = set(everything[end:].tolist())
    groups = WholeGroups.of(block, sizes, begun)
    members = [groups.rows[start:stop].tolist() for start, stop in pairwise(groups.starts)]
    expected = [np.flatnonzero(block == number).tolist() for number in np.unique(block) if number not in begun]
    assert members == expected
    assert sorted(sum(members, groups.rest.tolist())) == list(range(len(block)))
    assert groups.sizes.tolist() == [len(rows) for rows in members]
    assert len(groups) == len(members)


def test_rows_of_both_kinds_are_rows_for_the_kernels() -> None:
    values = torch.rand(3, 2)
    assert isinstance(EncodedRows(values, "image"), KernelRows)
    assert not EncodedRows(values, "image").normalize
    assert torch.equal(EncodedRows(values, "text").chosen(slice(1)).tensor(), values[:1])
