"""Objectives over seeds: on pairs that nothing was chosen by, on a sample of them, and what is told of a result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.neighbors import NearestNeighbors

from mmmono.analyses.objectives import OBJECTIVES
from mmmono.analyses.objectives.analysis import mean_match
from mmmono.core.versions import VERSIONS
from mmmono.dictionaries import Dictionary
from mmmono.features import FeatureStore
from mmmono.features.grouping import Grouping
from mmmono.features.selection import split_view
from mmmono.pipeline.halves import Halves
from mmmono.pipeline.workspace import Workspace
from mmmono.pipeline.zero_shot import ClassPrompts
from mmmono.reporting.result import Result
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.objectives_store import OWN, SAE, halves, held_out, root_of, store
from tests.pipeline.test_entrypoints import only


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def results(given: tuple[str, ...], command: Command) -> Path:
    """Results of two seeds of two objectives, computed once."""
    run = command("objectives", *given, *OWN)
    assert run.status == 0, run.err
    return newest(root_of(given), "objectives")


@pytest.fixture
def on_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes are chosen and removed on all pairs."""
    monkeypatch.setattr(Halves, "left", lambda _, rows: np.ones(len(rows), dtype=bool))
    monkeypatch.setattr(Halves, "dominance", lambda _, workspace, found: workspace.score(found.name, found))


@pytest.mark.slow
def test_random_latents_are_those_of_consequences(command: Command, tmp_path: Path) -> None:
    given = store(tmp_path)
    few = ("objectives.n_seeds=1", "objectives.n_random=4", "objectives.n_chance=1")
    assert command("objectives", *given, "features=sae", *few).status == 0
    rows = pd.DataFrame(saved_rows(newest(root_of(given), "objectives"), "removals"))
    removed = rows.query("seed == 0").set_index("of")
    few = ("consequences.n_random=4", "consequences.shares=[1.0]", "consequences.top=0")
    assert command("consequences", *given, *SAE, *few).status == 0
    effects = pd.DataFrame(saved_rows(newest(root_of(given), "consequences"), "effects"))
    own = effects.query("change == 'drop' and like == '' and measure == 'r1'").set_index("of")
    assert sorted(own.index) == sorted(removed.index)
    for of, row in own.iterrows():
        assert removed.beyond_r1[of] == pytest.approx(row.delta_random, abs=1e-9)
        assert removed.energy[of] == pytest.approx(row.energy)


@pytest.mark.slow
def test_matches_correlate_on_pairs_that_they_were_not_found_on(results: Path, given: tuple[str, ...]) -> None:
    store = FeatureStore(only(root_of(given) / "features", "mine-*"))
    codes: dict[str, list[list[np.ndarray]]] = {"train": [], "val": []}
    for folder in sorted(
        root_of(given).glob("dictionaries/sae-*/"), key=lambda f: json.loads((f / "recipe.json").read_text())["seed"]
    ):
        dictionary = Dictionary.from_pretrained(folder)
        for split in codes:
            view = split_view(store, split)  # type: ignore[arg-type]
            with torch.no_grad():
                sides = [
                    dictionary.encode(
                        torch.nn.functional.normalize(view.read(m, 0, len(view)).float(), dim=1), m
                    ).numpy()  # type: ignore[arg-type]
                    for m in ("image", "text")
                ]
            codes[split].append(sides)
    correlations = {}
    for split, (one, other) in codes.items():
        centered = [np.concatenate([side - side.mean(0) for side in sides]).astype(float) for sides in (one, other)]
        with np.errstate(invalid="ignore"):
            width = one[0].shape[1]
            correlations[split] = np.nan_to_num(np.corrcoef(*centered, rowvar=False)[:width, width:])
    matches = linear_sum_assignment(-correlations["train"])
    held_out = correlations["val"][matches]
    live = [((image > 0) | (text > 0)).sum(0) >= 3 for image, text in codes["val"]]
    expected = np.concatenate([held_out[live[0]], held_out[live[1][matches[1]]]]).mean()
    [row] = [row for row in saved_rows(results, "agreement") if row["feature_set"] == "sae"]
    assert row["match"] == pytest.approx(expected, abs=1e-5)
    assert row["match"] < correlations["train"][matches].mean()
    assert abs(row["chance_match"]) < row["match"]


