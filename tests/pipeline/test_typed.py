"""Settings as dataclasses: what does not fit a field's type is one line that names the setting and says what it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mmmono.core.errors import ConfigError
from mmmono.core.shown import as_typed
from mmmono.pipeline.settings import check_settings
from mmmono.pipeline.typed import check_option, read_settings
from mmmono.pipeline.workspace_settings import WorkspaceSettings
from tests.pipeline.conftest import REPOSITORY


@dataclass(frozen=True)
class Inner:
    rate: float


@dataclass(frozen=True)
class Outer:
    count: int
    rate: float
    name: str | None
    on: bool
    sizes: Sequence[int] | None
    kind: Literal["a", "b"]
    inner: Inner

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count={self.count} must be at least 1")


GOOD = {"count": 2, "rate": 1, "name": None, "on": True, "sizes": [1, 2], "kind": "a", "inner": {"rate": 0.5}}


def read(**changes: Any) -> Outer:
    return read_settings(OmegaConf.create({"study": {**GOOD, **changes}}), "study", Outer)


def test_values_of_the_right_types_are_kept() -> None:
    assert read() == Outer(2, 1, None, True, [1, 2], "a", Inner(0.5))
    assert read(name="x", sizes=None).name == "x"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": None}, "study.count=null must be a whole number"),
        ({"count": 1.5}, "study.count=1.5 must be a whole number"),
        ({"count": True}, "study.count=true must be a whole number"),
        ({"rate": "fast"}, "study.rate=fast must be a number"),
        ({"name": 3}, "study.name=3 must be text or null"),
        ({"on": 1}, "study.on=1 must be true or false"),
        ({"sizes": 3}, "study.sizes=3 must be null or a list, of a whole number each"),
        ({"sizes": ["a"]}, "study.sizes=[a] must be null or a list, of a whole number each"),
        ({"kind": 2}, "study.kind=2 must be one of a, b"),
        ({"inner": 4}, "study.inner=4 must be a group of settings"),
        ({"inner": {"rate": None}}, "study.inner.rate=null must be a number"),
        ({"count": 0}, "study.count=0 must be at least 1"),
        ({"inner": {}}, "study.inner.rate is missing, and this command reads it: give it a value"),
        (
            {"inner": {"rate": 1, "rat": 2}},
            "no setting is called 'study.inner.rat', did you mean 'study.inner.rate'?; --help lists them all",
        ),
    ],
)
def test_others_are_refused_by_their_full_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "model=transformers model.id=x model.layer=[null,true]",
            "model.layer=[null,true] must be a whole number or null",
        ),
        ("model=transformers model.id=x model.layer=deep", "model.layer=deep must be a whole number or null or a list"),
        ("model=open_clip model.pretrained=x model.architecture=null", "model.architecture=null must be text"),
        (
            "model=open_clip model.pretrained=x model.architecture=7",
            "model.architecture=7 must be text: type model.arch",
        ),
        ("model.name=7", "model.name=7 must be text: type model.name='\"7\"'"),
        ("model=clip_rn50 model.mean=[a,null]", "model.mean=[a,null] must be null or a list, of a number each"),
        ("model=clip_rn50 model.projected=null", "model.projected=null must be true or false"),
        ("model=clip_rn50 model.tokenizer=[a,true]", "model.tokenizer=[a,true] must be text or null"),
        ("dataset=webdataset dataset.shards=null", "dataset.shards=null must be text or a list, of text each"),
        ("dataset=webdataset dataset.shards=a dataset.timeout=null", "dataset.timeout=null must be a number"),
        ("dataset=webdataset dataset.shards=a dataset.image_keys=[null]", "dataset.image_keys=[null] must be a list"),
        ("dataset.split=null", "dataset.split=null must be one of train, select, val, all"),
        ("dataset.near_duplicates=[1]", "dataset.near_duplicates=[1] must be a number or null"),
        (
            "dataset=webdataset dataset.shards=a dataset.caption_key={a:null}",
            "dataset.caption_key={a:null} must be text",
        ),
    ],
)
def test_settings_of_an_option_are_of_the_types_of_its_class(overrides: str, message: str) -> None:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        cfg = compose("mds", overrides.split())
    with pytest.raises(ConfigError) as error:
        check_settings(cfg, "mds")
    assert str(error.value).startswith(message)


def test_all_options_that_ship_pass() -> None:
    """Whatever annotations their classes have."""
    for file in sorted((REPOSITORY / "conf").glob("*/*.yaml")):
        content = OmegaConf.load(file)
        if isinstance(content, DictConfig) and "_target_" in content and file.parent.name not in ("trainer", "logger"):
            plain = {
                name: "" if OmegaConf.is_interpolation(content, name) else content._get_node(name) for name in content
            }
            settings = OmegaConf.create({name: value for name, value in plain.items() if value != ""})
            assert isinstance(settings, DictConfig)
            check_option(file.parent.name, settings)


def test_values_are_shown_as_they_are_typed() -> None:
    values = [None, True, [None, 9], (1.5, "a"), {"a": [False, None]}, "a b", OmegaConf.create([None, {"b": 1}])]
    shown = ["null", "true", "[null,9]", "[1.5,a]", "{a:[false,null]}", "a b", "[null,{b:1}]"]
    assert [as_typed(value) for value in values] == shown


def test_a_shared_section_may_refer_to_other_settings() -> None:
    extraction = {
        "batch_size": "${seed}", "workers": None, "precision": "auto", "dtype": "float16", "max_skipped": 0.1,
        "max_broken_shards": 0, "part_of": None, "devices": 1, "resize": "pillow",
    }  # fmt: skip
    assert WorkspaceSettings(OmegaConf.create({"seed": 8, "extraction": extraction})).extraction.batch_size == 8
