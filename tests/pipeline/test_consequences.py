"""Consequences and steering through their entrypoints: on synthetic pairs, and on emoji with labels and images."""

from pathlib import Path

import pandas as pd
import pytest

from mmmono.pipeline.workspace import Workspace
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.test_entrypoints import SMALL

SYNTHETIC = (
    "dataset=synthetic", "dataset.pairs=2000", "dataset.dim=48", "dataset.image_atoms=12", "dataset.text_atoms=12",
    "dataset.shared_atoms=24", "dataset.active=8", "dataset.correlation=1.0", "dataset.gain_spread=0.2", "features=sae",
    "features.k=8", "partition=margin", "trainer=cpu", "trainer.max_steps=800", "trainer.min_steps=0",
    "trainer.val_check_interval=100", "training.snapshot_every=null",
)  # fmt: skip
FEW = (*SMALL, "mds.min_pairs=3", "training.snapshot_every=30")


def test_what_synthetic_features_carry(command: Command, tmp_path: Path) -> None:
    """An SAE's shared features carry retrieval, and its unimodal ones do not; the report shows the same tables."""
    few = ("consequences.n_random=3", "consequences.shares=[0.5,1.0]", "consequences.top=4")
    run = command("consequences", f"artifacts={tmp_path}", *SYNTHETIC, *few)
    assert run.status == 0, run.err
    table = [line for line in run.out.splitlines() if line.startswith(("┏", "┃", "│", "└"))]
    assert max(map(len, table)) <= 80
    results = newest(tmp_path, "consequences")
    assert {file.stem for file in results.glob("*.png")} == {"retrieval", "measures", "features"}
    effects = pd.DataFrame(saved_rows(results, "effects")).query("measure == 'r1'")
    own = effects[effects.like == ""].set_index(["change", "of"])
    assert own.delta_random["drop", "CrossD"] < own.delta_random_high["drop", "CrossD"] < 0
    assert own.value["drop", "CrossD"] < 0.3 * own.value["", ""]
    assert own.value["drop", "ImgD"] > own.value["", ""]
    assert own.value["keep", "CrossD"] > own.value["", ""]
    assert (own.p_holm.dropna() >= own.p.dropna()).all()
    curves = pd.DataFrame(saved_rows(results, "curves"))
    assert sorted(curves.share.unique()) == [0.0, 0.5, 1.0]
    assert (curves[(curves.share == 0) & (curves.change == "drop")].delta == 0).all()
    features = pd.DataFrame(saved_rows(results, "features"))
    assert features.place.count() == 4
    run = command("report", f"artifacts={tmp_path}", *SYNTHETIC)
    assert run.status == 0, run.err
    page = next((tmp_path / "results").glob("report-*/index.html")).read_text()
    assert "Retrieval without a class, sae" in page
    assert "only CrossD" in page


def test_steering_of_synthetic_features(command: Command, tmp_path: Path) -> None:
    few = (f"artifacts={tmp_path}", *SYNTHETIC, "steering.queries=40", "steering.strengths=[0.0,4.0]")
    run = command("steering", *few)
    assert run.status != 0
    assert "steering.per_class=0 makes no contact sheets" in run.err
    run = command("steering", *few, "steering.per_class=0")
    assert run.status == 0, run.err
    results = newest(tmp_path, "steering")
    features = pd.DataFrame(saved_rows(results, "features"))
    strong = features[features.strength == 4]
    assert strong.move.mean() > strong.control.mean() + 0.2
    assert strong[strong["class"] == "CrossD"].move.mean() > 0.3
    assert (features[features.strength == 0].stay > strong.stay.mean()).mean() > 0.9
    assert ((strong.move_low <= strong.move) & (strong.move <= strong.move_high)).all()
    summary = pd.DataFrame(saved_rows(results, "summary")).query("strength == 4")
    moved = strong[(strong.q_value <= 0.05) & (strong.beyond > 0)].groupby("class").size()
    assert summary.set_index("class").moved.to_dict() == {of: moved.get(of, 0) for of in summary["class"]}
    assert not saved_rows(results, "shown")
    assert {file.stem for file in results.glob("*.png")} == {"steering"}


def test_the_measures_with_all_features_are_those_of_faithfulness(command: Command, artifacts: Path) -> None:
    few = (f"artifacts={artifacts}", *FEW, "features=[raw,sae]")
    settings = ("consequences.n_random=2", "consequences.shares=[1.0]", "consequences.top=0")
    for name, own in (("faithfulness", ()), ("consequences", settings)):
        run = command(name, *few, *own)
        assert run.status == 0, run.err
    function = saved_rows(newest(artifacts, "faithfulness"), "function")
    results = newest(artifacts, "consequences")
    effects = saved_rows(results, "effects")
    for name, space in (("raw", "embeddings"), ("sae", "reconstruction")):
        [expected] = [row for row in function if row["space"] == space]
        found = {row["measure"]: row["value"] for row in effects if row["feature_set"] == name and not row["of"]}
        for key in ("i2t_r1", "i2t_r10", "t2i_r5", "zero_shot", "gap", "contrastive_loss"):
            assert found[key] == pytest.approx(expected[key], abs=1e-5), (name, key)
    samples = {row["feature_set"]: row for row in saved_rows(results, "samples")}
    assert (samples["sae"]["space"], samples["sae"]["label"]) == ("reconstruction", "category")
    assert samples["raw"]["labels"] > 2


def test_contact_sheets_of_steering(command: Command, artifacts: Path) -> None:
    few = (
        f"artifacts={artifacts}",
        *FEW,
        "features=[sae]",
        "steering.k=4",
        "steering.shown=3",
        "steering.strengths=[1.0]",
    )
    run = command("steering", *few, "steering.show=[0,1]", "steering.query='a red heart'")
    assert run.status == 0, run.err
    results = newest(artifacts, "steering")
    shown = pd.DataFrame(saved_rows(results, "shown"))
    assert set(shown["query"]) == {"a red heart"}
    assert {file.stem for file in results.glob("*sheet*.png")} == {"sae-sheet-0", "sae-sheet-1"}
    assert {int(file.stem) for file in (results / "images").glob("*.png")} == set(shown.row)
    as_it_is = shown[(shown.most == 0) & shown.strength.isna()]
    assert as_it_is.groupby("feature").row.apply(tuple).nunique() == 1  # the same images, whatever is steered next
    run = command("steering", *few, "steering.show=[100000]")
    assert run.status != 0
    assert "steering.show names feature 100000, but sae has 0 to" in run.err


@pytest.mark.parametrize(
    ("analysis", "wrong"),
    [
        ("consequences", "shares=[0.5]"), ("consequences", "n_random=1"), ("consequences", "temperature=0.001"),
        ("consequences", "prompt=photo"), ("consequences", "max_pairs=1"), ("steering", "how=push"),
        ("steering", "strengths=[2.0,1.0]"), ("steering", "queries=2"), ("steering", "query=''"), ("steering", "k=100000"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line_before_any_work(
    command: Command, tmp_path: Path, analysis: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "dominance", lambda *_: pytest.fail("work began"))
    run = command(
        analysis,
        f"artifacts={tmp_path}",
        "dataset=synthetic",
        "dataset.pairs=60",
        "features=raw",
        f"{analysis}.{wrong}",
    )
    assert run.status == 1
    assert f"{analysis}.{wrong.partition('=')[0]}" in run.err
    assert run.err.count("\n") == 1
