"""Files of artifacts that a crash, a full disk or a hand has broken."""

import errno
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import DictionaryError, StoreError
from mmmono.core.saved import read_frame, read_json_object, read_rows, read_tensors
from mmmono.dictionaries import Dictionary, TopKSAE
from mmmono.dictionaries.base import read_config, read_weights
from mmmono.features import FeatureStore
from mmmono.features.metadata import read_metadata
from mmmono.features.store import Manifest
from mmmono.features.writer import FeatureStoreWriter
from mmmono.modality import load_partition, load_sharedness
from mmmono.modality.partition_file import SHAREDNESS_TABLE, TABLE
from mmmono.reporting.contents import contents
from mmmono.reporting.drawn import drawn
from mmmono.reporting.result import Result

BROKEN = {"empty": b"", "garbage": b"\x93\x00garbage" * 9}  # and cut in half, below


def broken_ways(content: bytes) -> list[bytes]:
    return [*BROKEN.values(), content[: len(content) // 2], b"\0" * len(content)]


@pytest.mark.parametrize("name", ["t.parquet", "t.json", "t.safetensors"])
def test_a_broken_file_is_named_with_what_makes_it_anew(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    (tmp_path / "recipe.json").write_text("{}")
    readers = {".parquet": (read_frame, read_rows), ".json": (read_json_object,), ".safetensors": (read_tensors,)}
    if name == "t.parquet":
        pd.DataFrame({"feature": range(100)}).to_parquet(file)
    elif name == "t.json":
        file.write_text(json.dumps({"a": 1, "b": "ä"}))
    else:
        save_file({"w": torch.zeros(9)}, file)
    content = file.read_bytes()
    for read in readers[file.suffix]:
        assert len(read(file))
        for cut in broken_ways(content):
            file.write_bytes(cut)
            with pytest.raises(StoreError, match=rf"{name} is no whole .*: remove the folder .*, and run the same"):
                read(file)
        file.unlink()
        with pytest.raises(FileNotFoundError):
            read(file)
        file.write_bytes(content)


def test_a_table_whose_texts_are_broken_is_named_too(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pd.DataFrame({"feature": ["dog"] * 9}).to_parquet(file)
    whole = file.read_bytes()
    for read, text in ((read_frame, b"feature"), (read_rows, b"feature"), (read_rows, b"dog")):
        file.write_bytes(whole.replace(text, b"\xff" * len(text)))
        with pytest.raises(StoreError, match=r"t\.parquet is no whole Parquet file"):
            read(file)


def test_a_whole_file_that_the_system_cannot_read_is_not_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where too many files are open, or a disk is away for a moment: hours of work were to be removed."""
    (tmp_path / "recipe.json").write_text("{}")
    pd.DataFrame({"key": ["1"]}).to_parquet(tmp_path / "t.parquet")
    save_file({"w": torch.zeros(9)}, tmp_path / "w.safetensors")
    (tmp_path / "c.json").write_text("{}")
    for name in (TABLE, SHAREDNESS_TABLE):
        (tmp_path / name).touch()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    for place in ("pandas.read_parquet", "pyarrow.parquet.read_table", "pyarrow.parquet.ParquetFile"):
        monkeypatch.setattr(place, fail)
    monkeypatch.setattr("safetensors.torch.load_file", fail)
    monkeypatch.setattr("mmmono.dictionaries.base.load_file", fail)
    monkeypatch.setattr(Path, "read_text", fail)
    for read, name in (
        (read_frame, "t.parquet"), (read_rows, "t.parquet"), (read_tensors, "w.safetensors"),
        (lambda file: read_metadata([file]), "t.parquet"), (read_weights, "w.safetensors"), (read_config, "c.json"),
        (lambda file: load_partition(tmp_path, "sae"), TABLE), (lambda file: load_sharedness(tmp_path), SHAREDNESS_TABLE),
    ):  # fmt: skip
        with pytest.raises(
            (StoreError, DictionaryError), match="Too many open files.*: mend what the system reports, and"
        ):
            read(tmp_path / name)


def test_a_dictionary_without_its_weights_is_to_be_made_anew(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    for read in (read_weights, read_config):
        with pytest.raises(DictionaryError, match="remove the folder"):
            read(tmp_path / "missing")


def test_a_broken_recipe_or_result_is_no_traceback(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)

    def make(folder: Path) -> None:
        pd.DataFrame({"x": [1, 2]}).to_parquet(folder / "summary.parquet")
        (folder / "figures.json").write_text("{}")

    made = artifacts.build("results", "mds", {"version": 1}, make)
    (made.path / "versions.json").write_text("")
    with pytest.raises(StoreError, match=r"versions\.json"):
        made.versions  # noqa: B018
    (made.path / "figures.json").write_text("[]")
    with pytest.raises(StoreError, match=r"figures\.json is no whole JSON object"):
        drawn(made.path)
    (made.path / "summary.parquet").write_bytes(b"")
    for read in (Result(made.path, {}).table, Result(made.path, {}).rows):
        with pytest.raises(StoreError, match=r"summary\.parquet"):
            read("summary")
    with pytest.raises(StoreError, match=r"summary\.parquet"):
        contents(made.path)
    (made.path / "recipe.json").write_text("")
    with pytest.raises(StoreError, match=f"recipe.json is no whole JSON file .*remove the folder {made.path}"):
        list(artifacts.find("results"))


def test_features_and_dictionaries_say_how_an_artifact_is_made_anew(tmp_path: Path) -> None:
    def sae(folder: Path) -> None:
        TopKSAE(4, 8, k=2).save_pretrained(folder)

    def store(folder: Path) -> None:
        writer = FeatureStoreWriter(folder, 1, "float32")
        writer.write(0, torch.ones(3, 4), torch.ones(3, 4), [{"key": str(i), "caption": "c"} for i in range(3)])
        writer.finish(Manifest("m", "f", "d", "f", 4, 0, "float32", ""), [0])

    artifacts = Artifacts(tmp_path)
    trained = artifacts.build("dictionaries", "sae", {}, sae).path
    extracted = artifacts.build("features", "m-d", {}, store).path
    files = [trained / "config.json", trained / "weights.safetensors", extracted / "manifest.json"]
    for file in [*files, *extracted.glob("*_emb/*")]:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises((StoreError, DictionaryError), match=f"remove the folder {tmp_path}.*, and run the same"):
            Dictionary.from_pretrained(trained), FeatureStore(extracted)
        (folder := extracted if extracted in file.parents else trained).joinpath("recipe.json").rename(tmp_path / "r")
        with pytest.raises(
            (StoreError, DictionaryError), match="save it anew|extract again|no readable dictionary"
        ):  # someone else's
            Dictionary.from_pretrained(trained), FeatureStore(extracted)
        (tmp_path / "r").rename(folder / "recipe.json")
        file.write_bytes(content)
    (metadata,) = extracted.glob("metadata/*")
    opened = FeatureStore(extracted)
    metadata.write_bytes(metadata.read_bytes()[:50])
    with pytest.raises(StoreError, match="remove the folder"):
        opened.metadata()
