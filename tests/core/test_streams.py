"""Every stream: parts that are walked separately and merged give the result of one pass, and a merge changes one side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from mmmono.core.streams import Stream
from mmmono.dictionaries import ReconstructionMoments, SparsityMoments
from mmmono.features import ActivationBlock, StoredRows
from mmmono.interpretability import BothSidesStream, HistogramStream, MonosemanticityStream, TopSampleSearch, TopStream
from mmmono.modality import (
    CorrelationStream,
    DominanceStream,
    EnergyStream,
    GapStream,
    MeanStream,
    ScaleStream,
    SharednessStream,
)
from mmmono.modality.random_sets import ActivityStream
from mmmono.modality.seed_agreement import HalvesStream

FEATURES = 3

# Zeros, ties, both signs, powers of two at the edges of histograms' ranges; all sums of a few are exact in float32.
NUMBERS = st.sampled_from([0.0, 0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 1.5, 2.0, 3.0, 64.0, -0.5, -1.0, -4.0])

Blocks = list[tuple[Tensor, Tensor]]


def stored_rows(rows: Tensor, normalize: bool = False) -> StoredRows:
    return StoredRows(rows, normalize, "a test")


def groups_of(rows: Tensor) -> Tensor:
    """Groups that lie anywhere, from the rows themselves: 0 to 4."""
    return (4 * rows[:, 0].abs()).long() % 5


def by_size() -> DominanceStream:
    """Groups 0 and 1 are announced as groups of one pair, the others as larger than they will be."""
    return DominanceStream(group_sizes=np.array([1, 1, 999, 999, 999]))


def with_metadata(pairs: int = 100) -> TopSampleSearch:
    captions = [f"caption {pair % 4}" for pair in range(pairs)]
    return TopSampleSearch(2, deduplicate=True, metadata=pd.DataFrame({"caption": captions}))


@dataclass(frozen=True)
class Walk:
    """A stream, and what it is given of two sides.

    Attributes:
        new: makes the stream.
        block: its block of the rows of both sides.
        exact: whether merged results must have the same bits; otherwise they may differ by rounding.
        digits: relative and absolute difference that rounding may make.
    """

    new: Callable[[], Stream[..., Any]]
    block: Callable[[Tensor, Tensor], tuple[Any, ...]] = lambda image, text: (image, text)
    exact: bool = False
    digits: float = 1e-9


WALKS: dict[str, Walk] = {
    "dominance": Walk(DominanceStream, digits=1e-5),  # contrasts are float32
    "dominance, silent pairs as half": Walk(lambda: DominanceStream("half"), digits=1e-5),
    "dominance of stored rows": Walk(DominanceStream, lambda i, t: (stored_rows(i), stored_rows(t)), digits=1e-5),
    "dominance by group": Walk(DominanceStream, lambda i, t: (i, t, groups_of(i)), digits=1e-5),
    "dominance by group, some alone": Walk(by_size, lambda i, t: (i, t, groups_of(i)), digits=1e-5),
    "top samples": Walk(lambda: TopStream(3), lambda i, _: (i,), exact=True),
    "top samples of stored rows": Walk(lambda: TopStream(3), lambda i, _: (stored_rows(i),), exact=True),
    "top samples of both sides": Walk(lambda: BothSidesStream(3), lambda i, _: (i,), digits=1e-5),
    "both sides of stored rows": Walk(lambda: BothSidesStream(3), lambda i, _: (stored_rows(i),), digits=1e-5),
    "top samples without repetition": Walk(with_metadata, lambda i, t: (ActivationBlock(0, i, t),), exact=True),
    "histograms": Walk(lambda: HistogramStream(8), exact=True),
    "sparsity": Walk(lambda: SparsityMoments(FEATURES), lambda i, _: (i,), exact=True),
    "reconstruction": Walk(lambda: ReconstructionMoments(FEATURES, FEATURES), lambda i, t: (i, t, i)),
    "energies": Walk(EnergyStream, exact=True),
    "activity": Walk(ActivityStream, lambda i, _: (i,)),
    "gap": Walk(GapStream),
    "means": Walk(MeanStream, exact=True),
    "scores of scaled images": Walk(ScaleStream, digits=1e-4),  # of equal contrasts, the error is a root of rounding
    "sharedness": Walk(SharednessStream, digits=1e-7),
    "sharedness of groups": Walk(
        lambda: SharednessStream(np.arange(40_000) // 10_000),  # larger groups than there are rows
        lambda i, t: (i, t, np.minimum(np.abs(i[:, 0].numpy()).astype(np.int64), 3)),
        digits=1e-7,
    ),
    "correlations": Walk(CorrelationStream),
    "correlations within strata": Walk(CorrelationStream, lambda i, t: (i, t, "odd" if len(i) % 2 else "even")),
    "halves": Walk(lambda: HalvesStream(3, 4), lambda i, t: (i, t, ((i > 0) + 0 + (t > 0))[:, 0].numpy()), digits=1e-6),
    "monosemanticity": Walk(MonosemanticityStream),
}


@st.composite
def blocks(draw: st.DrawFn, most: int = 6) -> Blocks:
    """Blocks of 1 to 5 pairs, at least one."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=most))
    rows = draw(npst.arrays(np.float32, (2, sum(lengths), FEATURES), elements=NUMBERS))
    image, text = (torch.from_numpy(side).split(lengths) for side in rows)
    return list(zip(image, text, strict=True))


