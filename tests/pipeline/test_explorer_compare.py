"""The explorer of two models on the same pairs, through its entrypoint, against numpy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from mmmono.core.errors import ConfigError
from mmmono.features.synthetic import SyntheticParameters, synthesize
from mmmono.pipeline.changed_settings import changed_settings
from mmmono.pipeline.results import ResultsOnDisk
from mmmono.pipeline.settings import CONF
from mmmono.pipeline.workspace import Workspace
from tests.pipeline.conftest import Command, newest
from tests.pipeline.test_entrypoints import snapshot
from tests.pipeline.test_pages import cards, data

PAIRS, DIM = 300, 16
SIDES = ("image", "text")
FEW = (
    "explorer.thumbnails=false", "explorer.images=3", "explorer.texts=3", "explorer.neighbors=4", "explorer.map=none",
    "mds.min_pairs=3", "dataset.split=all", "training.split=all",
)  # fmt: skip


class TwoModels:
    """Embeddings of the same pairs by two models.

    The dimensions of the second are those of the first in another order, half of them with the other sign, and noise.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        pairs = synthesize(
            SyntheticParameters(pairs=PAIRS, dim=DIM, image_atoms=5, text_atoms=5, shared_atoms=6, active=3)
        )
        lopsided = rng.uniform(-0.2, 0.2, DIM)  # so that each dimension has a side with more energy
        self.one = [pairs.image.numpy() + lopsided, pairs.text.numpy() + lopsided]
        self.order = rng.permutation(DIM)
        self.sign = np.where(np.arange(DIM) % 2, -1.0, 1.0)
        self.other = [side[:, self.order] * self.sign + 0.02 * rng.standard_normal((PAIRS, DIM)) for side in self.one]
        for name, sides in (("one", self.one), ("other", self.other)):
            for side, rows in zip(SIDES, sides, strict=True):
                np.save(folder / f"{name}-{side}.npy", rows.astype(np.float32))
        self.rows = pd.DataFrame(
            {"key": [f"pair {i}" for i in range(PAIRS)], "caption": [f"thing {i}" for i in range(PAIRS)]}
        )
        self.rows.to_csv(folder / "rows.csv", index=False)

    def settings(self) -> tuple[str, ...]:
        return ("dataset=store", *self.files("one"), f"dataset.metadata={self.folder / 'rows.csv'}", "model.name=one")

    def files(self, name: str) -> tuple[str, ...]:
        return tuple(f"dataset.{side}={self.folder / f'{name}-{side}.npy'}" for side in SIDES)

    def compared(self, *changes: str) -> str:
        return f"explorer.compare=[{','.join(('model.name=other', *self.files('other'), *changes))}]"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> TwoModels:
    return TwoModels(tmp_path_factory.mktemp("two models"))


