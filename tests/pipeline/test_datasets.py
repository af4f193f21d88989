"""Dataset options hand all of their settings to the source of pairs."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import ListConfig

from mmmono.core.errors import ConfigError
from mmmono.data import RemoteSettings, SampleReading, WebDatasetPairs
from mmmono.features import FeatureStoreWriter
from mmmono.features.synthetic import SyntheticParameters
from mmmono.pipeline import apart
from mmmono.pipeline.datasets import CC3M, COCO, Remote, Synthetic, WebDataset
from mmmono.pipeline.existing_store import ExistingStore
from mmmono.pipeline.huggingface_dataset import HuggingFace
from mmmono.pipeline.models import DeCLIP, OpenCLIP
from mmmono.pipeline.settings import CONF
from mmmono.vlm.weight_settings import GivenSettings

OWN = {
    "image_keys": ListConfig(["bmp", ".TIF"]),
    "caption_key": "alt",
    "captions": "all",
    "label_keys": ListConfig(["kind"]),
    "key_end": "last_dot",
    "caption_lines": True,
}


def test_every_setting_of_webdataset_reaches_its_source(tmp_path: Path) -> None:
    option = WebDataset(shards="http://host/a.tar", limit=7, cache=str(tmp_path), timeout=3.0, retries=2, **OWN)  # type: ignore[arg-type]
    source = option.source("train")
    assert isinstance(source, WebDatasetPairs)
    assert source.reading == SampleReading(
        image_keys=("bmp", "tif"), caption_key="alt", captions="all", label_keys=("kind",), key_end="last_dot",
        caption_lines=True,
    )  # fmt: skip
    assert source.opener.settings == RemoteSettings(timeout=3.0, retries=2)
    assert source.copies is not None
    assert source.copies.folder == tmp_path
    assert source.limit == 7


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "val2017").mkdir()
    captions = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}
    (tmp_path / "coco" / "annotations" / "captions_val2017.json").write_text(json.dumps(captions))
    assert len(COCO(root="~/coco").source("val")) == 1
    (tmp_path / "cc3m-validation-0000.tar").write_bytes(bytes(1024))
    assert CC3M(root="~").source("val").shards == [str(tmp_path / "cc3m-validation-0000.tar")]
    writer = FeatureStoreWriter(tmp_path / "store", 1)
    writer.write(0, torch.ones(2, 4), torch.ones(2, 4), [{"key": key, "caption": "x"} for key in "ab"])
    assert len(ExistingStore(path="~/store").source("all")) == 2
    assert ExistingStore(path="s3://bucket/store", cache="~/blocks").reading.folder == tmp_path / "blocks"
    (tmp_path / "declip.pth.tar").write_bytes(b"x")
    assert DeCLIP(name="declip_rn50", checkpoint="~/declip.pth.tar").recipe()["checkpoint"]


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


def test_validation_shards_are_no_training_shards(tmp_path: Path) -> None:
    for name in ("a-0.tar", "a-1.tar", "b.tar"):
        (tmp_path / name).touch()
    WebDataset(shards=f"{tmp_path}/a-*.tar", val_shards=f"{tmp_path}/b.tar")
    WebDataset(shards=f"{tmp_path}/absent.tar", val_shards=f"{tmp_path}/b.tar")  # which matters only if they are read
    with pytest.raises(ConfigError, match=r"val_shards has .*a-1.tar, a training shard .*leave dataset.val_shards out"):
        WebDataset(shards=f"{tmp_path}/a-{{0..1}}.tar", val_shards=[f"{tmp_path}/b.tar", f"{tmp_path}/./a-1.tar"])


def test_a_copy_of_a_training_shard_is_no_validation_shard(tmp_path: Path) -> None:
    for name, content in (("a.tar", b"one"), ("b.tar", b"two"), ("c.tar", b"one")):
        (tmp_path / name).write_bytes(content)
    WebDataset(shards=f"{tmp_path}/a.tar", val_shards=f"{tmp_path}/b.tar")
    WebDataset(shards=f"{tmp_path}/b.tar", val_shards=f"{tmp_path}/[ac].tar")
    with pytest.raises(ConfigError, match=r"val_shards has .*c.tar, a training shard or a copy of one"):
        WebDataset(shards=f"{tmp_path}/[ab].tar", val_shards=f"{tmp_path}/c.tar")


@pytest.mark.parametrize(
    ("rows", "val_rows", "apart"),
    [
        ("train", "test", True), ("train[:90%]", "train[90%:]", True), ("train", "train", False),
        ("train", "train[90%:]", False), ("train[:90%]", "train", False), ("train[:9]", "train[:9]", False),
    ],
)  # fmt: skip
def test_validation_rows_are_no_training_rows(rows: str, val_rows: str, apart: bool) -> None:
    with nullcontext() if apart else pytest.raises(ConfigError, match="val_rows=.* has rows of dataset.rows="):
        HuggingFace(id="org/name", rows=rows, val_rows=val_rows)


@pytest.mark.parametrize("option", sorted(file.stem for file in (CONF / "dataset").glob("*.yaml")))
def test_titles_and_artifacts_say_the_name_of_the_option(option: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        dataset = get_class(compose("mds", [f"dataset={option}"]).dataset._target_)
    assert dataset.name.fget(object.__new__(dataset)) == option  # which needs none of its settings


@pytest.mark.parametrize(
    ("rows", "val_rows", "apart"),
    [
        ("train[:90%]", "train[80%:]", False), ("train[:90%]", "train[90%:]", True),
        ("train[:-20%]", "train[-20%:]", True), ("train[:-10%]", "train[-20%:]", False),
        ("train[:1000]", "train[999:]", False), ("train[:1_000]", "train[1000:2000]", True),
        ("train[100:200]", "train[:150]", False), ("train[:]", "train[:10%]", False),
        ("train+test", "test", False), ("train[:50%]+test", "train[50%:]", True), ("all", "train[:5%]", False),
        ("train[:33%](pct1_dropremainder)", "train[33%:]", True),
    ],
)  # fmt: skip
def test_slices_that_share_rows_are_no_validation_rows(rows: str, val_rows: str, apart: bool) -> None:
    for first, second in ((rows, val_rows), (val_rows, rows)):
        with nullcontext() if apart else pytest.raises(ConfigError, match="val_rows=.* has rows of dataset.rows="):
            HuggingFace(id="org/name", rows=first, val_rows=second)


@pytest.mark.parametrize(
    ("shards", "val_shards", "apart"),
    [
        ("https://h/train-{0000..0009}.tar", "https://h/train-{0009..0011}.tar", False),
        ("https://h/train-{0000..0009}.tar", "https://h/train-{0010..0011}.tar", True),
        ("https://h/a.tar?X-Amz-Signature=1", "https://h/a.tar?X-Amz-Signature=2", False),
        ("s3://bucket/*.tar", ["s3://bucket/val-0.tar"], False),
        ("s3://bucket/train-*.tar", ["s3://bucket/val-0.tar", "s3://other/train-0.tar"], True),
        ("hf://datasets/org/name/", "hf://datasets/org/name/0001.tar", False),
        ("hf://datasets/org/name/", "hf://datasets/org/name/val/0001.tar", True),
        ("hf://datasets/org/name/", "hf://datasets/org/name/", False),
        ("hf://datasets/org/name/0001.tar", "hf://datasets/org/name/", False),
        ("s3://bucket/train-{0..9}.tar", ["s3://bucket/val-0.tar", "s3://bucket/*-9.tar"], False),
        ("pipe:cat a.tar", "pipe:cat a.tar", False),
    ],
)
def test_remote_validation_shards_are_no_training_shards(shards: Any, val_shards: Any, apart: bool) -> None:
    with nullcontext() if apart else pytest.raises(ConfigError, match="val_shards has .*, a training shard"):
        WebDataset(shards=shards, val_shards=val_shards)


def test_many_remote_shards_are_not_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAION has 41,455 shards; beside 5 of an object store they took 14 s, and beside 1,000 most of an hour."""
    compared: list[str] = []
    fits = apart.fnmatchcase
    monkeypatch.setattr(apart, "fnmatchcase", lambda *of: compared.append(of[0]) or fits(*of))
    train = "s3://bucket/{00000..01999}.tar"
    apart.check_shards_apart(train, "s3://bucket/{02000..02999}.tar")
    assert not compared
    with pytest.raises(ConfigError, match=r"val_shards has s3://bucket/01999\.tar, a training shard"):
        apart.check_shards_apart(train, "s3://bucket/{01999..02999}.tar")
