from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmono.core.errors import DictionaryError, StoreError
from mmmono.data import SplitShares
from mmmono.dictionaries.pools import RowReader
from mmmono.features import FeatureStore, FeatureView, RawFeatures, StoredRows, activations, feature_set, split_view
from mmmono.features.encoded_rows import encoded_rows
from mmmono.interpretability import top_samples
from mmmono.modality import dominance_scores
from mmmono.pipeline.modality_means import modality_means


def write_like_clip_retrieval(
    path: Path, sizes: list[int], dim: int = 5, dtype: str = "float16", pad: int = 1
) -> np.ndarray:
    """The layout as clip-retrieval writes it: numbered triples, no manifest."""
    rng = np.random.default_rng(sum(sizes))
    everything = rng.standard_normal((2, sum(sizes), dim)).astype(dtype)
    start = 0
    for name in ("img_emb", "text_emb", "metadata"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(sizes):
        number = str(i).zfill(pad)
        np.save(path / "img_emb" / f"img_emb_{number}.npy", everything[0, start : start + size])
        np.save(path / "text_emb" / f"text_emb_{number}.npy", everything[1, start : start + size])
        rows = range(start, start + size)
        frame = pd.DataFrame({"image_path": [f"{r}.jpg" for r in rows], "caption": [f"caption {r}" for r in rows]})
        frame.to_parquet(path / "metadata" / f"metadata_{number}.parquet")
        start += size
    return everything


@pytest.mark.parametrize("pad", [1, 4])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_opens_what_clip_retrieval_writes(tmp_path: Path, pad: int, dtype: str) -> None:
    everything = write_like_clip_retrieval(tmp_path, [3] * 12, dtype=dtype, pad=pad)  # shard 10 comes after shard 9
    store = FeatureStore(tmp_path)
    assert (len(store), store.dim, store.dtype.name, store.manifest) == (36, 5, dtype, None)
    np.testing.assert_array_equal(store.read("image", 0, 36).numpy(), everything[0])
    np.testing.assert_array_equal(store.read("text", 0, 36).numpy(), everything[1])
    assert store.metadata(["caption"])["caption"].tolist() == [f"caption {i}" for i in range(36)]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), block_size=st.integers(1, 12))
def test_blocks_and_gather_equal_plain_indexing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, sizes: list[int], block_size: int
) -> None:
    path = tmp_path_factory.mktemp("store")
    everything = write_like_clip_retrieval(path, sizes)
    store = FeatureStore(path)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, sum(sizes) - 1), min_size=1))))
    for chosen, view in ((slice(None), FeatureView(store)), (rows, FeatureView(store, rows))):
        blocks = [(b.start, b.image, b.text) for b in view.blocks(block_size)]
        np.testing.assert_array_equal(torch.cat([b[1] for b in blocks]).numpy(), everything[0][chosen])
        np.testing.assert_array_equal(torch.cat([b[2] for b in blocks]).numpy(), everything[1][chosen])
        assert [b[0] for b in blocks] == np.cumsum([0] + [len(b[1]) for b in blocks])[:-1].tolist()
        np.testing.assert_array_equal(view.read("text", 0, len(view)).numpy(), everything[1][chosen])
        assert view.read("text", len(view), len(view)).shape == (0, everything[1].shape[1])
    order = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - 1), min_size=1)))
    np.testing.assert_array_equal(store.gather("image", order).numpy(), everything[0][order])


def test_split_follows_the_group_and_covers_every_row(tmp_path: Path) -> None:
    write_like_clip_retrieval(tmp_path, [400, 100])
    store = FeatureStore(tmp_path)
    views = {split: split_view(store, split, SplitShares(3)) for split in ("train", "select", "val")}
    assert sorted(row for view in views.values() for row in view.rows) == list(range(500))  # type: ignore[union-attr]
    for split, view in views.items():
        expected = [name for i in range(500) if SplitShares(3).split_of(name := f"{i}.jpg") == split]
        assert view.metadata()["image_path"].tolist() == expected
    assert len(split_view(store, "all")) == 500


