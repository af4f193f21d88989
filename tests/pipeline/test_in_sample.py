"""Titles say where something was fitted to the pairs that are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from mmmono.analyses.ablation import ABLATION
from mmmono.analyses.mds import MDS
from mmmono.core.errors import ConfigError, ModelError
from mmmono.core.versions import VERSIONS
from mmmono.pipeline.models import DrawingCLIP
from mmmono.pipeline.running import CONF
from mmmono.pipeline.workspace import Workspace


def workspace(folder: Path, entrypoint: str, *overrides: str) -> Workspace:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Workspace(compose(entrypoint, [f"artifacts={folder}", *overrides]), makes="none")


SAE, RAW = "features=sae", "features=raw"
SYNTHETIC, EMOJI = "dataset=synthetic", "dataset=openmoji"


@pytest.mark.parametrize(
    ("overrides", "split", "title"),
    [
        ((SYNTHETIC, RAW), "all", "all"),  # nothing is fitted
        ((SYNTHETIC, SAE), "val", "val"),
        ((SYNTHETIC, SAE), "select", "select"),
        ((SYNTHETIC, SAE), "train", "train, in-sample"),
        ((SYNTHETIC, SAE), "all", "all, in-sample"),
        ((SYNTHETIC, SAE, "training.split=val"), "val", "val, in-sample"),
        ((SYNTHETIC, SAE, "training.split=all"), "val", "val, in-sample"),
        ((EMOJI, RAW), "all", "all, in-sample"),  # the model is fitted
        ((EMOJI, RAW), "val", "val"),
        ((EMOJI, RAW, "dataset.group=subcategory"), "val", "val, in-sample"),  # fitted by other groups
        ((EMOJI, RAW, "dataset.near_duplicates=0.97"), "select", "select, in-sample"),
        ((SYNTHETIC, RAW, "dataset.group=group"), "val", "val"),
    ],
)
def test_a_split_says_if_something_was_fitted_to_it(
    tmp_path: Path, overrides: tuple[str, ...], split: str, title: str
) -> None:
    assert workspace(tmp_path, "mds", *overrides).described(split) == title  # type: ignore[arg-type]


def test_the_title_of_a_table_has_the_split_of_its_pairs(tmp_path: Path) -> None:
    assert MDS.split(workspace(tmp_path, "mds", SYNTHETIC)) == "val"
    assert ABLATION.split(workspace(tmp_path, "ablation", SYNTHETIC)) == "all"
    assert ABLATION.split(workspace(tmp_path, "ablation", SYNTHETIC, "ablation.split=val")) == "val"


@pytest.mark.parametrize(
    ("overrides", "split"),
    [
        ((), "select"),
        (("dataset.select_fraction=0",), "val"),
        (("training.split=all",), "val"),
        (("training.validation=train",), "train"),
    ],
)
def test_training_is_stopped_on_pairs_that_are_not_reported(
    tmp_path: Path, overrides: tuple[str, ...], split: str
) -> None:
    assert workspace(tmp_path, "train", SYNTHETIC, *overrides).validation_split == split


def test_wrong_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="dataset.split=test is none of this dataset's: choose train, select, val, all"
    ):
        _ = workspace(tmp_path, "train", SYNTHETIC, "training.validation=test").validation_split


def test_drawingclip_is_fitted_on_the_training_side_of_the_split_in_use(tmp_path: Path) -> None:
    def fitted(*overrides: str) -> object:
        return workspace(tmp_path, "mds", EMOJI, RAW, *overrides).model.recipe()["split"]

    assert fitted() == {"seed": 0, "train": 0.7}
    assert fitted("dataset.split_seed=3", "dataset.train_fraction=0.5") == {"seed": 3, "train": 0.5}


def test_drawingclip_knows_what_it_was_fitted_on(tmp_path: Path) -> None:
    def fitted(*overrides: str) -> list[bool]:
        model = workspace(tmp_path, "mds", EMOJI, RAW, *overrides).model
        return [model.fitted_on(dataset) for dataset in ("openmoji", "icons", "drawings", "synthetic")]

    assert fitted() == [True, True, True, False]
    assert fitted("model.drawings=openmoji") == [True, False, True, False]
    with pytest.raises(ModelError, match="model.drawings=photos is unknown: choose one of openmoji, icons, drawings"):
        DrawingCLIP(name="drawingclip", drawings="photos")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["models/drawingclip", "towers"])
@pytest.mark.parametrize("name", ["drawingclip", "mine"])
def test_features_follow_the_versions_of_the_fit_and_of_the_towers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, name: str
) -> None:
    def recipe() -> dict[str, Any]:
        return workspace(tmp_path, "mds", EMOJI, RAW, f"model.name={name}").extraction("val").recipe(None)

    before = recipe()
    assert recipe() == before
    monkeypatch.setitem(VERSIONS, key, VERSIONS[key] + 1)  # type: ignore[arg-type]
    assert recipe() != before
