"""Files of artifacts that a crash, a full disk or a hand has broken."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import StoreError
from mmmono.core.saved import read_frame, read_json_object, read_rows, read_tensors
from mmmono.reporting.contents import contents
from mmmono.reporting.drawn import drawn
from mmmono.reporting.result import Result

BROKEN = {"empty": b"", "garbage": b"\x93\x00garbage" * 9}  # and cut in half, below


def broken_ways(content: bytes) -> list[bytes]:
    return [*BROKEN.values(), content[: len(content) // 2], b"\0" * len(content)]


@pytest.mark.parametrize("name", ["t.parquet", "t.json", "t.safetensors"])
def test_a_broken_file_is_named_with_what_makes_it_anew(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
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