def test_broken_stores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no feature store at"):
        FeatureStore(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is no feature store: no img_emb"):
        FeatureStore(tmp_path)
    write_like_clip_retrieval(tmp_path, [4, 4])
    np.save(tmp_path / "text_emb" / "text_emb_1.npy", np.zeros((3, 5), np.float16))
    with pytest.raises(StoreError, match="must be the same pairs"):
        FeatureStore(tmp_path)
    np.save(tmp_path / "text_emb" / "text_emb_1.npy", np.zeros((4, 6), np.float16))
    with pytest.raises(StoreError, match="several widths"):
        FeatureStore(tmp_path)
    file = tmp_path / "text_emb" / "text_emb_1.npy"
    np.save(file, np.zeros((4, 5), np.float16))
    file.write_bytes(file.read_bytes()[:-6])
    with pytest.raises(StoreError, match="cut off"):
        FeatureStore(tmp_path)
    file.write_bytes(b"hello")
    with pytest.raises(StoreError, match=r"no \.npy array"):
        FeatureStore(tmp_path)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_activations_are_normalized_on_reading_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool, dtype: str
) -> None:
    if compiled:
        monkeypatch.setattr(feature_set, "WORTH_COMPILING", 0)
    everything = write_like_clip_retrieval(tmp_path, [50], dtype=dtype)
    view = FeatureView(FeatureStore(tmp_path))
    raw = torch.cat([b.image for b in activations(view, RawFeatures(5), normalize=False, block_size=20)])
    np.testing.assert_array_equal(raw.numpy(), everything[0])
    blocks = list(activations(view, RawFeatures(5), block_size=50))
    assert isinstance(blocks[0].image_rows, StoredRows) == compiled
    unit = torch.cat([b.text for b in activations(view, RawFeatures(5), block_size=20)])
    exact = everything[1].astype(np.float64)
    np.testing.assert_allclose(unit.numpy(), exact / np.linalg.norm(exact, axis=1, keepdims=True), rtol=1e-5)
    with pytest.raises(DictionaryError, match="takes embeddings of width 7"):
        next(iter(activations(view, RawFeatures(7))))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (0, "length zero")]
)
def test_embeddings_that_mean_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, message: str, compiled: bool
) -> None:
    if compiled:
        monkeypatch.setattr(feature_set, "WORTH_COMPILING", 0)
    write_like_clip_retrieval(tmp_path, [4])
    file = tmp_path / "img_emb" / "img_emb_0.npy"
    array = np.load(file)
    array[2] = value
    np.save(file, array)
    view = FeatureView(FeatureStore(tmp_path))
    with pytest.raises(StoreError, match=message):
        dominance_scores((b.image_rows, b.text_rows) for b in activations(view, RawFeatures(5)))
    with pytest.raises(StoreError, match=message):
        top_samples((b.image_rows for b in activations(view, RawFeatures(5))), 2)
    with pytest.raises(StoreError, match=message):
        _ = [block.image for block in activations(view, RawFeatures(5))]


READERS: dict[str, Callable[[FeatureView], object]] = {
    "blocks": lambda view: [block.text for block in activations(view, RawFeatures(5), block_size=3)],
    "scores": lambda view: dominance_scores((b.image_rows, b.text_rows) for b in activations(view, RawFeatures(5))),
    "training": lambda view: RowReader(view).read_pair(1, 3),
    "chosen pairs": lambda view: list(encoded_rows(view, RawFeatures(5), "text", np.array([2, 0, 1]), True, "cpu")),
    "means": lambda view: modality_means(view, True),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_an_unusable_embedding_is_named_by_its_row_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[FeatureView], object], compiled: bool
) -> None:
    """Whatever split it is read in, and in whatever blocks or order."""
    if compiled:
        monkeypatch.setattr(feature_set, "WORTH_COMPILING", 0)
    write_like_clip_retrieval(tmp_path, [4, 6])
    file = tmp_path / "text_emb" / "text_emb_1.npy"
    array = np.load(file)
    array[3, 2] = np.inf
    np.save(file, array)
    with pytest.raises(StoreError, match="holds text embeddings that are NaN or infinite, first row 7, dimension 2"):
        read(FeatureView(FeatureStore(tmp_path), np.array([1, 6, 7, 9])))


def test_writing_to_a_block_changes_no_file(tmp_path: Path) -> None:
    everything = write_like_clip_retrieval(tmp_path, [4, 3])
    store = FeatureStore(tmp_path)
    for block in store.blocks(4):
        block.image.zero_()
    np.testing.assert_array_equal(store.read("image", 0, 7).numpy(), everything[0])


def test_no_rows_of_a_shard_and_no_rows_at_all(tmp_path: Path) -> None:
    everything = write_like_clip_retrieval(tmp_path, [4, 0, 3])
    store = FeatureStore(tmp_path)
    np.testing.assert_array_equal(store.read("text", 2, 6).numpy(), everything[1][2:6])
    assert store.read("text", 4, 4).shape == (0, 5)


def test_a_file_that_shrank_after_it_was_opened(tmp_path: Path) -> None:
    write_like_clip_retrieval(tmp_path, [4])
    store = FeatureStore(tmp_path)
    file = tmp_path / "text_emb" / "text_emb_0.npy"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(StoreError, match="text_emb_0.npy ended early"):
        next(store.blocks(4))


def test_rows_that_are_not_there_are_not_read(tmp_path: Path) -> None:
    write_like_clip_retrieval(tmp_path, [4, 3])
    store = FeatureStore(tmp_path)
    assert len(store.read("image", 3, 7)) == 4
    for start, stop in ((-2, 3), (5, 9), (4, 2), (8, 8)):
        with pytest.raises(StoreError, match=f"rows {start} to {stop} asked for, it holds 7"):
            store.read("image", start, stop)
    with pytest.raises(ValueError, match="modality='images' is neither 'image' nor 'text'"):
        store.read("images", 0, 2)  # type: ignore[arg-type]
    for rows in (np.arange(7) > 3, [0.5, 2.0], [[1, 2]]):
        with pytest.raises(ValueError, match="numbers of rows expected"):
            store.gather("image", rows)
    assert store.gather("image", []).shape == (0, 5)
