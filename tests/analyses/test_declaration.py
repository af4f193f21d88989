"""What every analysis declares, and that nothing else lists them."""

import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from string import Formatter
from typing import get_type_hints

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mmmono.analyses import ANALYSES
from mmmono.analyses.mds import MDS
from mmmono.commands.explorer.command import ExplorerSettings
from mmmono.commands.plan.command import PlanSettings
from mmmono.commands.wandb_workspace import panel_groups
from mmmono.core.artifacts import Artifact
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.partition_rules import CountsRule, MarginRule, PartitionRule, SigmaRule
from mmmono.pipeline.running import CONF
from mmmono.pipeline.scoring import ScoreSettings
from mmmono.pipeline.training_settings import TrainingSettings
from mmmono.pipeline.workspace_settings import ExtractionSection, FeatureSettings, ImageSettings
from mmmono.reporting.drawn import DRAWN_FILE
from mmmono.reporting.published import published
from mmmono.reporting.tables import save_table
from tests.pipeline.conftest import REPOSITORY

EACH = pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.name)
SHARED = ("defaults", "random_sets", "help", "hydra")  # keys of a configuration that are not of one analysis
SPELLING = re.compile(r"(ImgD|TextD|CrossD|[a-z][a-z0-9]*)(_[a-z0-9]+)*")


def test_the_registry_is_in_the_papers_order() -> None:
    numbered = [analysis.section for analysis in ANALYSES if analysis.section[:1].isdigit()]
    assert numbered == ["2.1", "2.2", "2.3", "3.1, A.1", "3.2", "4.1", "4.2", "4.3"]
    assert [bool(analysis.section[:1].isdigit()) for analysis in ANALYSES] == sorted(
        (bool(analysis.section[:1].isdigit()) for analysis in ANALYSES), reverse=True
    )


@EACH
def test_a_name_is_the_same_everywhere(analysis: Analysis) -> None:
    assert (CONF / f"{analysis.name}.yaml").exists()
    assert (REPOSITORY / "experiments" / f"{analysis.name}.py").exists()
    assert (REPOSITORY / "mmmono" / "analyses" / analysis.name / "analysis.py").exists()
    if analysis.paper_setting is not None:
        preset = CONF / "paper" / f"{analysis.paper_setting.option}.yaml"
        assert f"experiments/{analysis.name}.py +paper={analysis.paper_setting.option}" in preset.read_text()
    if analysis.published is not None:
        assert published(analysis.published).rows


@EACH
def test_settings_are_those_of_the_configuration(analysis: Analysis) -> None:
    file = OmegaConf.load(CONF / f"{analysis.name}.yaml")
    assert isinstance(file, DictConfig)
    if analysis.settings is None:
        assert analysis.name not in file
    elif analysis.name in file:
        same_names(analysis.settings, file[analysis.name])
    else:  # settings in no section: those of the file that no other analysis has
        same_names(analysis.settings, OmegaConf.masked_copy(file, [key for key in file if key not in SHARED]))


def same_names(settings: type, section: DictConfig) -> None:
    """The fields of a dataclass, and of those in it, have the names of a section of the configuration."""
    types = get_type_hints(settings)
    assert {field.name for field in fields(settings)} == set(section)
    for name, value in section.items():
        if isinstance(types[name], type) and is_dataclass(types[name]):
            same_names(types[name], value)


@pytest.mark.parametrize(
    ("file", "name", "settings", "others"),
    [
        ("common", "extraction", ExtractionSection, ()),
        ("common", "images", ImageSettings, ()),
        ("features/raw", "features", FeatureSettings, ("sets", "center")),  # feature sets have these as options
        ("training/default", "", TrainingSettings, ()),
        ("scores", "mds", ScoreSettings, ()),
    ],
)
def test_shared_settings_are_those_of_the_configuration(
    file: str, name: str, settings: type, others: tuple[str, ...]
) -> None:
    section = OmegaConf.load(CONF / f"{file}.yaml")
    assert {field.name for field in fields(settings)} == set(section[name] if name else section) - set(others)


@pytest.mark.parametrize(("name", "settings"), [("plan", PlanSettings), ("explorer", ExplorerSettings)])
def test_settings_of_commands_are_those_of_their_configuration(name: str, settings: type) -> None:
    same_names(settings, OmegaConf.load(CONF / f"{name}.yaml")[name])


@pytest.mark.parametrize("rule", [SigmaRule, MarginRule, CountsRule])
def test_partition_rules_are_those_of_the_configuration(rule: type[PartitionRule]) -> None:
    option = OmegaConf.load(CONF / "partition" / f"{rule.name}.yaml")
    assert {field.name for field in fields(rule)} == set(option) - {"_target_"}
    assert isinstance(instantiate(option), rule)


@EACH
def test_columns_are_explained_and_have_one_spelling(analysis: Analysis) -> None:
    assert analysis.columns
    for table, columns in analysis.columns.items():
        for column, meaning in columns.items():
            assert meaning[:1].strip(), (table, column)
            assert analysis.kind == "dictionaries" or SPELLING.fullmatch(column), (table, column)


@EACH
def test_every_figure_has_a_caption_and_can_be_drawn_or_is_made_with_the_result(analysis: Analysis) -> None:
    for view in analysis.figures:
        fields = {field for _, field, _, _ in Formatter().parse(view.name) if field}
        assert view.caption.endswith((".", "}")), view.caption
        assert set(view.values) <= fields


