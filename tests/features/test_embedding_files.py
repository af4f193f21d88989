"""Two files of embeddings as a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mmmono.core.artifacts import Artifacts, FinishedArtifacts
from mmmono.core.errors import ConfigError, MissingArtifactError, MmmonoError, StoreError
from mmmono.features import FeatureStore
from mmmono.features.embedding_files import EmbeddingFiles
from mmmono.pipeline.existing_store import ExistingStore

ROWS = 9


@pytest.fixture
def embeddings() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    return draw.standard_normal((ROWS, 5)).astype("float32"), draw.standard_normal((ROWS, 5)).astype("float16")


def put_npy(folder: Path, image: np.ndarray[Any, Any], text: np.ndarray[Any, Any]) -> dict[str, str]:
    np.save(folder / "image.npy", image)
    np.save(folder / "text.npy", text)
    return {"image": str(folder / "image.npy"), "text": str(folder / "text.npy")}


def put_safetensors(folder: Path, image: np.ndarray[Any, Any], text: np.ndarray[Any, Any]) -> dict[str, str]:
    both = {"audio": torch.from_numpy(image), "text": torch.from_numpy(text), "scale": torch.ones(1)}
    save_file(both, folder / "both.safetensors")
    return {side: f"{folder / 'both.safetensors'}:{name}" for side, name in (("image", "audio"), ("text", "text"))}


@pytest.mark.parametrize("put", [put_npy, put_safetensors])
def test_files_become_a_store_once(
    tmp_path: Path, embeddings: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], put: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("mmmono.features.embedding_files.ROWS", 4)
    option = ExistingStore(**put(tmp_path, *embeddings))
    artifacts = Artifacts(tmp_path / "artifacts")
    made = option.feature_store(artifacts, "clap")
    store = FeatureStore(made.path)
    assert (len(store), store.dim, option.dim_of(None), store.dtype) == (ROWS, 5, 5, np.float32)
    for side, wanted in zip(("image", "text"), embeddings, strict=True):
        np.testing.assert_array_equal(store.read(side, 0, ROWS), wanted)  # type: ignore[arg-type]
    assert store.metadata()["key"].tolist() == [f"row-{row}" for row in range(ROWS)]
    assert made.built
    assert not option.feature_store(artifacts, "clap").built
    addresses = {made.path, option.feature_store(artifacts, "other").path}
    embeddings[0][ROWS // 2, 3] += 1
    addresses.add(ExistingStore(**put(tmp_path, *embeddings)).feature_store(artifacts, "clap").path)
    assert len(addresses) == 3


def test_bfloat16_and_a_file_of_one_array(tmp_path: Path) -> None:
    values = torch.randn(4, 3).bfloat16()
    save_file({"x": values}, tmp_path / "a.safetensors")
    np.save(tmp_path / "b.npy", np.zeros((4, 3), "float16"))
    option = ExistingStore(image=str(tmp_path / "a.safetensors"), text=str(tmp_path / "b.npy"))
    store = FeatureStore(option.feature_store(Artifacts(tmp_path / "artifacts"), "m").path)
    assert store.read("image", 0, 4).equal(values.float())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_metadata_names_pairs_images_and_groups(
    tmp_path: Path, embeddings: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], kind: str
) -> None:
    Image.new("RGB", (4, 4), (70, 0, 0)).save(tmp_path / "3.png")
    rows = pd.DataFrame({"id": [f"{row // 2}" for row in range(ROWS)], "file_name": [f"{row}.png" for row in range(ROWS)],
                         "text": [f"caption {row}" for row in range(ROWS)], "kind": range(ROWS)})  # fmt: skip
    metadata = tmp_path / f"rows.{kind}"
    rows.to_csv(metadata, index=False) if kind == "csv" else rows.to_parquet(metadata)
    option = ExistingStore(**put_npy(tmp_path, *embeddings), metadata=str(metadata))
    made = FeatureStore(option.feature_store(Artifacts(tmp_path / "artifacts"), "m").path).metadata()
    assert made["key"].tolist()[:4] == ["0", "0#1", "1", "1#1"]
    assert made["group"].tolist()[:4] == ["0", "0", "1", "1"]
    assert made["kind"].tolist()[:2] == ["0", "1"]
    pair = option.source("all").fetch("1#1")
    assert (pair.caption, np.asarray(pair.image)[0, 0, 0]) == ("caption 3", 70)
    without = ExistingStore(**put_npy(tmp_path, *embeddings))
    assert without.fingerprint() != option.fingerprint()


def _arrays(folder: Path, text_rows: int = ROWS, **more: Any) -> ExistingStore:
    return ExistingStore(**put_npy(folder, np.ones((ROWS, 5)), np.ones((text_rows, 5))), **more)


def _made(option: ExistingStore, folder: Path) -> object:
    return option.feature_store(Artifacts(folder / "artifacts"), "m")


def _two_arrays(folder: Path) -> object:
    save_file({"a": torch.ones(3, 2), "b": torch.ones(3, 2)}, folder / "two.safetensors")
    return ExistingStore(image=str(folder / "two.safetensors"), text=str(folder / "two.safetensors")).dim_of(None)


def _with_metadata(folder: Path) -> object:
    (folder / "rows.csv").write_text("key,caption\n1,x\n")
    return _made(_arrays(folder, metadata=str(folder / "rows.csv")), folder)


def _torn(folder: Path) -> object:
    (folder / "torn.safetensors").write_bytes(b"torn")
    return ExistingStore(image=str(folder / "torn.safetensors"), text="b").dim_of(None)


@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        (lambda folder: ExistingStore(), ConfigError, "wants either dataset.path=.* or both dataset.image="),
        (lambda folder: ExistingStore(image="a.npy"), ConfigError, "wants either dataset.path="),
        (lambda folder: ExistingStore(path="x", text="b.npy"), ConfigError, "wants either dataset.path="),
        (lambda folder: ExistingStore(path="x", metadata="b.csv"), ConfigError, "dataset.metadata belongs to dataset.image"),
        (lambda folder: ExistingStore(image="no.npy", text="b.npy").dim_of(None), StoreError, "image=no.npy is no file"),
        (lambda folder: _made(_arrays(folder, ROWS - 1), folder), StoreError, "9 rows of 5, and dataset.text=.* 8 of 5"),
        (_two_arrays, StoreError, r"holds a \[3, 2\] F32, b \[3, 2\] F32: name the array .* as file.safetensors:name"),
        (_with_metadata, StoreError, "has 1 rows, and the embeddings 9: row i of each"),
        (_torn, StoreError, "is no whole safetensors file"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line(
    tmp_path: Path, run: Callable[[Path], object], error: type[MmmonoError], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        run(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_table_is_read_once_and_never_again_where_the_store_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"key": range(ROWS)}).to_csv(tmp_path / "rows.csv", index=False)
    option, reads = _arrays(tmp_path, metadata=str(tmp_path / "rows.csv")), []
    frame = EmbeddingFiles.frame
    monkeypatch.setattr(EmbeddingFiles, "frame", lambda files: (reads.append(files), frame(files))[1])
    for _ in range(3):  # as the steps of a plan ask for it
        with pytest.raises(MissingArtifactError):
            option.feature_store(FinishedArtifacts(tmp_path / "artifacts"), "m")
        assert option.expected_pairs("all") == ROWS
    assert len(reads) == 1
    _made(option, tmp_path)
    reads.clear()
    _made(option, tmp_path)
    assert not reads
