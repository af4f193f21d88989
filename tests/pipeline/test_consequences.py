"""Consequences and steering through their entrypoints: on synthetic pairs, and on emoji with labels and images."""

import html
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.dictionaries import Dictionary
from mmmono.modality import Partition
from mmmono.pipeline.halves import Halves
from mmmono.pipeline.steering import drawn_by_class
from mmmono.pipeline.workspace import Workspace
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.objectives_store import SAE, classified, halves, held_out, recall, store
from tests.pipeline.test_entrypoints import SMALL, only

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
    [named] = re.findall(r"differs from that of random sets, by Holm's p .*: sae (.*)", run.out)
    standing = own.index[own.p_holm <= 0.05]
    assert ("none (p ≥" in named) == (not len(standing))
    assert all(f"{'−' if change == 'drop' else 'only'} {of} (p" in named for change, of in standing)
    curves = pd.DataFrame(saved_rows(results, "curves"))
    assert sorted(curves.share.unique()) == [0.0, 0.5, 1.0]
    none_dropped = curves[(curves.share == 0) & (curves.change == "drop")]
    assert (none_dropped[["delta", "delta_low", "delta_high"]] == 0).all(axis=None)
    features = pd.DataFrame(saved_rows(results, "features"))
    assert features.place.count() == 4
    remarks = [
        line for line in run.out.splitlines() if line.startswith(("random sets have", "features are classified by"))
    ]
    run = command("report", f"artifacts={tmp_path}", *SYNTHETIC)
    assert run.status == 0, run.err
    page = next((tmp_path / "results").glob("report-*/index.html")).read_text()
    assert "Retrieval without a class, sae" in page
    assert "only CrossD" in page
    assert len(remarks) == 2
    said = " ".join(html.unescape(page).split())
    assert all(remark.strip() in said for remark in remarks)
    assert "by Holm's p over the classes dropped, or kept" in said
    assert "intervals are over groups of pairs and random sets, and not corrected" in said


def test_classes_are_removed_on_pairs_that_they_were_not_chosen_by(command: Command, tmp_path: Path) -> None:
    """R(d), classes and R@1 of each half of the pairs, against numpy."""
    few = ("consequences.n_random=2", "consequences.shares=[1.0]", "consequences.top=2")
    run = command("consequences", *store(tmp_path), *SAE, *few)
    assert run.status == 0, run.err
    image, text = held_out(tmp_path / "artifacts")
    first, rest = halves(len(image))
    assert f"on {rest.sum()} pairs; classes by {first.sum()} others" in " ".join(run.out.split())
    dictionary = Dictionary.from_pretrained(only(tmp_path / "artifacts" / "dictionaries", "sae-*"))
    with torch.no_grad():
        codes = [dictionary.encode(image, "image"), dictionary.encode(text, "text")]
    scores, classes = classified(*(side[first] for side in codes))
    results = newest(tmp_path / "artifacts", "consequences")
    [samples] = saved_rows(results, "samples")
    assert (samples["pairs"], samples["groups"]) == (rest.sum(), rest.sum())
    assert (samples["classified_pairs"], samples["classified_groups"]) == (first.sum(), first.sum())
    features = pd.DataFrame(saved_rows(results, "features"))
    for of, members in classes.items():
        mine = features[features["class"] == of]
        assert mine.feature.tolist() == members.nonzero().squeeze(1).tolist()
        assert mine.mds.to_numpy() == pytest.approx(scores[members].numpy(), abs=1e-5)
    effects = pd.DataFrame(saved_rows(results, "effects")).query("measure == 'r1' and like == ''")
    left = [side[rest] for side in codes]
    for row in effects[effects.change != "keep"].to_dict("records"):
        kept = ~classes[row["of"]] if row["of"] else torch.ones(len(scores), dtype=torch.bool)
        with torch.no_grad():
            decoded = [dictionary.decode(c * kept, m) for c, m in zip(left, ("image", "text"), strict=True)]  # type: ignore[attr-defined, arg-type]
        assert row["value"] == pytest.approx(recall(*(side.numpy() for side in decoded)), abs=1e-6), row["of"]
    assert {"ImgD", "TextD", "CrossD"} == set(effects.of) - {""}


def test_what_moves_no_query_is_not_among_the_features_that_matter_most(command: Command, tmp_path: Path) -> None:
    """Pairs that are equal on both sides find each other without any one dimension."""
    given = store(tmp_path)
    np.save(tmp_path / "text.npy", np.load(tmp_path / "image.npy"))
    given = [setting for setting in given if setting.startswith(("dataset", "artifacts", "model"))]
    run = command("consequences", *given, "features=raw", "consequences.n_random=2", "consequences.shares=[1.0]")
    assert run.status == 0, run.err
    features = pd.DataFrame(saved_rows(newest(tmp_path / "artifacts", "consequences"), "features"))
    assert (features.selecting == 0).all()
    assert "Single features that matter most" not in run.out
    assert "raw: no single feature moves retrieval on the half of the queries" in " ".join(run.out.split())


def test_too_few_groups_to_classify_and_to_remove(command: Command, tmp_path: Path) -> None:
    given = [s for s in store(tmp_path) if s.startswith(("dataset", "artifacts", "model"))] + ["features=raw"]
    run = command("consequences", *given, "consequences.max_pairs=2", "seed=1")
    assert run.status == 1
    assert "consequences.max_pairs=2 leaves" in run.err
    assert "raise it, so that at least 2 are left" in run.err
    for side in ("image", "text"):
        np.save(tmp_path / f"{side}.npy", np.load(tmp_path / f"{side}.npy")[:2])
    run = command("consequences", *given, "dataset.split=all")
    assert run.status == 1
    assert "has 2 groups of pairs: at least 3 are needed" in run.err


