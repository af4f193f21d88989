"""Files that are changed while a command runs: what is made must be of the content that its address names."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmmono.core.artifacts import Artifacts
from mmmono.core.errors import DataError, ModelError
from mmmono.core.fingerprints import file_fingerprint
from mmmono.data.huggingface import HubDataset, HuggingFacePairs
from mmmono.data.listed_pairs import ListedPairs
from mmmono.data.listings import list_folder
from mmmono.data.pairs import PairSource
from mmmono.data.tables import TableReading
from mmmono.data.webdataset import WebDatasetPairs
from mmmono.features import FeatureStore
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.pipeline.extracting import FeatureExtraction
from mmmono.pipeline.model import Model
from mmmono.vlm import Encoder
from tests.fakes import ColorEncoder


class CallingEncoder(ColorEncoder):
    """Calls a function before it encodes the first batch."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self.then: Callable[[], object] | None = then

    def encode_image(self, images: Tensor) -> Tensor:
        if self.then is not None:
            then, self.then = self.then, None
            then()
        return super().encode_image(images)


@dataclass(kw_only=True, frozen=True)
class Colors(Model):
    """The model of a weights file; `then` is called when the first batch is there, `before` when it is loaded."""

    weights: Path
    then: Callable[[], object] = lambda: None
    before: Callable[[], object] = lambda: None

    def recipe(self) -> dict[str, Any]:
        return {"weights": file_fingerprint(self.weights)}

    @property
    def dim(self) -> int:
        return 4

    def load(self, artifacts: Artifacts, device: str) -> Encoder:
        self.before()
        return cast(Encoder, CallingEncoder(self.then))


def jpeg(color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (color, color, color)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(file: Path, color: int) -> None:
    new = file.with_suffix(".new")
    with tarfile.open(new, "w") as tar:
        for name, data in (("1.png", jpeg(color)), ("1.txt", b"7 8")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    new.replace(file)


def shards(folder: Path) -> WebDatasetPairs:
    for number in range(3):
        write_shard(folder / f"{number}.tar", 10 * (number + 1))
    return WebDatasetPairs([str(folder / f"{number}.tar") for number in range(3)])


def images(folder: Path) -> ListedPairs:
    for number in range(3):
        (folder / f"{number}.png").write_bytes(jpeg(10 * (number + 1)))
        (folder / f"{number}.txt").write_text("7 8")
    return ListedPairs(list_folder(str(folder), TableReading()), "folder", TableReading())


def rows(folder: Path) -> HuggingFacePairs:
    pytest.importorskip("datasets", reason="the hf extra brings the library datasets")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(jpeg(10 * (number + 1)))
    named = [{"file_name": f"{number}.png", "text": "7 8"} for number in range(3)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    return HuggingFacePairs(HubDataset(str(folder)))


def extraction(root: Path, source: PairSource, **model: Any) -> FeatureExtraction:
    weights = root / "weights.pt"
    root.mkdir(exist_ok=True)
    if not weights.exists():
        weights.write_bytes(b"one")
    colors = Colors(name="colors", weights=weights, **model)
    settings = ExtractionSettings(batch_size=1, workers=0)
    return FeatureExtraction(Artifacts(root / "made"), colors, source, "colors", "cpu", settings)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(("make", "last"), [(shards, "2.tar"), (images, "2.png"), (rows, "2.png")])
def test_data_that_is_replaced_under_an_extraction_is_under_no_address_of_the_old(
    tmp_path: Path, data: Path, make: Callable[[Path], PairSource], last: str
) -> None:
    source = make(data)
    os.utime(data / last, (1e9, 1e9))  # clocks of file systems are coarse, and this test is quick
    kept = shutil.copy2(data / last, tmp_path / "kept")

    def replace() -> None:
        if last.endswith(".tar"):
            write_shard(data / last, 200)
        else:
            (data / last).write_bytes(jpeg(200))

    with pytest.raises(DataError, match="was changed after this command had begun: run the same again"):
        extraction(tmp_path, source, then=replace).whole(None)
    shutil.copy2(kept, data / last)  # as it was before: a resumed extraction must have nothing of the other content
    made = extraction(tmp_path, source).whole(None)
    assert made.built
    reds = FeatureStore(made.path).read("image", 0, 3)[:, 0].float().numpy()
    np.testing.assert_allclose(reds, np.array([10, 20, 30]) / 256, atol=1e-3)


def test_new_permissions_and_links_are_no_change(tmp_path: Path, data: Path) -> None:
    source = shards(data)

    def touch() -> None:
        (data / "2.tar").chmod(0o440)
        os.link(data / "2.tar", tmp_path / "backup.tar")

    assert extraction(tmp_path, source, then=touch).whole(None).built


def test_new_numbers_of_files_are_no_change(tmp_path: Path, data: Path) -> None:
    """As file systems give them that know none, such as those over SSH, once the kernel has forgotten a file."""
    source = shards(data)

    def number_anew() -> None:
        before = (data / "2.tar").stat().st_ino
        shutil.copy2(data / "2.tar", tmp_path / "same").replace(data / "2.tar")
        assert (data / "2.tar").stat().st_ino != before

    assert extraction(tmp_path, source, then=number_anew).whole(None).built


def test_weights_that_are_replaced_before_they_are_loaded_make_nothing(tmp_path: Path, data: Path) -> None:
    source, weights = shards(data), tmp_path / "weights.pt"
    with pytest.raises(ModelError, match="weights of colors were changed after this command had begun"):
        extraction(tmp_path, source, before=lambda: weights.write_bytes(b"two")).whole(None)
    assert extraction(tmp_path, source).whole(None).built


def test_weights_that_are_replaced_after_they_are_loaded_do_not_matter(tmp_path: Path, data: Path) -> None:
    """A training that goes on overwrites its last checkpoint every few minutes."""
    source, weights = shards(data), tmp_path / "weights.pt"
    made = extraction(tmp_path, source, then=lambda: weights.write_bytes(b"two")).whole(None)
    weights.write_bytes(b"one")
    assert not extraction(tmp_path, source).whole(None).built
    assert torch.isfinite(FeatureStore(made.path).read("text", 0, 3)).all()


def test_words_of_a_command_are_embedded_by_the_weights_that_its_features_are_of(tmp_path: Path, data: Path) -> None:
    model = extraction(tmp_path, shards(data)).model
    known = dict(model.identity)
    model.load_checked(Artifacts(tmp_path / "made"), "cpu")
    (tmp_path / "weights.pt").write_bytes(b"two")
    with pytest.raises(ModelError, match="run the same again"):
        model.load_checked(Artifacts(tmp_path / "made"), "cpu")
    assert model.identity == known


def test_shards_of_one_content_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shards(tmp_path)
    extraction(tmp_path / "first", source).whole(None)
    assert "same content" not in capsys.readouterr().out
    shutil.copy(tmp_path / "1.tar", tmp_path / "copy.tar")
    extraction(tmp_path / "second", WebDatasetPairs([*source.shards, str(tmp_path / "copy.tar")])).whole(None)
    told = " ".join(capsys.readouterr().out.split())
    assert f"copy.tar has the same content as {tmp_path}/1.tar: its pairs count 2 times" in told