def walked(walk: Walk, part: Sequence[tuple[Tensor, Tensor]], stream: Stream[..., Any] | None = None) -> Any:
    stream = stream or walk.new()
    for image, text in part:
        stream.add(*walk.block(image, text))
    return stream


def numbers(result: Any) -> dict[str, Any]:
    """Everything in a result, by name, as arrays."""
    if isinstance(result, dict):
        return {f"{key}.{name}": value for key, part in result.items() for name, value in numbers(part).items()}
    if is_dataclass(result):
        return numbers(asdict(result))  # type: ignore[arg-type]
    return {"": np.asarray([] if result is None else result)}


def assert_same(walk: Walk, got: Any, expected: Any) -> None:
    expected = numbers(expected)
    for name, value in numbers(got).items():
        if walk.exact or value.dtype.kind == "i":
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, expected[name], rtol=walk.digits, atol=walk.digits, err_msg=name)


@pytest.mark.parametrize("name", WALKS)
@settings(max_examples=60)
@given(blocks=blocks(), data=st.data())
def test_merged_parts_are_one_pass(name: str, blocks: Blocks, data: st.DataObject) -> None:
    """Cut into three parts at any two places, also before the first and after the last block."""
    walk = WALKS[name]
    places = st.integers(0, len(blocks))
    low, high = sorted((data.draw(places), data.draw(places)))
    expected = walked(walk, blocks).result()
    first, second, third = (walked(walk, part) for part in (blocks[:low], blocks[low:high], blocks[high:]))
    if data.draw(st.booleans()):
        first.merge(second)
        first.merge(third)
    else:
        second.merge(third)
        first.merge(second)
    assert_same(walk, first.result(), expected)


@pytest.mark.parametrize("name", WALKS)
@settings(max_examples=20)
@given(blocks=blocks(), data=st.data())
def test_a_stream_goes_on_after_a_merge_and_after_its_result(name: str, blocks: Blocks, data: st.DataObject) -> None:
    walk = WALKS[name]
    place = data.draw(st.integers(0, len(blocks) - 1))
    first, second = walked(walk, blocks[:place]), walked(walk, blocks[place:])
    first.merge(second)
    first.result()
    walked(walk, blocks, first)
    assert_same(walk, first.result(), walked(walk, [*blocks, *blocks]).result())


@pytest.mark.parametrize("name", WALKS)
@settings(max_examples=20)
@given(mine=blocks(), others=blocks(), later=blocks())
def test_a_merge_leaves_the_other_stream_alone(name: str, mine: Blocks, others: Blocks, later: Blocks) -> None:
    """Also if the first one was empty and took everything over, and goes on."""
    walk = WALKS[name]
    other = walked(walk, others)
    expected = walked(walk, others).result()
    for stream in (walk.new(), walked(walk, mine)):
        stream.merge(other)
        walked(walk, later, stream)
        assert_same(walk, other.result(), expected)


@settings(max_examples=30)
@given(blocks=blocks(), place=st.integers(0, 6), first_is_stored=st.booleans())
def test_stored_rows_and_tensors_merge(blocks: Blocks, place: int, first_is_stored: bool) -> None:
    walk = Walk(lambda: TopStream(3), exact=True)
    first, second = (TopStream(3) for _ in range(2))
    for number, (image, _) in enumerate(blocks):
        stream = first if number < place else second
        stream.add(stored_rows(image) if (number < place) == first_is_stored else image)
    first.merge(second)
    expected = TopStream(3)
    for image, _ in blocks:
        expected.add(image)
    assert_same(walk, first.result(), expected.result())


def test_many_rows_merge_as_well() -> None:
    """Several chunks, pending columns and all threads' parts on either side."""
    image, text = (torch.from_numpy(np.random.default_rng(i).standard_normal((3000, FEATURES))).float() for i in (0, 1))
    cut = [(image[rows], text[rows]) for rows in (slice(0, 700), slice(700, 1900), slice(1900, 3000))]
    for name, walk in WALKS.items():
        if name == "top samples without repetition":
            continue  # its metadata are of 100 pairs
        first, second = walked(walk, cut[:1]), walked(walk, cut[1:])
        first.merge(second)
        loose = Walk(walk.new, walk.block, walk.exact and name != "energies", walk.digits)
        assert_same(loose, first.result(), walked(walk, [(image, text)]).result())


@pytest.mark.parametrize(
    ("mine", "others", "message"),
    [
        (DominanceStream("skip"), DominanceStream("half"), "undefined=skip and undefined=half cannot be merged"),
        (TopStream(3), TopStream(4), "m=3 and m=4 cannot be merged"),
        (HistogramStream(8), HistogramStream(16), "bins=8 and bins=16 cannot be merged"),
        (HalvesStream(8), HalvesStream(8, seed=1), "cannot be merged"),
    ],
)
def test_streams_with_other_settings_are_refused(mine: Any, others: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mine.merge(others)


def test_a_number_at_the_edge_of_the_range_moves_to_its_bin_when_the_range_grows() -> None:
    one, three = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    for order in ((one, three), (three, one)):
        stream = HistogramStream(8)
        for value in order:
            stream.add(value, torch.zeros(1, 1))
        assert stream.result().width.item() == 1.0
        assert stream.result().counts[0, 0].tolist() == [0, 0, 0, 0, 0, 1, 0, 1]  # [1, 2) and [3, 4]