def test_without_live_features_nothing_is_removed(command: Command, tmp_path: Path) -> None:
    few = (*SAE, "mds.min_pairs=100000", "consequences.n_random=2", "consequences.shares=[1.0]")
    run = command("consequences", *store(tmp_path), *few)
    assert run.status == 0, run.err
    results = newest(tmp_path / "artifacts", "consequences")
    assert {(row["change"], row["of"]) for row in saved_rows(results, "effects")} == {("", "")}
    assert {file.stem for file in results.glob("*.png")} == {"retrieval", "measures"}


def test_three_pairs_have_values_without_intervals(command: Command, tmp_path: Path) -> None:
    for name, seed in (("img_emb", 0), ("text_emb", 1)):
        (tmp_path / "store" / name).mkdir(parents=True)
        np.save(
            tmp_path / "store" / name / f"{name}_0.npy", np.random.default_rng(seed).standard_normal((3, 8), np.float32)
        )
    (tmp_path / "store" / "metadata").mkdir()
    pd.DataFrame({"key": ["a", "b", "c"]}).to_parquet(tmp_path / "store" / "metadata" / "metadata_0.parquet")
    few = (f"artifacts={tmp_path / 'made'}", "dataset=store", f"dataset.path={tmp_path / 'store'}", "dataset.split=all")
    run = command("consequences", *few, "training.split=all", "features=raw", "mds.min_pairs=1", "device=cpu")
    assert run.status == 0, run.err
    assert "2 pairs in 2 groups" in run.out


def test_steering_of_synthetic_features(command: Command, tmp_path: Path) -> None:
    few = (f"artifacts={tmp_path}", *SYNTHETIC, "steering.queries=40", "steering.strengths=[0.0,4.0]")
    run = command("steering", *few)
    assert run.status != 0
    assert "steering.per_class=0 makes no contact sheets" in run.err
    (tmp_path / "metadata.csv").write_text("key,caption\n" + "".join(f"{i},text {i}\n" for i in range(60)))
    np.save(tmp_path / "side.npy", np.random.default_rng(0).normal(size=(60, 6)))
    files = (f"dataset.{side}={tmp_path / 'side.npy'}" for side in ("image", "text"))
    run = command(
        "steering", f"artifacts={tmp_path}", "dataset=store", *files, f"dataset.metadata={tmp_path / 'metadata.csv'}",
        "dataset.split=all", "features=raw", "steering.images=40", "steering.queries=20", "steering.k=2",
    )  # fmt: skip
    assert run.status != 0
    assert "steering.per_class=0 makes no contact sheets" in run.err
    assert not list((tmp_path / "results").glob("steering-*.partial")), "it is told before anything is steered"
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


def test_the_measures_with_all_features_are_those_of_faithfulness(
    command: Command, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On all pairs, as faithfulness measures them."""
    monkeypatch.setattr(Halves, "left", lambda _, rows: np.ones(len(rows), dtype=bool))
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


def test_a_text_for_sheets_that_are_not_made_is_an_error(command: Command, tmp_path: Path) -> None:
    sheetless = (f"artifacts={tmp_path}", "dataset=synthetic", "steering.per_class=0")
    run = command("steering", *sheetless, "steering.query=a heart")
    assert run.status == 1
    assert run.err.startswith(
        "error: steering.query= is a text for contact sheets, and per_class=0 makes none: raise it, "
    )


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
        ("steering", "max_features=5"),
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


def test_labels_of_embeddings_that_the_model_did_not_make_are_refused_before_it_is_fitted(
    command: Command, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for side in ("image", "text"):
        np.save(tmp_path / f"{side}.npy", rng.standard_normal((200, 8)).astype(np.float32))
    pd.DataFrame({"label": ["a", "b"] * 100}).to_csv(tmp_path / "pairs.csv", index=False)
    files = [f"dataset.{side}={tmp_path / side}.npy" for side in ("image", "text")]
    given = (
        "dataset=store",
        *files,
        f"dataset.metadata={tmp_path / 'pairs.csv'}",
        "dataset.label=label",
        "features=raw",
    )
    run = command("consequences", f"artifacts={tmp_path / 'artifacts'}", *given, "mds.min_pairs=1")
    assert run.status == 1
    assert (
        "needs the model that made the embeddings of store, and nothing says which it was: choose it (model=)"
        in run.err
    )
    assert "dataset.label=null" in run.err
    assert not (tmp_path / "artifacts" / "models").exists()


def test_of_many_features_some_of_each_class_are_steered() -> None:
    """All live ones were: of 65,536 latents that takes days."""
    classes = torch.arange(300).split([10, 90, 200])
    partition = Partition(*classes, torch.empty(0, dtype=torch.int64))
    features = torch.arange(300)[::2]
    assert (
        drawn_by_class(partition, features, None, 0) == drawn_by_class(partition, features, 150, 0) == features.tolist()
    )
    drawn = drawn_by_class(partition, features, 65, 0)
    assert set(drawn) <= set(features.tolist())
    assert drawn == sorted(set(drawn))
    assert [sum(int(feature) in members for feature in drawn) for members in classes] == [5, 30, 30]
    assert drawn_by_class(partition, features, 65, 1) != drawn == drawn_by_class(partition, features, 65, 0)
