"""Commands that a report names for what it lacks."""

import html
import re
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
from tests.pipeline.conftest import Command, newest

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


def test_commands_have_the_settings_of_a_file_of_ones_own(command: Command, tmp_path: Path) -> None:
    """`-cn mine`, which no other entrypoint reads; what the command line says counts more."""
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - report\n  - override dataset: synthetic\n  - override features: pca\n  - _self_\n"
        f"seed: 3\nmds:\n  min_pairs: 5\ndataset:\n  pairs: 400\n  dim: 16\nartifacts: {tmp_path}/my artifacts\n"
    )
    where = ["dataset=synthetic", "dataset.pairs=400", "dataset.dim=16", f"artifacts={tmp_path}/my artifacts"]
    assert command("extract", *where).status == 0
    run = command("report", "--config-dir", str(tmp_path), "-cn", "mine", "mds.undefined=skip", "seed=4")
    assert run.status == 0, run.err
    assert "make section-2.1 DATASET=synthetic FEATURES=pca …" in run.out
    assert "commands that end in … are whole on the page" in run.out
    page = html.unescape((newest(tmp_path / "my artifacts", "report") / "index.html").read_text())
    found = re.search(r"make section-2\.1 DATASET=synthetic FEATURES=pca (ARGS=.*?)</code>", page)
    assert found is not None
    [words] = shlex.split(found[1].removeprefix("ARGS="))
    given = shlex.split(words)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("mds", [*given, "dataset=synthetic", "features=pca"])
    assert (cfg.seed, cfg.mds.min_pairs, cfg.dataset.pairs, cfg.dataset.dim) == (4, 5, 400, 16)
    assert cfg.artifacts == f"{tmp_path}/my artifacts"


def test_commands_find_options_of_ones_own(within_a_command: None, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    given = [f"hydra.searchpath=[file://{tmp_path}]", "+experiment=mine"]
    HydraConfig.instance().set_config(compose("report", given, return_hydra_config=True))
    target, name, arguments = Selection.given(["raw"]).command(MDS).split(" ", 2)
    assert (target, name) == ("make", "section-2.1")
    [words] = shlex.split(arguments.removeprefix("ARGS="))
    assert shlex.split(words) == given