def oriented(sides: list[np.ndarray]) -> list[np.ndarray]:
    """Rows of unit length, with the sign of each dimension that gives its positive side more energy."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (side.astype(np.float32) for side in sides)]
    below, above = (sum((side**2 * (side * sign > 0)).sum(0) for side in unit) for sign in (-1, 1))
    return [side * np.where(below > above, -1, 1) for side in unit]


def centered(sides: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([side - side.mean(0) for side in sides]).astype(float)


def test_each_feature_has_its_counterpart_in_the_other_model(
    command: Command, models: TwoModels, tmp_path: Path
) -> None:
    common = (f"artifacts={tmp_path}", *models.settings(), *FEW, "features=[raw,random_rotation]")
    run = command("explorer", *common, models.compared("features=[raw]"))
    assert run.status == 0, run.err
    page = newest(tmp_path, "explorer")
    index = data(page, "index")
    assert [(info["name"], info["run"]) for info in index["sets"]] == [
        ("raw", 0),
        ("random_rotation", 0),
        ("raw of other", 1),
    ]
    assert index["title"] == "one on store (all, in-sample) and other on store (all)"
    found = data(page, "raw/counterparts")["raw of other"]
    back = data(page, "raw of other/counterparts")["raw"]
    one, other = (centered(oriented(sides)) for sides in (models.one, models.other))
    r = np.corrcoef(one, other, rowvar=False)[:DIM, DIM:]
    assert found["feature"] == r.argmax(1).tolist() == np.argsort(models.order).tolist()
    assert back["feature"] == r.argmax(0).tolist() == models.order.tolist()
    np.testing.assert_allclose(found["r"], r.max(1), atol=1e-3)
    assert min(found["r"]) > 0.9 > 0.4 > found["chance"] > 0
    # Scores and classes are those of each model alone.
    for name, own in (("raw", models.one), ("raw of other", models.other)):
        image, text = (np.abs(side) for side in oriented(own))
        np.testing.assert_allclose(data(page, f"{name}/table")["mds"], (image / (image + text)).mean(0), rtol=1e-3)
    assert data(page, "random_rotation/counterparts").keys() == {"raw", "raw of other"}

    before = snapshot(tmp_path)
    assert command("explorer", *common, models.compared("features=raw")).status == 0  # the same, said otherwise
    assert snapshot(tmp_path) == before
    assert command("explorer", *common).status == 0
    assert [info["name"] for info in data(newest(tmp_path, "explorer"), "index")["sets"]] == ["raw", "random_rotation"]


@pytest.mark.parametrize("side", ["dominant", "positive"])
def test_co_firing_and_shares_are_of_the_side_that_the_top_samples_are_of(
    command: Command, models: TwoModels, tmp_path: Path, side: str
) -> None:
    run = command(
        "explorer", f"artifacts={tmp_path}", *models.settings(), *FEW, "features=raw", f"explorer.side={side}"
    )  # fmt: skip
    assert run.status == 0, run.err
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in models.one]
    assert sum((np.sign(a) != np.sign(b)).any() for a, b in zip(unit[0].T, oriented(models.one)[0].T, strict=True)) > 2
    active = [rows > 0 for rows in (oriented(models.one) if side == "dominant" else unit)]
    phi = np.corrcoef(centered([rows.astype(float) for rows in active]), rowvar=False)
    np.fill_diagonal(phi, -1)
    page = newest(tmp_path, "explorer")
    table = data(page, "raw/table")
    for modality, rows in zip(SIDES, active, strict=True):
        np.testing.assert_allclose(table[modality], rows.mean(0), rtol=1e-3)
    for feature, card in enumerate(cards(page, "raw")):
        order = np.argsort(-phi[feature], kind="stable")[:4]
        expected = [other for other in order if phi[feature, other] > 0]
        assert [other for other, _ in card["together"]] == expected
        np.testing.assert_allclose([value for _, value in card["together"]], phi[feature, expected], atol=1e-3)
        if side == "dominant":
            assert all((value < 0) == (card["images"][0][1] < 0) for _, value, _ in card["images"] + card["texts"])


def test_a_compared_run_may_have_another_seed(command: Command, models: TwoModels, tmp_path: Path) -> None:
    given = (f"artifacts={tmp_path}", *models.settings(), *FEW, "features=random_rotation")
    run = command("explorer", *given, "explorer.compare=[seed=1]")
    assert run.status == 0, run.err
    index = data(newest(tmp_path, "explorer"), "index")
    assert [info["name"] for info in index["sets"]] == ["random_rotation", "random_rotation with seed=1"]
    assert index["title"].endswith(" and the same with seed=1")
    assert len(list((tmp_path / "dictionaries").glob("random_rotation-*/recipe.json"))) == 2


def test_pairs_without_keys_are_the_same_by_their_captions(command: Command, models: TwoModels, tmp_path: Path) -> None:
    keyless, wordless = tmp_path / "keyless.csv", tmp_path / "wordless.csv"
    models.rows[["caption"]].to_csv(keyless, index=False)
    models.rows[["key"]].to_csv(wordless, index=False)
    common = (f"artifacts={tmp_path}", *models.settings(), *FEW, "features=[raw]")
    run = command("explorer", *common, models.compared(f"dataset.metadata={keyless}"))
    assert run.status == 0, run.err
    run = command("explorer", *common, models.compared(f"dataset.metadata={wordless}"))
    assert run.status == 1
    assert "pairs of other on store (all) have no captions, by which they are compared" in run.err


def test_other_pairs_are_one_clear_line(command: Command, models: TwoModels, tmp_path: Path) -> None:
    fewer, shuffled, recaptioned = (tmp_path / f"{name}.csv" for name in ("fewer", "shuffled", "recaptioned"))
    models.rows.assign(key=[f"pair {i + 100}" for i in range(PAIRS)]).to_csv(fewer, index=False)
    models.rows.iloc[::-1].to_csv(shuffled, index=False)
    models.rows.assign(caption="thing").to_csv(recaptioned, index=False)
    for changes, message in (
        (["dataset.split=val", "training.split=train"], "in common, by key and caption, but must be the same"),
        (
            [f"dataset.metadata={fewer}"],
            "300 pairs of one on store (all) and 300 of other on store (all) have 0",
        ),
        ([f"dataset.metadata={shuffled}"], "are the same in another order: sort the rows of one store as the other's"),
        ([f"dataset.metadata={recaptioned}"], "have 0 in common, by key and caption"),
        (["dataset.modalities=[audio,text]"], "image-text pairs of one on store (all) cannot be compared"),
    ):
        run = command(
            "explorer", f"artifacts={tmp_path}", *models.settings(), *FEW, "features=raw", models.compared(*changes)
        )
        [line] = [line for line in run.err.splitlines() if line.startswith("error:")]
        assert run.status == 1
        assert line.startswith("error: explorer.compare: ")
        assert message in line
    assert not (tmp_path / "dictionaries").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("raw", "explorer.compare=raw must be a list, such as explorer.compare=[raw]"),
        ("[raw]", "explorer.compare has 'raw', which changes no setting"),
        ("[model=clop]", "explorer.compare: model=clop names no option: choose one of clip_rn50,"),
        ("[features.kay=3]", "explorer.compare: no setting is called 'features.kay', did you mean"),
        ("[seed=-1]", "explorer.compare: seed=-1 must be a whole number"),
        ("[dataset=table]", "explorer.compare: dataset.path needs a value: add dataset.path=... to the list"),
        ("[artifacts=/elsewhere]", "both runs share artifacts: give it outside of the list"),
        ("[explorer.images=3]", "both runs share explorer.images: give it outside of the list"),
    ],
)
def test_bad_changes_are_one_clear_line(
    command: Command, models: TwoModels, tmp_path: Path, changes: str, message: str
) -> None:
    run = command(
        "explorer", f"artifacts={tmp_path}", *models.settings(), *FEW, "features=raw", f"explorer.compare={changes}"
    )  # fmt: skip
    [line] = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1
    assert message in line
    assert not (tmp_path / "features").exists()  # before any work


@pytest.fixture
def hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
    HydraConfig.instance().cfg = None


def test_what_a_changed_run_keeps(hydra: None) -> None:
    """What this run was given holds there, but for what belongs to an option that is changed or a set that it lacks."""
    given = ["model=open_clip", "model.name=mine", "model.architecture=RN50", "dataset=synthetic", "dataset.pairs=700",
             "features=[raw,sae]", "sae.lr=0.5", "features.k=3", "seed=4", "explorer.images=2"]  # fmt: skip
    HydraConfig.instance().set_config(compose("explorer", given, return_hydra_config=True))
    cfg = changed_settings("explorer", "explorer.compare", ["model=clip_rn50", "features=[ncl]", "mds.min_pairs=2"])
    assert (cfg.model.name, cfg.dataset.pairs, cfg.seed, cfg.mds.min_pairs) == ("clip_rn50", 700, 4, 2)
    assert list(cfg.features.sets) == ["ncl"]
    assert "sae" not in cfg
    cfg = changed_settings("explorer", "explorer.compare", ["dataset.pairs=800"])
    assert (cfg.model.name, cfg.dataset.pairs, cfg.features.k, cfg.sae.lr) == ("mine", 800, 3, 0.5)
    assert cfg.explorer.images == 12  # the page's own settings are this run's
    with pytest.raises(ConfigError, match="no setting is called 'sae.lr' here"):
        changed_settings("explorer", "explorer.compare", ["features=[ncl]", "sae.lr=1"])


MINE = """\
# @package _global_
defaults:
  - override /dataset: synthetic
  - override /features: matryoshka
