"""What holds over trainings, through the entrypoint, on a small store: against the analysis' own results and scipy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from scipy.stats import ttest_1samp

from mmmono.analyses import ANALYSES
from mmmono.analyses.consequences import CONSEQUENCES
from mmmono.analyses.trainings import TRAININGS
from mmmono.pipeline.analysis import Analysis
from mmmono.pipeline.results import ResultsOnDisk
from mmmono.pipeline.settings import CONF
from mmmono.pipeline.shared_settings import own_settings
from mmmono.pipeline.workspace import Workspace
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.objectives_store import store
from tests.pipeline.test_entrypoints import snapshot

FEW = ("consequences.n_random=2", "consequences.shares=[1.0]", "consequences.top=0", "partition=margin")
EACH = pytest.mark.parametrize("analysis", [a for a in ANALYSES if a.contrasts], ids=lambda analysis: analysis.name)


def killed_after(trainings: int, make: Callable[..., object]) -> Callable[..., object]:
    """`Analysis.make` that is interrupted before it has made so many results of consequences."""
    seeds: list[int] = []

    def interrupted(analysis: Analysis, workspace: Workspace) -> object:
        if analysis is CONSEQUENCES:
            if len(seeds) == trainings:
                raise KeyboardInterrupt
            seeds.append(workspace.seed)
        return make(analysis, workspace)

    return interrupted


@pytest.mark.slow
def test_a_conclusion_over_three_trainings(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that are there are used, of more feature sets too; what is lacking is made as its own command makes it."""
    monkeypatch.setattr("mmmono.analyses.consequences.figures.draw", lambda _: iter(()))  # they take most of the time
    given, root = (*store(tmp_path, 300), *FEW), tmp_path / "artifacts"
    assert command("consequences", *given, "features=[raw,sae]").status == 0
    with_raw = newest(root, "consequences")
    make = Analysis.make
    monkeypatch.setattr(Analysis, "make", killed_after(1, make))
    run = command("trainings", *given, "features=[raw,sae]", "trainings.n_seeds=2")
    assert run.status == 130
    assert "run the same command again to go on" in run.err
    monkeypatch.setattr(Analysis, "make", make)
    before = snapshot(root)
    run = command("trainings", *given, "features=[raw,sae]", "trainings.n_seeds=2")
    assert run.status == 0, run.err
    after = snapshot(root)
    assert before.items() <= after.items()
    found = {path for path in (root / "results").glob("consequences-*") if path.is_dir()}
    assert len(found) == 3  # of seed 0 with raw, of seeds 1 and 2 without
    own = command("consequences", *given, "features=sae", "seed=2")
    assert own.status == 0
    assert snapshot(root) == after

    effects = [pd.DataFrame(saved_rows(path, "effects")).query("feature_set == 'sae'") for path in sorted(found)]
    results = newest(root, "trainings")
    rows = pd.DataFrame(saved_rows(results, "contrasts"))
    assert set(rows.feature_set) == {"sae"}  # raw dimensions depend on no training
    assert set(rows.trainings) == {3}
    r1 = rows[rows.family == "measure=r1"]
    assert len(r1) == 6
    for row in r1.to_dict("records"):
        change, of = (part.partition("=")[2] for part in row["row"].split(", "))
        mine = [e[(e.change == change) & (e.of == of) & (e.like == "") & (e.measure == "r1")] for e in effects]
        values = np.array([one.delta_random.item() for one in mine])
        expected = ttest_1samp(values, 0)
        assert row["mean"] == pytest.approx(values.mean())
        assert (row["mean_low"], row["mean_high"]) == pytest.approx(tuple(expected.confidence_interval()))
        assert row["p"] == pytest.approx(expected.pvalue)
        assert (row["lowest"], row["highest"]) == (values.min(), values.max())
    ranked = r1.sort_values("p")
    assert ranked.p_holm.tolist() == pytest.approx(np.minimum(1, np.maximum.accumulate(ranked.p * np.arange(6, 0, -1))))
    assert set(r1.compared) == {6}
    values = pd.DataFrame(saved_rows(results, "values"))
    assert sorted(values.seed.unique()) == [0, 1, 2]
    assert len(values) == 3 * len(rows)
    stand = int((rows.p_holm <= 0.05).sum())
    said = " ".join(run.out.split())
    assert f"{stand} of {len(rows)} contrasts stand" in said
    assert "for these pairs and this fit of the model; other pairs are not covered" in said
    assert (results / "sae-trainings.png").exists()
    again = command("trainings", *given, "features=[raw,sae]", "trainings.n_seeds=2")
    assert run.out.endswith(again.out[again.out.index("What stands") :])
    assert snapshot(root) == after
    assert with_raw in found

    # What the report looks for.
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own = [setting for setting in given if not setting.startswith("consequences.")]
        there = Workspace(compose("report", [*own, "features=[raw,sae]"]), makes="none")
    latest = ResultsOnDisk(there).latest(TRAININGS)
    assert latest is not None
    assert latest.path == results


def test_one_training_says_nothing_about_others(command: Command, tmp_path: Path) -> None:
    given = ("dataset=synthetic", f"artifacts={tmp_path}")
    run = command("trainings", *given, "features=sae", "trainings.n_seeds=0")
    assert run.status == 1
    assert "trainings.n_seeds=0 must be at least 1: one training says nothing about others; n_seeds=4 gives" in run.err
    run = command("trainings", *given, "features=raw")
    assert run.status == 1
    assert "features=[raw] has no trained feature set" in run.err
    run = command("trainings", *given, "analysis=mds")
    assert run.status == 1
    assert "analysis=mds names no option: choose one of ablation, adversarial, consequences, gender, names" in run.err


def test_a_plan_lists_what_each_training_lacks(command: Command, tmp_path: Path) -> None:
    """As of `make plan FOR=trainings ARGS=analysis=gender`: the option brings a whole configuration, none of the plan's."""
    together = "trainings model=drawingclip dataset=openmoji"
    arguments = ["analysis=gender", "concept=age", "trainings.n_seeds=2", "gender.draws=3"]
    taken = own_settings("plan", arguments, CONF, together)
    assert taken == ["plan.more=['analysis=gender']", "concept=age", "+trainings.n_seeds=2", "+gender.draws=3"]
    assert own_settings("trainings", arguments, CONF, together) == arguments
    given = (
        "dataset=synthetic",
        "dataset.pairs=300",
        "dataset.dim=16",
        "features=sae",
        "features.k=3",
        f"artifacts={tmp_path}",
    )
    of = ("plan.targets=[trainings]", "plan.more=[analysis=steering]", "+trainings.n_seeds=1", "+steering.per_class=0")
    run = command("plan", *given, *of)
    assert run.status == 0, run.err
    for line in (
        "dictionary sae, seed 1",
        "results of steering, seed 0",
        "results of steering, seed 1",
        "results of trainings",
    ):
        assert line in run.out


def test_every_analysis_with_contrasts_can_be_chosen() -> None:
    assert {file.stem for file in (CONF / "analysis").glob("*.yaml")} == {a.name for a in ANALYSES if a.contrasts}


@EACH
def test_contrasts_are_of_tables_and_columns_that_there_are(analysis: Analysis) -> None:
    titles = [contrast.title for contrast in analysis.contrasts]
    assert len(set(titles)) == len(titles)
    for one in analysis.contrasts:
        named = {one.value, one.minus, one.requires, *one.of, *one.family, "feature_set"} - {""}
        assert named <= set(analysis.columns[one.table])
        assert not set(one.of) & set(one.family)
