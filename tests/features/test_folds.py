"""One-pass statistics in fixed ranges: the same bits whoever folds them, and the numbers of a single pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.core.errors import ConfigError, NonFiniteError
from mmmono.core.streams import Stream
from mmmono.dictionaries import DictionaryFeatures, TopKSAE
from mmmono.features import ActivationBlock, FeatureStore, FeatureView, RawFeatures, feature_set, folding
from mmmono.features.folding import (
    OfBlocks,
    Threads,
    Together,
    Walk,
    folded,
    images,
    pairs,
    pairs_and_groups,
    stored_pairs_and_groups,
)
from mmmono.features.gathered import GatheredView, most_open
from mmmono.interpretability import HistogramStream, TopSampleSearch
from mmmono.modality import DominanceStream, EnergyStream, GapStream, MeanStream, ScaleStream, SharednessStream
from mmmono.modality.groups import OpenGroups
from mmmono.modality.random_sets import ActivityStream
from mmmono.modality.resampling import ResamplingStream, resample_dominance
from mmmono.modality.seed_agreement import HalvesStream
from tests.core.test_streams import numbers
from tests.features.test_store import write_like_clip_retrieval

ROWS = 1024  # in a range; two blocks of an SAE's activations
SIZES = [700, 1500, 30, 900, 370]  # 3,500 pairs: four ranges, none of which ends where a shard does
PAIRS, DIM = sum(SIZES), 12
GROUPS = np.arange(PAIRS) * 7 % 1200 // 2  # 600 groups that lie all over the store
SIZES_OF_GROUPS = np.bincount(GROUPS)


def captions() -> pd.DataFrame:
    return pd.DataFrame({"caption": [f"caption {pair % 900}" for pair in range(PAIRS)]})


STREAMS: dict[str, Callable[[], Stream[[ActivationBlock], Any]]] = {
    "dominance": lambda: OfBlocks(DominanceStream(), lambda block: (block.image_rows, block.text_rows)),
    "dominance by group": lambda: OfBlocks(DominanceStream(group_sizes=SIZES_OF_GROUPS), stored_pairs_and_groups),
    "sharedness": lambda: OfBlocks(SharednessStream(), stored_pairs_and_groups),
    "sharedness of groups": lambda: OfBlocks(SharednessStream(GROUPS), stored_pairs_and_groups),
    "resamples": lambda: OfBlocks(ResamplingStream(50, 20, 3, 1), pairs),
    "resamples of groups": lambda: OfBlocks(ResamplingStream(50, 20, 3, 1, SIZES_OF_GROUPS), pairs_and_groups),
    "energies and histograms": lambda: Together(OfBlocks(EnergyStream(), pairs), OfBlocks(HistogramStream(8), pairs)),
    "scores of scaled images": lambda: OfBlocks(ScaleStream(group_sizes=SIZES_OF_GROUPS), pairs_and_groups),
    "means and activity": lambda: Together(OfBlocks(MeanStream(), pairs), OfBlocks(ActivityStream(), images)),
    "halves": lambda: OfBlocks(HalvesStream(len(SIZES_OF_GROUPS), 4), pairs_and_groups),
    "top samples": lambda: TopSampleSearch(3, deduplicate=True, metadata=captions()),
    "gap": lambda: OfBlocks(GapStream(), pairs),
}
DRAWN = ("resamples", "resamples of groups")  # other ranges are other draws


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path = tmp_path_factory.mktemp("folding") / "store"
    write_like_clip_retrieval(path, SIZES, DIM)
    return FeatureStore(path)


def sae() -> DictionaryFeatures:
    torch.manual_seed(0)
    return DictionaryFeatures("sae", TopKSAE(DIM, 4 * DIM, k=4))


def walk(store: FeatureStore, of: str, rows: int = ROWS, groups: np.ndarray | None = GROUPS) -> Walk:
    features = {"raw": RawFeatures(DIM), "sae": sae(), "embeddings": None}[of]
    return Walk(FeatureView(store), features, groups=groups, rows=rows)


def bits(result: Any) -> dict[str, bytes]:
    if isinstance(result, tuple):
        return {f"{i}.{name}": value for i, part in enumerate(result) for name, value in bits(part).items()}
    return {name: np.ascontiguousarray(value).tobytes() for name, value in numbers(result).items()}


def some_walk(store: FeatureStore, name: str, of: str, rows: int = ROWS) -> Walk:
    if name == "gap":
        return walk(store, "embeddings", rows)
    return walk(store, of, rows, None if name == "sharedness" else GROUPS)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("of", ["raw", "sae"])
@pytest.mark.parametrize("name", STREAMS)
def test_any_number_of_workers_and_threads_gives_the_same_bits(
    store: FeatureStore, name: str, of: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled:
        pytest.importorskip("numba", reason="the fast extra brings it")
        monkeypatch.setattr(feature_set, "WORTH_COMPILING", 1)
    path = some_walk(store, name, of)
    assert len(path.ranges()) == 4
    before = torch.get_num_threads()
    found = []
    try:
        for threads, workers in ((1, 1), (3, 1), (1, 3), (4, None)):
            torch.set_num_threads(threads)
            found.append(bits(folded(STREAMS[name](), path, Threads(workers)).result()))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize("name", STREAMS)
def test_ranges_are_one_pass(store: FeatureStore, name: str) -> None:
    """In one range with the bits of a plain loop, in several up to rounding."""
    plain, path = STREAMS[name](), some_walk(store, name, "sae", PAIRS)
    for block in path.blocks():
        plain.add(block)
    expected = plain.result()
    whole = folded(STREAMS[name](), path, Threads())
    assert bits(whole.result()) == bits(expected)
    if name in DRAWN:
        return
    cut = folded(STREAMS[name](), some_walk(store, name, "sae"), Threads()).result()
    one, other = (part if isinstance(part, tuple) else (part,) for part in (cut, expected))
    for mine, theirs in zip(one, other, strict=True):
        for key, value in numbers(mine).items():
            np.testing.assert_allclose(value, numbers(theirs)[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("of", ["raw", "sae"])
@pytest.mark.parametrize("rows", [ROWS, PAIRS])
@pytest.mark.parametrize("name", ["dominance by group", "sharedness of groups", "scores of scaled images", "halves"])
def test_groups_that_lie_all_over_the_store_are_read_one_after_another(
    store: FeatureStore, name: str, rows: int, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_set, "WORTH_COMPILING", 1)
    path, opened, completed = walk(store, of, rows), [0], OpenGroups._completed
    assert path.by_group() is path  # so few groups fit into memory
    expected = folded(STREAMS[name](), path, Threads(2)).result()

    def counting(groups: OpenGroups, *rest: Any) -> torch.Tensor:
        ended = completed(groups, *rest)
        opened.append(len(groups))
        return ended

    monkeypatch.setattr(OpenGroups, "_completed", counting)
    monkeypatch.setattr(folding, "MOST_OPEN", 0)
    ordered = path.by_group()
    assert len(ordered.ranges()) == len(path.ranges())
    found = [folded(STREAMS[name](), ordered, Threads(workers)).result() for workers in (1, 3)]
    assert bits(found[0]) == bits(found[1])
    assert max(opened) <= 2  # where blocks and ranges end
    for mine, theirs in zip(*((of if isinstance(of, tuple) else (of,)) for of in (found[0], expected)), strict=True):
        for key, value in numbers(mine).items():
            np.testing.assert_allclose(value, numbers(theirs)[key], rtol=1e-5, atol=1e-6, err_msg=key)


def test_progress_is_told_within_ranges(store: FeatureStore) -> None:
    seen: list[int] = []
    path = walk(store, "sae")
    assert len(list(Threads(2).folded_ranges(STREAMS["gap"](), path, seen.append))) == 4
    assert sum(seen) == PAIRS
    assert len(seen) > 4


@pytest.mark.parametrize("least", [PAIRS * DIM, PAIRS * DIM + 1])
def test_a_single_range_that_takes_long_has_a_bar(
    store: FeatureStore, least: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folding, "WORTH_A_BAR", least)
    folded(STREAMS["gap"](), walk(store, "embeddings", PAIRS), Threads())
    assert ("pairs of embeddings" in capsys.readouterr().out) == (least == PAIRS * DIM)


def test_open_groups_are_counted() -> None:
    assert most_open(np.array([0, 0, 1, 2, 2])) == 1
    assert most_open(np.array([3, 0, 1, 3, 1, 2, 0, -1])) == 3
    assert most_open(np.arange(5)) == most_open(np.full(3, -1)) == 0


def test_broken_pairs_are_images_with_the_texts_of_others(store: FeatureStore) -> None:
    rows = np.arange(1, PAIRS, 3)
    view, partners = FeatureView(store, rows), np.roll(np.arange(len(rows)), 5)
    broken = GatheredView(view, np.arange(len(rows)), partners)
    by_group = Walk(broken, RawFeatures(DIM), normalize=False, groups=GROUPS[rows], rows=ROWS)
    order = np.argsort(GROUPS[rows], kind="stable")
    for path, at in ((by_group, np.arange(len(rows))), (replace(by_group, view=GatheredView(broken, order)), order)):
        blocks = [block for span in path.ranges() for block in path.blocks(span)]
        assert torch.equal(torch.cat([block.image for block in blocks]), store.gather("image", rows[at]).float())
        texts = store.gather("text", rows[partners[at]]).float()
        assert torch.equal(torch.cat([block.text for block in blocks]), texts)
        assert path.view.origin("text", 2).row(1) == rows[partners[at]][3]


def test_a_split_is_walked_once_and_ranges_without_its_rows_are_left_out(store: FeatureStore) -> None:
    rows = np.concatenate([np.arange(5, 1000, 3), np.arange(2100, 3500, 2)])  # none in the second range
    path = Walk(FeatureView(store, rows), RawFeatures(DIM), normalize=False, groups=GROUPS[rows], rows=ROWS)
    assert [(span.start, span.stop) for span in path.ranges()] == [(0, 1024), (2048, 3072), (3072, 3500)]
    blocks = [block for span in path.ranges() for block in path.blocks(span)]
    assert [block.start for block in blocks] == np.cumsum([0, *[len(block.image) for block in blocks]])[:-1].tolist()
    expected = store.gather("text", rows).float()
    assert torch.equal(torch.cat([block.text for block in blocks]), expected)
    assert np.concatenate([block.groups for block in blocks]).tolist() == GROUPS[rows].tolist()  # type: ignore[misc]
    assert sum(path.view.within(span) for span in path.ranges()) == len(rows)


def test_what_is_not_finite_is_found_in_the_split(tmp_path: Path) -> None:
    write_like_clip_retrieval(tmp_path, SIZES, DIM, "float32")
    file = tmp_path / "text_emb" / "text_emb_3.npy"
    values = np.load(file)
    values[100, 2] = np.nan  # pair 2,330 of the store
    np.save(file, values)
    path = Walk(FeatureView(FeatureStore(tmp_path)), None, rows=ROWS)
    with pytest.raises(NonFiniteError, match=r"dimension 2 are NaN, first at text 282: .*counted from pair 2048 on"):
        folded(OfBlocks(GapStream(), pairs), path, Threads(2))


def test_ranges_draw_numbers_of_their_own() -> None:
    """If two ranges drew the same, the null would be wider by √2: here both hold the same pairs."""
    half = torch.rand(1024, 40, generator=torch.Generator().manual_seed(0)), torch.full((1024, 40), 0.5)
    whole = ResamplingStream(400, 400, 20, 3)
    for part in (whole.fresh(0), whole.fresh(1)):
        part.add(*half)
        whole.merge(part)
    found = whole.result()
    both = [torch.cat([side, side]) for side in half]
    expected = resample_dominance([(both[0], both[1])], 400, 400, 20, 3)
    for mine, theirs in ((found.permuted, expected.permuted), (found.bootstrap, expected.bootstrap)):
        assert float(mine.std(0).mean()) == pytest.approx(float(theirs.std(0).mean()), rel=0.04)
    ratio = (both[0].double() / (both[0].double() + 0.5)).mean(0)
    torch.testing.assert_close(found.halves.mean((0, 1)), ratio, rtol=0, atol=2e-3)


def test_groups_in_two_ranges_are_drawn_for_once(store: FeatureStore) -> None:
    """Halves are complementary: of each group, all pairs lie in one of them, and each pair lies in one."""
    path = walk(store, "raw")
    stream = ResamplingStream(2, 2, 8, 0, SIZES_OF_GROUPS)
    folded(OfBlocks(stream, pairs_and_groups), path, Threads()).result()
    sums = stream._sums
    assert sums is not None
    first, second = sums.weights[2:].unflatten(0, (2, 8))
    assert (first + second == PAIRS).all()
    assert (sums.informative == PAIRS).all()
    assert len(set(first[:, 0].tolist())) > 4  # halvings differ


def test_no_thread_is_no_engine() -> None:
    with pytest.raises(ConfigError, match=r"engine\.workers=0 must be at least 1"):
        Threads(0)
