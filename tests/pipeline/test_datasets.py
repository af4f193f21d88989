"""Dataset options hand all of their settings to the source of pairs."""

from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import ListConfig

from mmmono.data import RemoteSettings, SampleReading, WebDatasetPairs
from mmmono.pipeline.datasets import Remote, WebDataset

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
    ("option", "into", "constant"),
    [(WebDataset, SampleReading, {"seed"}), (Remote, RemoteSettings, {"pause", "longest_pause"})],
)
def test_options_have_the_fields_of_what_they_are_handed_to(option: type, into: type, constant: set[str]) -> None:
    """A field that is renamed on one side alone would silently keep its default."""
    names = [{field.name for field in fields(one)} for one in (into, option)]  # type: ignore[arg-type]
    assert names[0] - names[1] == constant
