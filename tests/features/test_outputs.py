"""Features from the outputs of towers are the files that a whole model's extraction writes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmmono.core.errors import ModelError
from mmmono.data.pairs import ImageTextPair
from mmmono.features import FeatureStore, extract_features
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.outputs import TowerOutputs, features_from_outputs
from tests.fakes import ColorEncoder, ColorPairs

BATCH = 4
PASS = ExtractionSettings(batch_size=BATCH, dtype="float32")


@dataclasses.dataclass
class Towers(ColorEncoder):
    """Towers of six and three numbers."""

    name: str = "towers"

    def encode_image(self, images: Tensor) -> Tensor:
        return torch.cat([super().encode_image(images), images.float().std((2, 3))[:, :2]], dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return super().encode_text(tokens)[:, :3]


@dataclasses.dataclass
class Whole(Towers):
    """The same towers with a head each."""

    name: str = "whole"
    fingerprint: str = "2"
    dim: int = 5
    heads: dict[str, nn.Module] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.heads = {"image": nn.Linear(6, 5), "text": nn.Linear(3, 5)}

    def encode_image(self, images: Tensor) -> Tensor:
        return self.heads["image"](super().encode_image(images))

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.heads["text"](super().encode_text(tokens))


def passed(tmp_path: Path, *sources: ColorPairs) -> TowerOutputs:
    for number, source in enumerate(sources):
        extract_features(source, Towers(), tmp_path / f"towers-{number}", settings=PASS)
    return TowerOutputs([tmp_path / f"towers-{number}" for number in range(len(sources))], BATCH)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("limit", [None, 1, 4, 7, 9, 15, 99])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_file_is_that_of_a_whole_pass(tmp_path: Path, limit: int | None, dtype: str) -> None:
    outputs, model, source = passed(tmp_path, ColorPairs()), Whole(), ColorPairs(limit=limit)
    expected = extract_features(source, model, tmp_path / "full", batch_size=BATCH, dtype=dtype)
    assert features_from_outputs(source, outputs, model, model.heads, tmp_path / "heads", dtype) == expected
    assert contents(tmp_path / "heads") == contents(tmp_path / "full")
    assert len(FeatureStore(tmp_path / "heads")) == min(limit or 15, 15)


@pytest.mark.parametrize("limit", [2, 6, 7, 14, 15, None])
def test_labels_of_pairs_that_a_limit_leaves_out_make_no_columns(tmp_path: Path, limit: int | None) -> None:
    class Labelled(ColorPairs):
        def fetch(self, key: str, locator: str = "") -> ImageTextPair:
            labels = {"0/3": {"second": "b", "first": "a"}, "0/6": {"last": "c", "first": "a"}, "2/2": {"first": "d"}}
            return dataclasses.replace(super().fetch(key), labels=labels.get(key, {}), locator="")

    outputs, model, source = passed(tmp_path, Labelled()), Whole(), Labelled(limit=limit)
    extract_features(source, model, tmp_path / "full", batch_size=BATCH)
    features_from_outputs(source, outputs, model, model.heads, tmp_path / "heads", "float16")
    assert contents(tmp_path / "heads") == contents(tmp_path / "full")


def test_what_an_extraction_that_was_cut_short_left_does_not_stay(tmp_path: Path) -> None:
    outputs, model = passed(tmp_path, ColorPairs()), Whole()
    extract_features(
        ColorPairs(), ColorEncoder(), tmp_path / "heads"
    )  # other numbers, in parts that the limit leaves out
    (tmp_path / "heads" / "manifest.json").unlink()
    source = ColorPairs(limit=5)
    features_from_outputs(source, outputs, model, model.heads, tmp_path / "heads", "float16")
    extract_features(source, model, tmp_path / "full", batch_size=BATCH)
    assert contents(tmp_path / "heads") == contents(tmp_path / "full")


def test_members_follow_each_other(tmp_path: Path) -> None:
    first, second, model = ColorPairs((3, 2)), ColorPairs((3, 2, 6)), Whole()
    outputs = passed(tmp_path, first, second)
    assert outputs.image.shape == (16, 6)
    assert outputs.text.shape == (16, 3)
    keys = [f"{part}/{i}" for source in (first, second) for part, size in enumerate(source.sizes) for i in range(size)]
    assert [key.partition("#")[0] for key in outputs.metadata["key"]] == keys
    with torch.inference_mode():
        assert torch.equal(outputs.image[5:10], outputs.image[:5])
    features_from_outputs(ColorPairs((3, 2, 3, 2, 6)), outputs, model, model.heads, tmp_path / "heads", "float32")
    extract_features(second, model, tmp_path / "second", batch_size=BATCH, dtype="float32")
    stored = FeatureStore(tmp_path / "heads").read("image", 5, 16)
    assert stored.equal(FeatureStore(tmp_path / "second").read("image", 0, 11))


def test_an_embedding_that_is_not_finite_is_reported(tmp_path: Path) -> None:
    outputs, model = passed(tmp_path, ColorPairs()), Whole()
    broken = {**model.heads, "text": lambda rows: model.heads["text"](rows) / (rows[:, 1:2] != rows[2, 1])}
    with pytest.raises(ModelError, match=r"the text embedding of 0/2 in part-0 is not finite"):
        features_from_outputs(ColorPairs(), outputs, model, broken, tmp_path / "heads", "float16")
