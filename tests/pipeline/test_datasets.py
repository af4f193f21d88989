"""Dataset options hand all of their settings to the source of pairs."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import ListConfig

from mmmono.core.errors import ConfigError
from mmmono.data import RemoteSettings, SampleReading, WebDatasetPairs
from mmmono.features.synthetic import SyntheticParameters
from mmmono.pipeline.datasets import Remote, Synthetic, WebDataset
from mmmono.pipeline.models import OpenCLIP
from mmmono.vlm.weight_settings import GivenSettings

OWN = {
    "image_keys": ListConfig(["bmp", ".TIF"]),
    "caption_key": "alt",
    "captions": "all",
    "label_keys": ListConfig(["kind"]),
    "key_end": "last_dot",
}


def test_every_setting_of_webdataset_reaches_its_source(tmp_path: Path) -> None:
    option = WebDataset(shards="http://host/a.tar", limit=7, cache=str(tmp_path), timeout=3.0, retries=2, **OWN)  # type: ignore[arg-type]
    source = option.source("train")
    assert isinstance(source, WebDatasetPairs)
    assert source.reading == SampleReading(
        image_keys=("bmp", "tif"), caption_key="alt", captions="all", label_keys=("kind",), key_end="last_dot"
    )
    assert source.opener.settings == RemoteSettings(timeout=3.0, retries=2)
    assert source.copies is not None
    assert source.copies.folder == tmp_path
    assert source.limit == 7


@pytest.mark.parametrize(
    ("option", "base"),
    [
        (WebDataset, SampleReading),
        (Remote, RemoteSettings),
        (Synthetic, SyntheticParameters),
        (OpenCLIP, GivenSettings),
    ],
)
def test_options_add_to_the_settings_that_they_describe_and_repeat_none(option: type, base: type) -> None:
    assert issubclass(option, base)
    own = set(option.__annotations__)
    assert not own & {field.name for field in fields(base)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (lambda: Synthetic(active=-1), "dataset.active=-1"),
        (lambda: Synthetic(limit=3), "set dataset.pairs"),
        (lambda: WebDataset(shards="a.tar", retries=-1), "dataset.retries=-1"),
        (lambda: WebDataset(shards="a.tar", captions="none"), "dataset.captions=none"),  # type: ignore[arg-type]
        (lambda: WebDataset(shards="a.tar", limit=0), "dataset.limit=0"),
    ],
)
def test_options_make_the_checks_of_all_their_settings(option: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        option()


def test_the_recipe_of_synthetic_pairs_has_their_parameters_alone() -> None:
    option = Synthetic(pairs=50, seed=3, split="all")
    assert option.parameters == SyntheticParameters(pairs=50, seed=3)
    assert type(option.parameters) is SyntheticParameters
