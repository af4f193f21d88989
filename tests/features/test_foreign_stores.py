"""Stores that other tools wrote, or that were copied in part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmmono.core.errors import DataError, StoreError
from mmmono.data.store_pairs import StorePairs
from mmmono.features import FeatureStore, split_view
from mmmono.features.array_files import read_header
from mmmono.features.metadata import as_text, with_keys
from mmmono.features.store import MANIFEST_FILE, Manifest, content_fingerprint
from mmmono.pipeline.existing_store import ExistingStore


def write(path: Path, shards: dict[int, int], frame: pd.DataFrame | None = None, dim: int = 4) -> None:
    """Shards by number with so many pairs each."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"image_path": [f"{i}.jpg" for i in range(sum(shards.values()))]}) if frame is None else frame
    start = 0
    for name in ("img_emb", "text_emb", "metadata"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for number, rows in shards.items():
        for name in ("img_emb", "text_emb"):
            np.save(path / name / f"{name}_{number}.npy", rng.standard_normal((rows, dim)).astype(np.float16))
        frame.iloc[start : start + rows].to_parquet(path / "metadata" / f"metadata_{number}.parquet")
        start += rows


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as raised:
        FeatureStore(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(("kind", "suffix"), [("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet")])
def test_shards_pair_by_number_not_by_order(tmp_path: Path, kind: str, suffix: str) -> None:
    write(tmp_path, {0: 3, 1: 3, 3: 3})
    assert len(FeatureStore(tmp_path)) == 9
    (tmp_path / kind / f"{kind}_1.{suffix}").rename(tmp_path / kind / f"{kind}_2.{suffix}")
    message = refusal(tmp_path)
    assert "_1." in message
    assert f"has no counterpart in {kind}/" in message or f"{kind}/{kind}_1" in message


def test_rows_agree_shard_by_shard(tmp_path: Path) -> None:
    write(tmp_path, {0: 3, 1: 3})
    pd.DataFrame({"image_path": ["a", "b"]}).to_parquet(tmp_path / "metadata" / "metadata_0.parquet")
    pd.DataFrame({"image_path": list("abcd")}).to_parquet(tmp_path / "metadata" / "metadata_1.parquet")  # six in all
    assert "2 in metadata/metadata_0.parquet" in refusal(tmp_path)


def test_one_number_twice(tmp_path: Path) -> None:
    write(tmp_path, {0: 3})
    shutil.copy(tmp_path / "img_emb" / "img_emb_0.npy", tmp_path / "img_emb" / "img_emb_00.npy")
    assert "have one number" in refusal(tmp_path)


def test_a_store_without_metadata_has_embeddings(tmp_path: Path) -> None:
    write(tmp_path, {0: 3})
    shutil.rmtree(tmp_path / "metadata")
    store = FeatureStore(tmp_path)
    assert len(split_view(store, "all")) == 3
    with pytest.raises(StoreError, match="dataset.split=all"):
        split_view(store, "train")


ARRAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "big-endian": (lambda: np.zeros((3, 4), ">f4"), "holds >f4 .*byte order: save it again with"),
    "long double": (lambda: np.zeros((3, 4), np.longdouble), "holds .*float128|longdouble"),
    "columns first": (lambda: np.asfortranarray(np.zeros((3, 4), np.float32)), "columns lie one after the other"),
    "one dimension": (lambda: np.zeros(12, np.float32), r"got the shape \(12,\)"),
    "three dimensions": (
        lambda: np.zeros((3, 4, 1), np.float32),
        r"got the shape \(3, 4, 1\); save it anew where it was made$",
    ),
    "no dimension": (lambda: np.float32(3), r"got the shape \(\)"),
    "no width": (lambda: np.zeros((3, 0), np.float32), r"got the shape \(3, 0\)"),
    "objects": (lambda: np.array([["a", 1]], dtype=object), r"holds .*object.*order: save it anew where it was made$"),
    "integers": (lambda: np.zeros((3, 4), np.int8), r"holds .*int8.*np.load\(path\).astype"),
    "complex": (lambda: np.zeros((3, 4), np.complex64), "holds .*complex64"),
    "texts": (lambda: np.array([["a", "b"]]), "holds <U1"),
    "records": (lambda: np.zeros((3, 4), [("x", "f4")]), "holds "),
}


@pytest.mark.parametrize(("make", "says"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_cannot_be_mapped_are_refused_when_opened(
    tmp_path: Path, make: Callable[[], Any], says: str
) -> None:
    write(tmp_path, {0: 3})
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", make(), allow_pickle=True)
    with pytest.raises(StoreError, match=says) as raised:
        FeatureStore(tmp_path)
    assert "img_emb_0.npy" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    write(tmp_path, {0: 3})
    file = tmp_path / "img_emb" / "img_emb_0.npy"
    whole = file.read_bytes()
    with file.open("wb") as opened:
        np.savez(opened, np.zeros((3, 4), np.float16))
    assert "is no .npy array" in refusal(tmp_path)
    file.write_bytes(b"")
    assert "is no .npy array" in refusal(tmp_path)
    file.write_bytes(whole + b"\0\0")
    assert "goes on after its array" in refusal(tmp_path)
    file.write_bytes(whole[:-2])
    assert "is cut off" in refusal(tmp_path)
    file.write_bytes(whole[:6] + b"\x09\x00" + whole[8:])
    assert "version 9.0" in refusal(tmp_path)
    file.unlink()
    file.mkdir()
    assert "cannot be read" in refusal(tmp_path)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.one_of(
        st.tuples(st.integers(-3, 5), st.integers(-3, 5)), st.just("(2,"), st.lists(st.integers(), max_size=3)
    ),
    descr=st.sampled_from(
        ["<f2", "<f4", ">f2", "|O", "<U3", "nonsense", "<f16", "|V2", 3, None, [("a", "<f4")], "import os"]
    ),
    fortran=st.sampled_from([True, False, None, "yes"]),
    rows=st.integers(0, 60),
)
def test_any_header_is_an_array_or_one_line(tmp_path: Path, shape: Any, descr: Any, fortran: Any, rows: int) -> None:
    header = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    file = tmp_path / "img_emb_0.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(rows))
    try:
        read = read_header(file).header
    except StoreError as error:
        message = str(error)
    else:
        np.testing.assert_array_equal(np.load(file), np.zeros((read.rows, read.dim), read.dtype))
        message = ""
    assert "\n" not in message


def test_types_and_counts_that_do_not_agree(tmp_path: Path) -> None:
    write(tmp_path, {0: 3, 1: 3})
    np.save(tmp_path / "text_emb" / "text_emb_1.npy", np.zeros((3, 4), np.float32))
    assert "several types float16, float32" in refusal(tmp_path)
    write(tmp_path, {0: 0, 1: 0})
    assert "holds no pair" in refusal(tmp_path)


def test_a_store_that_lost_a_shard(tmp_path: Path) -> None:
    write(tmp_path, {0: 3, 1: 3})
    manifest = Manifest("m", "f", "d", "f", 4, 6, "float16", "c")
    (tmp_path / MANIFEST_FILE).write_text(manifest.to_json())
    assert len(FeatureStore(tmp_path)) == 6
    for kind, suffix in (("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet")):
        (tmp_path / kind / f"{kind}_1.{suffix}").unlink()
    assert "promises 6 pairs of width 4, there are 3" in refusal(tmp_path)
    for broken in ("{", "[]", json.dumps({"model": "m"})):
        (tmp_path / MANIFEST_FILE).write_text(broken)
        assert "is no manifest of a store" in refusal(tmp_path)


VALUES: list[tuple[Any, str]] = [
    (None, ""),
    (float("nan"), ""),
    (np.float64("nan"), ""),
    (pd.NA, ""),
    (pd.NaT, ""),
    ("text", "text"),
    ("", ""),
    (3, "3"),
    (np.int64(3), "3"),
    (3.0, "3"),
    (0.5, "0.5"),
    (True, "True"),
    ("дом".encode(), "дом"),
    (b"\xff", "\ufffd"),
    (["first", "second"], "first"),
    ([None, "", "third"], "third"),
    (np.array(["first"]), "first"),
    ([], ""),
    ([1, 2], ""),
    ({"raw": "x"}, ""),
]


@pytest.mark.parametrize(("value", "text"), VALUES, ids=[repr(value) for value, _ in VALUES])
def test_values_as_text(value: Any, text: str) -> None:
    assert as_text(value) == text


COLUMNS: dict[str, list[Any]] = {
    "null": [None, "b", None, "d"],
    "all null": [None] * 4,
    "integers": [0, 1, 2, 3],
    "integers with nulls": [0, None, 2, 3],
    "bytes": [b"a", b"b", None, b"d"],
    "lists": [["a"], [], None, ["b", "c"]],
    "floats": [0.5, float("nan"), 2.0, None],
    "booleans": [True, False, None, True],
    "dates": [pd.Timestamp("2026-01-01"), None, None, None],
    "categories": pd.Categorical(["a", "b", "a", None]),  # type: ignore[dict-item]
    "records": [{"a": 1}, None, {"a": 2}, None],
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("name", ["caption", "key", "image_path", "category"])
def test_metadata_is_text_whatever_stands_in_it(tmp_path: Path, name: str, column: list[Any]) -> None:
    frame = pd.DataFrame({"key": [f"k{i}" for i in range(4)], "image_path": [f"{i}.jpg" for i in range(4)]})
    frame[name] = column
    write(tmp_path, {0: 2, 1: 2}, frame)
    read = FeatureStore(tmp_path).metadata()
    assert len(read) == 4
    assert all(isinstance(value, str) for values in read.to_dict("list").values() for value in values)
    assert read["key"].is_unique
    assert (read["key"] != "").all()
    if name not in ("key", "image_path"):
        assert read["key"].tolist() == ["k0", "k1", "k2", "k3"]


def test_null_keys_are_paths_or_rows_and_repeated_ones_belong_together(tmp_path: Path) -> None:
    frame = pd.DataFrame({"key": ["a", None, None, "a"], "image_path": ["1.jpg", "2.jpg", None, "1.jpg"]})
    write(tmp_path, {0: 4}, frame)
    read = FeatureStore(tmp_path).metadata()
    assert read["key"].tolist() == ["a", "2.jpg", "row-2", "a#1"]
    assert read["group"].tolist() == ["a", "2.jpg", "row-2", "a"]


@pytest.mark.parametrize("path", ["path", "filename", "image"])
@pytest.mark.parametrize("caption", ["text", "TEXT", "title"])
def test_other_names_of_columns(tmp_path: Path, path: str, caption: str) -> None:
    write(tmp_path, {0: 2}, pd.DataFrame({path: ["1.jpg", "2.jpg"], caption: ["one", "two"]}))
    read = FeatureStore(tmp_path).metadata(["key", "caption", "image_path"])
    assert read.to_dict("list") == {
        "key": ["1.jpg", "2.jpg"],
        "caption": ["one", "two"],
        "image_path": ["1.jpg", "2.jpg"],
    }
    with pytest.raises(StoreError, match="has no column 'category', only"):
        FeatureStore(tmp_path).metadata(["category"])


def test_shards_may_name_their_columns_differently(tmp_path: Path) -> None:
    write(tmp_path, {0: 2}, pd.DataFrame({"path": ["1.jpg", "2.jpg"], "text": ["one", "two"]}))
    write(tmp_path, {1: 1}, pd.DataFrame({"image_path": ["3.jpg"], "caption": ["three"]}))
    store = FeatureStore(tmp_path)
    read = store.metadata(["key", "caption"])
    assert read.to_dict("list") == {"key": ["1.jpg", "2.jpg", "3.jpg"], "caption": ["one", "two", "three"]}


def test_metadata_that_is_no_parquet(tmp_path: Path) -> None:
    write(tmp_path, {0: 2})
    (tmp_path / "metadata" / "metadata_0.parquet").write_bytes(b"PAR1 and no more")
    assert "metadata_0.parquet is no whole Parquet file" in refusal(tmp_path)


def test_images_that_a_store_points_to(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"key": list("abcd"), "image_path": ["1.jpg", None, "gone.jpg", "text.jpg"], "caption": [None] * 4}
    )
    write(tmp_path, {0: 4}, frame)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "1.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    pairs = StorePairs(FeatureStore(tmp_path).metadata(), tmp_path, "x")
    assert (pairs.fetch("a").image.size, pairs.fetch("a").caption) == ((4, 4), "")
    for key, says in (
        ("b", "its image_path is empty"),
        ("c", "is not there"),
        ("d", "unreadable image"),
        ("e", "has no pair"),
    ):
        with pytest.raises(DataError, match=says):
            pairs.fetch(key)


@pytest.mark.parametrize("manifest", [False, True])
def test_a_stores_fingerprint_covers_middle_rows_and_metadata(tmp_path: Path, manifest: bool) -> None:
    write(tmp_path, {0: 4000, 1: 4000}, dim=16)
    if manifest:
        (tmp_path / MANIFEST_FILE).write_text(Manifest("m", "f", "d", "f", 16, 8000, "float16", "c").to_json())
    first = ExistingStore(path=str(tmp_path)).fingerprint()
    file = tmp_path / "text_emb" / "text_emb_1.npy"
    array = np.load(file)
    array[2000, 3] += 1
    np.save(file, array)
    second = ExistingStore(path=str(tmp_path)).fingerprint()
    frame = pd.read_parquet(tmp_path / "metadata" / "metadata_0.parquet")
    frame.loc[7, "image_path"] = "x.jpg"
    frame.to_parquet(tmp_path / "metadata" / "metadata_0.parquet")
    assert len({first, second, ExistingStore(path=str(tmp_path)).fingerprint()}) == 3
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    shutil.copytree(tmp_path, moved)
    assert content_fingerprint(moved) == content_fingerprint(tmp_path)
    assert torch.equal(FeatureStore(moved).read("text", 0, 9), FeatureStore(tmp_path).read("text", 0, 9))


@pytest.mark.parametrize("column", ["key", "image_path"])
def test_keys_are_looked_through_once(monkeypatch: pytest.MonkeyPatch, column: str) -> None:
    """Millions of strings take seconds."""
    looked: list[int] = []
    duplicated = pd.Series.duplicated
    monkeypatch.setattr(pd.Series, "duplicated", lambda self: looked.append(len(self)) or duplicated(self))
    frame = with_keys(pd.DataFrame({column: [f"{row}.jpg" for row in range(9)]}))
    assert (list(frame["key"]), looked) == ([f"{row}.jpg" for row in range(9)], [9])