@EACH
def test_a_declaration_imports_nothing_heavy(analysis: Analysis) -> None:
    heavy = ("torch", "lightning", "matplotlib", "sklearn", "transformers", "open_clip", "scipy")
    code = f"import sys, mmmono.analyses.{analysis.name}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert run.stdout.strip() == "[]"


def test_wandb_has_a_group_of_panels_for_each() -> None:
    groups = panel_groups()
    assert len(groups) == len(ANALYSES)
    assert all(group.figures or group.tables for group in groups)


# Files that know another analysis, and why. Everything else that knows it is its own, the registry, docs or tests.
ELSEWHERE = {
    "Makefile": {
        "sweep",
        "train",
        "validate",
    },  # targets that run something else than one analysis on one model
    "benchmarks/gpu.py": {"train"},  # what is measured
    "conf/hparams_search/ncl.yaml": {"train"},  # searches of the entrypoint
    "conf/hparams_search/sae.yaml": {"train"},
    "conf/hparams_search/sae_pareto.yaml": {"train"},
    "mmmono/analyses/certainty/__init__.py": {"mds"},  # tables that begin with the columns of the scores
    "mmmono/analyses/objectives_synthetic/runs.py": {"objectives"},  # a remedy in a message
    "mmmono/analyses/sharedness/__init__.py": {"mds"},
    "mmmono/analyses/steered_answers/naming.py": {"names"},  # what features are called
    "mmmono/analyses/sweep/__init__.py": {"interpretability"},  # reads the Mono of each dictionary from its results
    "mmmono/analyses/sweep/analysis.py": {"interpretability", "train"},
    "mmmono/commands/explorer/results.py": {
        "certainty",
        "consensus",
        "interpretability",
        "names",
        "sharedness",
    },  # shows their scores
    "mmmono/commands/explorer/command.py": {"sharedness"},  # says how to have it
    "mmmono/commands/explorer/page.py": {"mds", "consensus", "sharedness"},
    "mmmono/commands/publish/card.py": {"interpretability", "mds"},  # a tag, and an example of a command
    "mmmono/commands/publish/command.py": {"train"},  # its metrics at the last validation
    "mmmono/dictionaries/base.py": {"train"},  # remedies in messages
    "mmmono/features/feature_set.py": {"train"},
    "mmmono/pipeline/cli.py": {"mds"},
    "mmmono/pipeline/running.py": {"train"},
    "mmmono/pipeline/generators.py": {"mds"},
}
OWN = ("mmmono/analyses/{}/", "conf/{}.yaml", "conf/paper/", "experiments/{}.py", "mmmono/analyses/__init__.py")
VERBS = {"train", "sweep", "validate"}  # also a split, a make target and a section of settings
SCORES = {"mds", "sharedness", "consensus"}  # also columns of tables


def project_files() -> dict[str, str]:
    """Text of all files of the project that are no documentation and no test, by path."""
    folders = [REPOSITORY / name for name in ("mmmono", "conf", "experiments", "benchmarks")]
    files = [REPOSITORY / "Makefile", *(path for folder in folders for path in sorted(folder.rglob("*.*")))]
    kept = [path for path in files if path.suffix in ("", ".py", ".yaml", ".js", ".html")]
    return {path.relative_to(REPOSITORY).as_posix(): path.read_text() for path in kept}


def test_an_analysis_is_known_to_its_own_files_the_registry_and_docs_alone() -> None:
    """Others neither import it nor run it, except those listed above; common code has its name in no string either."""
    known: dict[str, set[str]] = {}
    for file, text in project_files().items():
        for name in (analysis.name for analysis in ANALYSES):
            if file.startswith(tuple(own.format(name) for own in OWN)):
                continue
            used = re.search(rf"analyses[./]{name}\b|experiments/{name}\.py|\bmake {name}\b", text)
            listed = file.startswith(("Makefile", "conf/plan.yaml", "mmmono/commands/")) and name not in VERBS
            listed |= file.startswith(("mmmono/pipeline/", "mmmono/reporting/")) and name not in {*VERBS, *SCORES}
            if used or (listed and re.search(rf"[\"']{name}[\"']", text)):
                known.setdefault(file, set()).add(name)
    assert known == ELSEWHERE


def test_figures_of_an_earlier_drawing_are_drawn_again_and_nothing_is_computed(tmp_path: Path) -> None:
    scores = [
        {"feature_set": "raw", "feature": i, "class": of, "mds": mds}
        for i, (of, mds) in enumerate((("ImgD", 0.8), ("TextD", 0.3), ("CrossD", 0.5)))
    ]
    save_table(scores, tmp_path / "scores", list(MDS.columns["scores"]))
    save_table(
        [{"feature_set": "raw", "groups": 9, "effective_groups": 9, "null_std": 0.1}],
        tmp_path / "summary",
        list(MDS.columns["summary"]),
    )
    artifact = Artifact(tmp_path, {"version": MDS.version}, built=False)
    MDS.result(artifact, "model", "data")
    assert not (tmp_path / "mds.png").exists()  # it has no record of a drawing, as while it is made
    (tmp_path / DRAWN_FILE).write_text(json.dumps({**MDS.drawn, "version": MDS.drawing - 1}))
    before = (tmp_path / "scores.parquet").read_bytes()
    result = MDS.result(artifact, "model", "data")
    assert (result.folder / "mds.png").stat().st_size > 1000
    assert json.loads((tmp_path / DRAWN_FILE).read_text()) == MDS.drawn
    assert (tmp_path / "scores.parquet").read_bytes() == before
    (tmp_path / "mds.png").unlink()
    MDS.result(artifact, "model", "data")
    assert not (tmp_path / "mds.png").exists()  # drawn by this version already