seed: 5
dataset: {pairs: 700}
"""


def test_a_changed_run_finds_options_of_ones_own(hydra: None, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(MINE)
    given = [f"hydra.searchpath=[file://{tmp_path}]", "+experiment=mine", "features.k=3", "matryoshka.lr=0.5"]
    HydraConfig.instance().set_config(compose("explorer", given, return_hydra_config=True))
    cfg = changed_settings("explorer", "explorer.compare", ["model.name=other"])
    assert list(cfg.features.sets) == ["matryoshka"]
    assert (cfg.model.name, cfg.dataset.pairs, cfg.seed) == ("other", 700, 5)
    assert (cfg.features.k, cfg.matryoshka.lr) == (3, 0.5)


def test_a_changed_run_keeps_what_a_configuration_of_ones_own_says(
    command: Command, models: TwoModels, tmp_path: Path
) -> None:
    """`-cn mine`: the other run is of the same file, though its settings are not on the command line."""
    settings = "\n".join(f"  {setting.removeprefix('dataset.').replace('=', ': ')}" for setting in models.files("one"))
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - explorer\n  - override dataset: store\n  - override features: raw\n  - _self_\n"
        f"dataset:\n{settings}\n  metadata: {models.folder / 'rows.csv'}\n"
    )
    run = command(
        "explorer", "--config-dir", str(tmp_path), "-cn", "mine", f"artifacts={tmp_path}", *FEW,
        f"explorer.compare=[{','.join(models.files('other'))}]",
    )  # fmt: skip
    assert run.status == 0, run.err
    recipe = json.loads((newest(tmp_path, "explorer") / "recipe.json").read_text())
    [compared] = recipe["compared"]
    assert compared["features"]["store"] != recipe["features"]["store"]


def test_without_a_command_line_there_is_nothing_to_change() -> None:
    HydraConfig.instance().cfg = None
    with pytest.raises(ConfigError, match="use it with experiments/explorer.py"):
        changed_settings("explorer", "explorer.compare", ["seed=1"])


def test_the_recipe_of_a_page_has_both_runs(command: Command, models: TwoModels, tmp_path: Path) -> None:
    command("explorer", f"artifacts={tmp_path}", *models.settings(), *FEW, "features=raw", models.compared())
    recipe = json.loads((newest(tmp_path, "explorer") / "recipe.json").read_text())
    [compared] = recipe["compared"]
    assert compared["called"] == " of other"
    assert compared["features"]["store"] != recipe["features"]["store"]
    assert "compare" not in recipe["explorer"]


def test_a_page_of_two_runs_is_not_of_other_feature_sets(command: Command, models: TwoModels, tmp_path: Path) -> None:
    few = [setting for setting in FEW if not setting.startswith("explorer.")]
    given = [f"artifacts={tmp_path}", *models.settings(), *few]
    command("explorer", *given, *FEW, "features=raw", models.compared())
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own, other = (
            ResultsOnDisk(Workspace(compose("mds", [*given, f"features={name}"]), makes="results"))
            for name in ("raw", "random_rotation")
        )
    page = own.page("explorer")
    assert page is not None
    assert other.page("explorer") is None
    assert other.differences(page) == ["with features=raw"]