def test_latents_that_never_fire_do_not_count_as_matches() -> None:
    partners, live = torch.tensor([1, 0, 2]), torch.tensor([True, False, True])
    correlation = torch.tensor([0.5, 0, 0.9], dtype=torch.float64)
    assert mean_match(correlation, partners, live, torch.tensor([False, True, True])) == pytest.approx(0.7)
    # A live one without a live match counts: it is not found again.
    assert mean_match(correlation, partners, live, torch.ones(3).bool()) == pytest.approx((0.5 + 0.9 + 0.5 + 0.9) / 5)
    nothing = torch.zeros(3).bool()
    assert np.isnan(mean_match(correlation, partners, nothing, nothing))


@pytest.mark.slow
def test_of_a_sample_are_reconstruction_and_retrieval_alone(command: Command, tmp_path: Path) -> None:
    """Groups of two pairs each, of whose pairs some are sampled: groups stay aligned, and latents are dead on all pairs."""
    given = store(tmp_path)
    pd.DataFrame({"key": range(700), "of": [str(i // 2) for i in range(700)]}).to_csv(
        tmp_path / "groups.csv", index=False
    )
    grouped = (f"dataset.metadata={tmp_path / 'groups.csv'}", "dataset.group=of", "objectives.max_pairs=40")
    run = command("objectives", *given, *grouped, "features=sae", *OWN[1:])
    assert run.status == 0, run.err
    results = newest(tmp_path / "artifacts", "objectives")
    view = split_view(FeatureStore(only(tmp_path / "artifacts" / "features", "mine-*")), "val", grouping=Grouping("of"))
    z = [torch.nn.functional.normalize(view.read(m, 0, len(view)).float(), dim=1) for m in ("image", "text")]  # type: ignore[arg-type]
    rows = np.sort(np.random.default_rng(0).choice(len(view), 40, replace=False))
    groups = view.groups()
    _, rest = halves(groups.max() + 1)
    [folder] = [
        folder for folder in tmp_path.glob("artifacts/dictionaries/sae-*/")
        if json.loads((folder / "recipe.json").read_text())["seed"] == 0
    ]  # fmt: skip
    dictionary = Dictionary.from_pretrained(folder)
    with torch.no_grad():
        codes = [dictionary.encode(side, m) for side, m in zip(z, ("image", "text"), strict=True)]  # type: ignore[arg-type]
        decoded = [dictionary.decode(c[rows], m).numpy() for c, m in zip(codes, ("image", "text"), strict=True)]  # type: ignore[attr-defined]
    row = saved_rows(results, "seeds")[0]
    assert row["l0"] == pytest.approx(torch.cat([c[rows] for c in codes]).ne(0).sum(1).double().mean().item())
    assert row["dead"] == pytest.approx(1 - torch.cat(codes).ne(0).any(0).double().mean().item())
    assert row["dead"] < 1 - torch.cat([c[rows] for c in codes]).ne(0).any(0).double().mean().item()
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in decoded]
    cosines, own = unit[0] @ unit[1].T, groups[rows]
    hits = [own[of.argmax(1)] == own for of in (cosines, cosines.T)]
    assert row["r1"] == pytest.approx(np.mean(hits), abs=1e-6)
    left = rest[own]
    [samples] = saved_rows(results, "samples")
    assert (samples["removal_pairs"], samples["removal_groups"]) == (left.sum(), len(set(own[left])))
    hits = [own[left][of.argmax(1)] == own[left] for of in (cosines[left][:, left], cosines[left][:, left].T)]
    for removed in saved_rows(results, "removals"):
        if removed["seed"] == 0:
            assert removed["before_r1"] == pytest.approx(np.mean(hits), abs=1e-6)


@pytest.mark.slow
def test_labels_give_zero_shot_accuracy(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_all_pairs: None
) -> None:
    """Of the labels' texts, as a model would embed them; with all latents and without a class."""
    rng = np.random.default_rng(0)
    texts, target = rng.normal(size=(4, 16)).astype(np.float32), rng.integers(-1, 4, 700)

    def prompts(_: Workspace, rows: np.ndarray, prompt: str) -> ClassPrompts:
        return ClassPrompts(torch.nn.functional.normalize(torch.from_numpy(texts)), torch.from_numpy(target[rows]))

    monkeypatch.setattr("mmmono.pipeline.removal_benches.class_prompts", prompts)
    given = (*store(tmp_path), "features=[sae,ncl]")
    assert command("objectives", *given, "objectives.n_seeds=1", "objectives.n_random=2").status == 0
    mine = newest(tmp_path / "artifacts", "objectives")
    few = ("consequences.n_random=2", "consequences.shares=[1.0]", "consequences.top=0", *SAE[1:])
    assert command("consequences", *given, *few).status == 0
    effects = pd.DataFrame(saved_rows(newest(tmp_path / "artifacts", "consequences"), "effects"))
    rows, removed = (pd.DataFrame(saved_rows(mine, name)).query("seed == 0") for name in ("seeds", "removals"))
    for name, space in (("sae", "reconstruction"), ("ncl", "features")):
        theirs = effects[(effects.feature_set == name) & (effects.measure == "zero_shot")]
        by_place = theirs.set_index(["change", "of", "like"])
        [row] = rows[rows.feature_set == name].to_dict("records")
        assert row["space"] == space
        assert row["zero_shot"] == pytest.approx(by_place.value["", "", ""])
        for found in removed[removed.feature_set == name].to_dict("records"):
            assert found["beyond_zero_shot"] == pytest.approx(by_place.delta_random["drop", found["of"], ""], abs=1e-9)
    image, _ = held_out(tmp_path / "artifacts")
    unit = torch.nn.functional.normalize(torch.from_numpy(texts))
    [head] = [
        Dictionary.from_pretrained(folder)
        for folder in tmp_path.glob("artifacts/dictionaries/ncl-*/")
        if json.loads((folder / "recipe.json").read_text())["seed"] == 0
    ]
    with torch.no_grad():
        codes, coded = head.encode(image, "image"), head.encode(unit, "text")
    of = target[: len(image)]  # by position in the split
    known = of >= 0
    nearest = (
        NearestNeighbors(n_neighbors=1, metric="cosine").fit(coded).kneighbors(codes[known], return_distance=False)
    )
    ncl = rows[rows.feature_set == "ncl"].iloc[0]
    assert ncl.zero_shot == ncl.codes_zero_shot == pytest.approx((nearest[:, 0] == of[known]).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("mds.undefined=half", "mds.undefined=skip"),
        ("mds.min_pairs=4", "mds.min_pairs=3"),
        ("", "partitions of an earlier"),
    ],
)
def test_the_report_shows_no_results_of_other_scores_or_partitions(
    results: Path, given: tuple[str, ...], command: Command, monkeypatch: pytest.MonkeyPatch, setting: str, told: str
) -> None:
    if not setting:
        monkeypatch.setitem(VERSIONS, "partitions", VERSIONS["partitions"] + 1)  # type: ignore[arg-type]
    run = command("report", *given, "features=sae", *([setting] if setting else []))
    assert run.status == 0, run.err
    page = (newest(root_of(given), "report") / "index.html").read_text()
    assert "Latents of each objective" not in page
    assert f"There, under other settings: <bdi>{told}" in page


@pytest.mark.slow
def test_remarks_name_what_has_no_stability_and_what_is_of_one_seed(results: Path, tmp_path: Path) -> None:
    result = Result(results, json.loads((results / "recipe.json").read_text()))
    remarks = list(OBJECTIVES.remarks(result))
    assert "raw: seed 0 alone, since it is not trained" in remarks
    assert not any("sae: seed" in remark or "no stability" in remark for remark in remarks)
    noisy = Path(shutil.copytree(results, tmp_path / "noisy"))
    summary = pd.read_parquet(noisy / "summary.parquet")
    summary.loc[(summary.feature_set == "infonce") & (summary.measure == "stability"), "mean"] = np.nan
    summary.to_parquet(noisy / "summary.parquet")
    told = "no stability of infonce: R(d) is too noisy under at least one seed"
    assert told in list(OBJECTIVES.remarks(Result(noisy, result.recipe)))
