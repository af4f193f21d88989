"""Groups of pairs, and splits that do not divide them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmmono.core.errors import ConfigError, StoreError
from mmmono.data import SplitShares
from mmmono.features import FeatureStore, FeatureStoreWriter, FeatureView, Manifest, metadata, split_view
from mmmono.features.grouping import Grouping, join, near_duplicates
from mmmono.features.metadata import with_keys


def store_of(folder: Path, image: torch.Tensor, **columns: list[str]) -> FeatureStore:
    rows = [
        {"key": f"k{i}", "caption": "a", **{name: values[i] for name, values in columns.items()}}
        for i in range(len(image))
    ]
    writer = FeatureStoreWriter(folder, 1, "float32")
    writer.write(0, image, torch.randn(image.shape), rows)
    writer.finish(Manifest("test", "", "x", "", image.shape[1], 0, "float32", ""), [0])
    return FeatureStore(folder)


def images(count: int, dim: int = 8) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0))


def test_a_view_numbers_the_groups_of_its_own_pairs(tmp_path: Path) -> None:
    store = store_of(tmp_path, images(6), group=["b", "a", "b", "c", "a", "c"])
    assert FeatureView(store).groups().tolist() == [0, 1, 0, 2, 1, 2]
    assert FeatureView(store, np.array([1, 3, 4])).groups().tolist() == [0, 1, 0]


def test_without_groups_each_pair_is_its_own(tmp_path: Path) -> None:
    assert FeatureView(store_of(tmp_path, images(4))).groups().tolist() == [0, 1, 2, 3]


def test_a_store_without_metadata_has_one_pair_a_group(tmp_path: Path) -> None:
    store_of(tmp_path, images(4))
    for file in (tmp_path / "metadata").iterdir():
        file.unlink()
    store = FeatureStore(tmp_path)
    assert not store.has_metadata
    assert FeatureView(store).groups().tolist() == [0, 1, 2, 3]
    assert FeatureView(store, np.array([1, 3])).groups().tolist() == [0, 1]
    with pytest.raises(StoreError, match="no metadata"):  # a chosen column is not silently ignored
        FeatureView(store, grouping=Grouping("person")).groups()


def test_any_column_of_the_metadata_can_be_the_group(tmp_path: Path) -> None:
    store = store_of(tmp_path, images(4), group=["a", "b", "c", "d"], person=["x", "y", "y", "x"])
    assert FeatureView(store, grouping=Grouping("person")).groups().tolist() == [0, 1, 1, 0]
    with pytest.raises(ConfigError, match="dataset.group=owner is no column of the metadata: choose one of .*person"):
        FeatureView(store, grouping=Grouping("owner")).groups()


def test_a_group_column_has_a_value_for_every_pair(tmp_path: Path) -> None:
    store = store_of(tmp_path, images(3), person=["x", "", "x"])
    with pytest.raises(ConfigError, match="dataset.group=person has empty values"):
        FeatureView(store, grouping=Grouping("person")).groups()


def test_pairs_without_a_group_are_no_group_together(tmp_path: Path) -> None:
    store = store_of(tmp_path, images(300), group=["a"] * 3 + [""] * 297)
    assert FeatureView(store).groups().tolist() == [0, 0, 0, *range(1, 298)]
    sizes = {split: len(split_view(store, split)) for split in ("train", "select", "val")}
    assert min(sizes.values()) > 10, sizes
    assert sum(sizes.values()) == 300, sizes
    rows = store.metadata().drop(columns="key")
    assert len(set(Grouping().split_names(rows))) == 298, "without names of pairs"  # type: ignore[arg-type]


def test_groups_are_read_once_and_without_the_other_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"image {number // 3}" for number in range(300)]
    store = store_of(tmp_path, images(300), group=names, person=names[::-1])
    expected = [np.flatnonzero(pd.unique(store.metadata()["group"]) == name)[0] for name in names]
    by_key = FeatureView(store, grouping=Grouping("key")).groups()
    assert len(set(by_key.tolist())) == 300
    monkeypatch.setattr("mmmono.features.store.read_metadata", None)  # reads all columns
    view = FeatureView(store)
    assert view.groups().tolist() == expected
    assert len(split_view(store, "train")) + len(split_view(store, "select")) + len(split_view(store, "val")) == 300
    assert FeatureView(store, grouping=Grouping("person")).groups().tolist() == expected
    monkeypatch.setattr("mmmono.features.store.read_stored_column", None)
    first = view.groups()
    first[:] = -1
    assert view.groups().tolist() == expected, "callers have copies"


def test_the_content_of_a_store_is_its_metadata_as_well(tmp_path: Path) -> None:
    """Results by labels, groups or captions are others where these are, as in a shard that was labeled anew."""
    content = []
    for number, labels in enumerate(("aabb", "aabb", "abbb")):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            manifest = store_of(tmp_path / str(number), images(4), label=list(labels)).manifest
        content.append(manifest and manifest.content)
    assert content[0] == content[1] != content[2]


def test_captions_are_read_without_the_other_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path / "a", images(4), group=list("aabb"))
    other = store_of(tmp_path / "b", images(4))
    file = tmp_path / "b" / "metadata" / "metadata_0.parquet"
    pd.DataFrame({"key": list("abcd"), "TEXT": list("efgh")}).to_parquet(file)
    assert FeatureView(other, np.array([1, 3])).captions().tolist() == ["f", "h"]
    pd.DataFrame({"key": list("abcd"), "caption": ["e", None, "g", "h"]}).to_parquet(file)
    for view in (FeatureView(other), FeatureView(other, np.array([1, 3]))):
        pd.testing.assert_series_equal(view.captions(), view.metadata()["caption"])
    monkeypatch.setattr("mmmono.features.store.read_metadata", None)  # reads all columns
    assert FeatureView(store).captions().tolist() == ["a"] * 4


def test_a_store_without_groups_is_not_opened_whole_to_see_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for number in range(4):
        files.append(tmp_path / f"metadata_{number}.parquet")
        pd.DataFrame({"key": [f"k{number}"]}).to_parquet(files[-1])
    opened, open_file = [], metadata._open
    monkeypatch.setattr(metadata, "_open", lambda file: opened.append(file) or open_file(file))
    assert metadata.read_stored_column(files, "group") is None
    assert opened == files[:1]
    assert (metadata.read_stored_column(files, "key") == ["k0", "k1", "k2", "k3"]).all()  # type: ignore[union-attr]


def test_captions_of_one_image_are_one_group_whatever_their_keys(tmp_path: Path) -> None:
    files = [f"photos/{number // 5}.JPG" for number in range(20)]
    assert FeatureView(store_of(tmp_path / "a", images(20), filename=files)).groups().tolist() == [
        i // 5 for i in range(20)
    ]
    archives = [f"shard-{number // 5}.tar" for number in range(20)]
    assert FeatureView(store_of(tmp_path / "b", images(20), filename=archives)).groups().tolist() == list(range(20))
    named = with_keys(pd.DataFrame({"id": list("aabcc"), "image_path": ["1.png", "2.png", "2.png", "3.png", ""]}))
    assert named["group"].tolist() == ["a", "a", "a", "c", "c"]
    assert named["key"].tolist() == ["a", "a#1", "b", "c", "c#1"]


@pytest.mark.parametrize("wrong", [0.0, -0.5, 1.5])
def test_near_duplicates_are_told_by_a_cosine(wrong: float) -> None:
    with pytest.raises(ConfigError, match=f"dataset.near_duplicates={wrong}"):
        Grouping(near_duplicates=wrong)


def test_splits_cover_all_pairs_and_divide_no_group(tmp_path: Path) -> None:
    names = [f"g{i // 3}" for i in range(300)]
    store = store_of(tmp_path, images(300), group=names)
    rows = {split: split_view(store, split).rows for split in ("train", "select", "val")}
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(300))
    groups = {split: {names[i] for i in found} for split, found in rows.items()}
    assert not (groups["train"] & groups["select"])
    assert not (groups["train"] & groups["val"])
    assert not (groups["select"] & groups["val"])
    assert all(len(group) > 3 for group in groups.values())


def test_each_group_is_hashed_once_for_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed, place = [], SplitShares.place
    monkeypatch.setattr(SplitShares, "place", lambda shares, group: (hashed.append(group), place(shares, group))[1])
    store = store_of(tmp_path, images(40), group=[f"g{i // 2}" for i in range(40)])
    rows = [split_view(FeatureStore(store.path), split).rows for split in ("train", "select", "val")]
    assert sorted(np.concatenate(rows)) == list(range(40))  # type: ignore[arg-type]
    assert sorted(hashed) == sorted(f"g{i}" for i in range(20))
    file = next((tmp_path / "metadata").iterdir())
    pd.read_parquet(file).assign(group="one").to_parquet(file)  # which is another set of groups, and another file
    with pytest.raises(StoreError, match="holds no pair"):
        [split_view(FeatureStore(tmp_path), split) for split in ("train", "select", "val")]


def test_a_chosen_column_is_also_what_splits_keep_whole(tmp_path: Path) -> None:
    person = [f"p{i % 40}" for i in range(200)]
    store = store_of(tmp_path, images(200), group=[f"g{i}" for i in range(200)], person=person)
    val = split_view(store, "val", grouping=Grouping("person"))
    inside = {person[i] for i in val.rows}  # type: ignore[union-attr]
    assert len(val) == 5 * len(inside)


@pytest.mark.parametrize("block", [3, 64])
def test_near_duplicates_join_groups_in_chains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("mmmono.features.grouping.COMPARED_ROWS", block)
    image = torch.eye(10)[:, :10] * torch.arange(1, 11)[:, None]  # different lengths: a cosine does not see them
    image[7] = 5 * image[2] + 0.3 * image[8] / image[8].norm()  # near 2
    image[9] = image[2]  # equal to 2
    store = store_of(tmp_path, image)
    assert near_duplicates(store, 0.999, np.arange(10)).tolist() == [0, 1, 2, 3, 4, 5, 6, 2, 7, 2]
    # Pair 0 and pair 9 are one group already, so that 0 is joined with 2 and 7 as well.
    codes = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    assert near_duplicates(store, 0.999, codes).tolist() == [0, 1, 0, 2, 3, 4, 5, 0, 6, 0]


@given(data=arrays(np.int64, st.tuples(st.just(2), st.integers(1, 12)), elements=st.integers(0, 5)))
@settings(deadline=None)
def test_joined_groups_are_the_finest_that_divide_neither(data: Any) -> None:
    first, second = (np.unique(row, return_inverse=True)[1] for row in data)
    label = np.arange(len(first))  # the definition, by passing on the smallest label
    for _ in range(len(first)):
        for by in (first, second):
            label = np.array([label[by == value].min() for value in by])
    joined = join(first, second)
    assert (joined[:, None] == joined).tolist() == (label[:, None] == label).tolist()
    assert joined[0] == 0


def test_near_duplicates_are_not_divided_by_a_split(tmp_path: Path) -> None:
    image = images(100).repeat(2, 1)
    store = store_of(tmp_path, image)
    codes = near_duplicates(store, 0.9999, np.arange(200))
    for split in ("train", "val"):
        rows = split_view(store, split, SplitShares(), codes=codes).rows
        assert rows is not None
        assert {i % 100 for i in rows if i < 100} == {i % 100 for i in rows if i >= 100}


def test_rows_of_a_view_are_numbers_of_rows(tmp_path: Path) -> None:
    """A mask was taken for the rows 0 and 1, and rows that the store does not have were left out."""
    image = images(6)
    store = store_of(tmp_path, image)
    chosen = np.array([False, True, False, True, True, False])
    for rows in (np.flatnonzero(chosen), [1, 3, 4], torch.tensor([1, 3, 4]), np.array([1, 3, 4], np.uint64)):
        view = FeatureView(store, rows)  # type: ignore[arg-type]
        assert torch.equal(torch.cat([block.image for block in view.blocks()]), image[torch.from_numpy(chosen)])
        assert view.metadata()["key"].tolist() == ["k1", "k3", "k4"]
    for wrong in (chosen, pd.Series(chosen), np.array([1.0, 3.0]), np.array([[1, 3]])):
        with pytest.raises(ValueError, match="numbers of rows expected, got"):
            FeatureView(store, wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="numbers of rows expected, got"):
            list(store.blocks(rows=wrong))  # type: ignore[arg-type]
    for wrong in ([3, 1], [1, 1, 3]):
        with pytest.raises(ValueError, match=r"rows must ascend, each once: give numpy\.unique\(rows\)"):
            FeatureView(store, wrong)  # type: ignore[arg-type]
    for wrong in ([-1, 2], [2, 6]):
        with pytest.raises(StoreError, match=rf"rows {wrong[0]} to {wrong[1]} asked for, it holds 6"):
            FeatureView(store, wrong)  # type: ignore[arg-type]
        with pytest.raises(StoreError, match=rf"rows {wrong[0]} to {wrong[1]} asked for, it holds 6"):
            list(store.blocks(rows=np.array(wrong)))
    with pytest.raises(ValueError, match="split=test is none of train, select, val, all"):
        split_view(store, "test")  # type: ignore[arg-type]


def test_a_shard_is_of_the_same_pairs_on_both_sides(tmp_path: Path) -> None:
    writer, image = FeatureStoreWriter(tmp_path, 1, "float32"), images(4)
    rows = [{"key": str(i)} for i in range(4)]
    for wrong in (
        (image, image[:3], rows),
        (image, image, rows[:3]),
        (image[0], image[0], rows),
    ):
        with pytest.raises(
            ValueError, match=r"image and text \[pairs, dim\] and a row of metadata for each pair expected"
        ):
            writer.write(0, *wrong)
    with pytest.raises(ValueError, match="shard=1 must lie between 0 and 0"):
        writer.write(1, image, image, rows)
    with pytest.raises(TypeError, match=r"text: a torch\.Tensor expected, got numpy\.ndarray"):
        writer.write(0, image, image.numpy(), rows)  # type: ignore[arg-type]
    assert writer.left() == [0]
    image = image.bfloat16()  # which NumPy does not have
    writer.write(0, torch.nn.Parameter(image), image, rows)
    writer.finish(Manifest("test", "", "x", "", 8, 0, "float32", ""), [0])
    assert torch.equal(FeatureStore(tmp_path).read("image", 0, 4), image.float())
