"""Objectives on a store's pairs over seeds, through the entrypoint: numbers, tables, figures, the report, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student
from scipy.stats import ttest_1samp
from sklearn.metrics import r2_score

from mmmono.analyses.objectives import OBJECTIVES
from mmmono.analyses.objectives.analysis import between_seeds
from mmmono.core.modality_names import ModalityNames
from mmmono.dictionaries import Dictionary
from mmmono.modality.seed_agreement import corrected_correlation
from mmmono.pipeline.analysis import shown_figures, shown_tables
from mmmono.pipeline.workspace import Workspace
from mmmono.reporting.result import Result
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.objectives_store import OWN, SAE, classified, halves, held_out, recall, root_of, store
from tests.pipeline.test_entrypoints import snapshot


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def results(given: tuple[str, ...], command: Command) -> Path:
    """Results of two seeds of two objectives, computed once."""
    run = command("objectives", *given, *OWN)
    assert run.status == 0, run.err
    return newest(root_of(given), "objectives")


@pytest.mark.slow
def test_numbers_of_a_seed_are_those_of_numpy(results: Path, given: tuple[str, ...]) -> None:
    rows = pd.DataFrame(saved_rows(results, "seeds"))
    assert list(zip(rows.feature_set, rows.seed, strict=True)) == [
        ("raw", 0), ("sae", 0), ("sae", 1), ("infonce", 0), ("infonce", 1)
    ]  # fmt: skip
    z = held_out(root_of(given))
    removed = pd.DataFrame(saved_rows(results, "removals")).set_index(["feature_set", "seed", "of"])
    for folder in root_of(given).glob("dictionaries/*/"):
        recipe = json.loads((folder / "recipe.json").read_text())
        [row] = rows[(rows.feature_set == recipe["kind"]) & (rows.seed == recipe["seed"])].to_dict("records")
        dictionary = Dictionary.from_pretrained(folder)
        with torch.no_grad():
            codes = [dictionary.encode(side, m) for side, m in zip(z, ("image", "text"), strict=True)]  # type: ignore[arg-type]
            decoded = [dictionary.decode(c, m).numpy() for c, m in zip(codes, ("image", "text"), strict=True)]  # type: ignore[attr-defined]
        fvu = [1 - r2_score(x, y, multioutput="variance_weighted") for x, y in zip(z, decoded, strict=True)]
        both = np.concatenate([c.numpy() for c in codes])
        assert row["fvu"] == pytest.approx(np.mean(fvu), abs=1e-5)
        assert row["l0"] == pytest.approx((both != 0).sum(1).mean())
        assert row["dead"] == pytest.approx(1 - (both != 0).any(0).mean())
        assert row["codes_r1"] == pytest.approx(recall(codes[0].numpy(), codes[1].numpy()), abs=1e-6)
        assert row["r1"] == pytest.approx(recall(*decoded), abs=1e-6)
        scores, classes = classified(*codes)
        live = torch.stack(list(classes.values())).any(0)
        assert row["live"] == live.sum()
        assert row["spread"] == pytest.approx(scores[live].std(correction=0).item(), abs=1e-5)
        assert row["chance_spread"] < row["spread"]
        for of, members in classes.items():
            assert row[f"{of}_share"] == pytest.approx(members.sum().item() / live.sum().item())
        first, rest = halves(len(z[0]))
        coded = [side[rest] for side in codes]
        with torch.no_grad():
            before = [dictionary.decode(c, m) for c, m in zip(coded, ("image", "text"), strict=True)]  # type: ignore[attr-defined, arg-type]
        for of, members in classified(*(side[first] for side in codes))[1].items():
            if members.any():
                with torch.no_grad():
                    kept = [dictionary.decode(c * ~members, m) for c, m in zip(coded, ("image", "text"), strict=True)]  # type: ignore[attr-defined, arg-type]
                found = removed.loc[(recipe["kind"], recipe["seed"], of)]
                assert found.features == members.sum()
                assert found.before_r1 == pytest.approx(recall(*(side.numpy() for side in before)), abs=1e-6)
                assert found.r1 == pytest.approx(recall(*(side.numpy() for side in kept)), abs=1e-6)
                assert found.change_r1 == pytest.approx(found.r1 - found.before_r1)
                assert found.beyond_r1 == pytest.approx(found.change_r1 - found.random_change_r1)
    raw = rows[rows.feature_set == "raw"].iloc[0]
    assert (raw.fvu, raw.r1) == (
        pytest.approx(0, abs=1e-9),
        pytest.approx(recall(*(side.numpy() for side in z)), abs=1e-6),
    )
    assert rows[["zero_shot", "codes_zero_shot"]].isna().all(None)


@pytest.mark.slow
def test_other_analyses_find_the_same(results: Path, given: tuple[str, ...], command: Command) -> None:
    """Sharedness and consensus, asked for the dictionaries of one objective."""
    mine = {name: pd.DataFrame(saved_rows(results, name)) for name in ("seeds", "agreement")}
    for seed in (0, 1):
        assert command("sharedness", *given, *SAE, f"seed={seed}").status == 0
        [live] = [row for row in saved_rows(newest(root_of(given), "sharedness"), "summary") if row["class"] == "live"]
        row = mine["seeds"].query(f"feature_set == 'sae' and seed == {seed}").iloc[0]
        assert (row.shared, row.live) == (live["shared"], live["features"])
    few = ("consensus.n_seeds=1", "consensus.n_chance=2", "consensus.n_bootstrap=20")
    assert command("consensus", *given, *SAE, *few).status == 0
    [agreed] = saved_rows(newest(root_of(given), "consensus"), "summary")
    [row] = mine["agreement"].query("feature_set == 'sae'").to_dict("records")
    for name in ("rho", "chance_rho", "ari", "chance_ari"):
        assert np.isfinite(row[name])
        assert row[name] == pytest.approx(agreed[name]), name
    summary = pd.DataFrame(saved_rows(results, "summary")).query("feature_set == 'sae' and measure == 'stability'")
    assert np.isfinite(agreed["corrected_rho"])
    assert summary["mean"].tolist() == pytest.approx([agreed["corrected_rho"]])


@pytest.mark.slow
def test_summary_tables_figures_and_report(results: Path, given: tuple[str, ...], command: Command) -> None:
    rows, summary = (pd.DataFrame(saved_rows(results, name)) for name in ("seeds", "summary"))
    values = rows[rows.feature_set == "infonce"].fvu
    cell = summary.query("feature_set == 'infonce' and measure == 'fvu'").iloc[0]
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert cell[["mean", "mean_low", "mean_high"]].tolist() == pytest.approx([values.mean(), low, high])
    assert cell.seeds == 2
    assert summary[summary.feature_set == "raw"].mean_low.isna().all()  # nothing about it is random
    result = Result(results, json.loads((results / "recipe.json").read_text()))
    assert {path.stem for path, _ in shown_figures(OBJECTIVES, result)} == {"objectives", "objectives-classes"}
    tables = {name: (title, table) for name, title, table in shown_tables(OBJECTIVES, result)}
    assert list(tables) == [f"objectives{end}" for end in ("", "-dominance", "-stability", "-retrieval", "-classes")]
    title, latents = tables["objectives"]
    assert title == "Latents of each objective, 2 seeds (shared: q ≤ 0.05)"
    assert [row["feature set"] for row in latents] == ["raw", "sae", "infonce"]
    assert latents[1]["FVU"].startswith(f"{rows[rows.feature_set == 'sae'].fvu.mean():.3f} ± ")
    assert tables["objectives-retrieval"][1][0]["R@1"] == f"{rows.r1[0]:.3f}"
    dominance = tables["objectives-dominance"][1][1]
    assert dominance["CrossD %"].startswith(f"{100 * rows[rows.feature_set == 'sae'].CrossD_share.mean():.0f} ± ")
    assert dominance["by chance"] == f"{rows[rows.feature_set == 'sae'].chance_spread.mean():.3f}"
    assert [row["feature set"] for row in tables["objectives-stability"][1]] == ["sae", "infonce"]
    assert {row["feature set"] for row in tables["objectives-classes"][1]} == {"raw", "sae", "infonce"}
    run = command("objectives", *given, *OWN)
    lines = [line for line in run.out.splitlines() if line.startswith(("┏", "┃", "│", "└"))]
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    for table, columns in OBJECTIVES.columns.items():
        assert list(pd.read_parquet(results / f"{table}.parquet")) == list(columns)
    run = command("report", *given, "features=sae")  # other feature sets, sorted by another rule
    assert run.status == 0, run.err
    page = next(root_of(given).glob("results/report-*/index.html")).read_text()
    assert "Latents of each objective, 2 seeds" in page


@pytest.mark.slow
def test_the_figures_show_the_tables(results: Path) -> None:
    result = Result(results, {}, modalities=ModalityNames("audio", "text"))
    summary = pd.DataFrame(saved_rows(results, "summary"))
    (_, measures), (_, classes) = OBJECTIVES.draw(result)
    panel = next(axis for axis in measures.axes if axis.get_title(loc="left") == "R@1 by codes")
    drawn = [line.get_xydata()[0].tolist() for line in panel.lines if line.get_marker() == "o"]
    means = summary[summary.measure == "codes_r1"]["mean"]
    assert drawn == [[pytest.approx(mean), line] for line, mean in enumerate(means)]
    assert [label.get_text() for label in measures.axes[0].get_yticklabels()] == ["raw", "sae", "infonce"]
    ticks = next(axis for axis in measures.axes if axis.get_title(loc="left") == "match with other seeds").lines
    chance = [line.get_xdata()[0] for line in ticks if line.get_marker() == "|"]
    assert chance == pytest.approx(summary[summary.measure == "chance_match"]["mean"].tolist())
    assert [axis.get_title(loc="left") for axis in classes.axes] == [
        "without AudioD",
        "without CrossD",
        "without TextD",
    ]
    drawn = [line.get_xydata()[0, 0] for line in classes.axes[1].lines if line.get_marker() == "o"]
    crossed = summary[summary.of == "CrossD"].set_index(["feature_set", "measure"])["mean"]
    assert ("raw", "random_change_r1") not in crossed  # all features of raw are CrossD: nothing is outside
    both = "change_r1", "random_change_r1"
    measures_of = {"raw": ("change_r1",), "sae": both, "infonce": both}
    assert drawn == pytest.approx([crossed[name, measure] for name, shown in measures_of.items() for measure in shown])


@pytest.mark.slow
def test_a_second_run_makes_nothing_and_together_makes_the_same(
    results: Path, given: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    before = snapshot(root_of(given))
    assert command("objectives", *given, *OWN).status == 0
    assert snapshot(root_of(given)) == before
    root = tmp_path / "artifacts"
    root.mkdir()
    run = command("objectives", *given, *OWN, f"artifacts={root}", "training.together=true")
    assert run.status == 0, run.err
    made = newest(root, "objectives")
    assert made.name == results.name
    for table in OBJECTIVES.columns:
        pd.testing.assert_frame_equal(
            pd.read_parquet(made / f"{table}.parquet"), pd.read_parquet(results / f"{table}.parquet")
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("features=untrained_sae",),
            "features=[untrained_sae] has no trained feature set, and only trainings are compared",
        ),
        (("features=[sae,contrastive]",), "features=contrastive names no option: choose one of batch_topk"),
        (("objectives.n_seeds=0",), "objectives.n_seeds=0 must be at least 1"),
        (("objectives.n_random=1",), "objectives.n_random=1 must be at least 2"),
        (("objectives.fdr=1",), "objectives.fdr=1 is no false discovery rate"),
        (("objectives.prompt=photo",), "objectives.prompt"),
        (("objectives.max_pairs=2", "seed=1"), "objectives.max_pairs=2 leaves"),
        (("dataset.image=nowhere.npy",), "nowhere.npy"),
    ],
)
def test_what_cannot_be_compared_is_one_line_before_any_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(Workspace, "dictionary", lambda *_: pytest.fail("training began"))
    run = command("objectives", *store(tmp_path, 60), *settings)
    assert run.status == 1
    assert message in run.err
    assert run.err.count("\n") == 1


def test_too_few_groups_are_refused_before_any_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "dictionary", lambda *_: pytest.fail("training began"))
    run = command("objectives", *store(tmp_path, 20), "features=sae")
    assert run.status == 1
    assert "groups of pairs of the split val are left to match or to score features on: give at least 8" in run.err


def agreement(**columns: list[float]) -> pd.DataFrame:
    """Three seeds, each compared with each."""
    made: dict[str, Any] = {"seed": [0, 0, 1], "other_seed": [1, 2, 2], "chance_match": 0.1, "rho": 0.0, "chance_rho": 0.0,
                            "ari": 0.0, "chance_ari": 0.0, "chance_across": 0.05}  # fmt: skip
    return pd.DataFrame({**made, **columns})


def test_intervals_of_stability_leave_out_one_seed_at_a_time() -> None:
    """Pairs of seeds that share one are not independent: an interval over them would be too narrow."""
    rows = agreement(match=[0.5, 0.6, 0.9], across=[0.4, 0.5, 0.6], within=[0.8, 0.8, 0.8])
    found = between_seeds(rows)
    without = np.array([0.9, 0.6, 0.5])  # of the two others
    error = np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert found["match"].value == pytest.approx(2 / 3)
    assert found["match"].high - found["match"].value == pytest.approx(error * student.ppf(0.975, 2))
    naive = ttest_1samp(rows.match, 0).confidence_interval(0.95)
    assert found["match"].high - found["match"].low > 1.9 * (naive.high - naive.low)
    assert found["stability"].value == pytest.approx(corrected_correlation(0.5, 0.8, 0.05))
    assert found["stability"].bounded
    assert not between_seeds(rows[:1])["match"].bounded
