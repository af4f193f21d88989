"""Commands that a report names for what it lacks."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from mmmono.analyses import ANALYSES
from mmmono.analyses.adversarial import ADVERSARIAL
from mmmono.analyses.consensus import CONSENSUS
from mmmono.analyses.gender import GENDER
from mmmono.analyses.mds import MDS
from mmmono.analyses.objectives import OBJECTIVES
from mmmono.analyses.steered_images import STEERED_IMAGES
from mmmono.commands.selection import Selection, default_sets
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.settings import CONF

PCA = Selection({"dataset": "drawings"}, ["pca"], ["mds.min_pairs=20"])


def test_results_of_the_command_belong_to_the_report() -> None:
    assert PCA.command(MDS) == "make section-2.1 DATASET=drawings FEATURES=pca ARGS=mds.min_pairs=20"
    some = Selection({}, ["raw", "sae"])
    assert some.command(MDS) == "make section-2.1 FEATURES='[raw,sae]'"
    assert some.command(CONSENSUS, ["sae"]) == "make consensus FEATURES=sae"
    assert some.command(GENDER) == "make section-4.1", "it is of sae alone"
    assert PCA.command(OBJECTIVES) == "make objectives DATASET=drawings ARGS=mds.min_pairs=20", "its own choice"
    assert Selection({}).command(MDS) == "make section-2.1"


def test_an_entrypoint_without_a_target_is_called_by_overrides() -> None:
    found = PCA.command(STEERED_IMAGES)
    assert found == "python experiments/steered_images.py dataset=drawings features=pca mds.min_pairs=20"
    both = Selection({}, ["raw", "pca"]).command(STEERED_IMAGES)
    assert both == "python experiments/steered_images.py 'features=[raw,pca]'"


@pytest.mark.parametrize("analysis", [a for a in ANALYSES if a.of_features], ids=lambda analysis: analysis.name)
def test_default_feature_sets_are_those_of_the_configuration(analysis: Analysis) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(analysis.name, [f"features={analysis.features}"] if analysis.features else [])
    assert default_sets(analysis) == set(cfg.features.sets)


@pytest.fixture
def within_a_command() -> Iterator[None]:
    """Hydra as it is while a report is made."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        HydraConfig.instance().set_config(compose("report", return_hydra_config=True))
        yield
    HydraConfig.instance().cfg = None


@pytest.mark.usefixtures("within_a_command")
def test_a_command_has_the_settings_that_its_entrypoint_has() -> None:
    settings = ["dataset.root=/my coco", "ncl.expansion=0.5", "mds.min_pairs=3", "explorer.map=none", "artifacts=/a"]
    coco = Selection({"dataset": "coco"}, ["raw", "ncl"], settings)
    assert coco.command(STEERED_IMAGES) == (
        "python experiments/steered_images.py dataset=coco 'features=[raw,ncl]' 'dataset.root=/my coco' ncl.expansion=0.5 "
        "mds.min_pairs=3 artifacts=/a"
    )
    assert coco.command(ADVERSARIAL) == (
        """make section-4.2 DATASET=coco ARGS=''"'"'dataset.root=/my coco'"'"' mds.min_pairs=3 artifacts=/a'"""
    ), "which takes raw features alone"
    assert "explorer.map=none" in coco.arguments("explorer")


@pytest.mark.usefixtures("within_a_command")
def test_without_settings_no_configuration_is_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which each takes a tenth of a second, and a report names some twenty commands."""
    monkeypatch.setattr("mmmono.commands.selection.settings_it_has", None)
    assert Selection({"dataset": "coco"}, ["pca"]).command(MDS) == "make section-2.1 DATASET=coco FEATURES=pca"


def test_commands_find_options_of_ones_own(within_a_command: None, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    given = [f"hydra.searchpath=[file://{tmp_path}]", "+experiment=mine"]
    HydraConfig.instance().set_config(compose("report", given, return_hydra_config=True))
    target, name, arguments = Selection.given(["raw"]).command(MDS).split(" ", 2)
    assert (target, name) == ("make", "section-2.1")
    [words] = shlex.split(arguments.removeprefix("ARGS="))
    assert shlex.split(words) == given
