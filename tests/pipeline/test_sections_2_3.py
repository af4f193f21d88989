"""Sections 2.1 to 3 of the paper, through their entrypoints, on 400 emoji."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.data import OpenMojiPairs
from mmmono.dictionaries import Dictionary
from mmmono.features import FeatureStore, FeatureView, split_view
from mmmono.interpretability.embedders import offline_embedder
from tests.data.test_webdataset import jpeg, write_tar
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.test_entrypoints import SMALL, only, snapshot

FEW = (*SMALL, "mds.min_pairs=3", "training.snapshot_every=30")


def store_of(artifacts: Path) -> FeatureStore:
    return FeatureStore(only(artifacts / "features", "drawingclip-openmoji-*"))


def unit_embeddings(view: FeatureView) -> dict[str, torch.Tensor]:
    return {m: torch.nn.functional.normalize(view.read(m, 0, len(view)).float(), dim=1) for m in ("image", "text")}  # type: ignore[arg-type]


def test_certainty(command: Command, artifacts: Path) -> None:
    settings = ("certainty.n_permutations=500", "certainty.n_bootstrap=100", "certainty.n_halves=3")
    run = command("certainty", f"artifacts={artifacts}", *FEW, "features=[raw,sae]", *settings)
    assert run.status == 0, run.err
    results = newest(artifacts, "certainty")
    scores = pd.read_parquet(results / "scores.parquet")
    raw = scores[scores.feature_set == "raw"]
    assert ((raw.low < raw.mds) & (raw.mds < raw.high)).all()
    assert (raw.q_value >= raw.p_value).all()
    z = unit_embeddings(split_view(store_of(artifacts), "val"))
    energy = {m: (values.numpy() ** 2).sum(0) for m, values in z.items()}
    np.testing.assert_allclose(raw.energy, energy["image"] / (energy["image"] + energy["text"]), rtol=1e-4)
    summary = {row["feature_set"]: row for row in saved_rows(results, "summary")}
    assert summary["raw"]["significant"] == (raw.q_value <= 0.05).sum()
    assert (results / "certainty.png").stat().st_size > 10_000
    # Nothing is made again.
    before = snapshot(artifacts)
    assert command("certainty", f"artifacts={artifacts}", *FEW, "features=[raw,sae]", *settings).out == run.out
    assert snapshot(artifacts) == before


def test_ablation(command: Command, artifacts: Path) -> None:
    run = command("ablation", f"artifacts={artifacts}", *FEW, "features=raw", "ablation.n_random=2", "ablation.folds=1")
    assert run.status == 0, run.err
    assert "compare directions, not numbers" in run.out
    assert "0.776" in run.out  # the paper's accuracy with all features
    results = newest(artifacts, "ablation")
    table = pd.read_parquet(results / "table1.parquet")
    assert table.groupby("task").size().to_dict() == {"image": 7, "text": 7}
    none = table[table.deletion == "None"].set_index("task")
    metadata = store_of(artifacts).metadata()
    commonest = metadata[~metadata.group.duplicated()].category.value_counts(normalize=True).max()
    assert none.accuracy["image"] > commonest + 0.1
    assert none.accuracy["text"] > commonest + 0.1
    assert set(table.deletion) == {"None", "Random", "ImgD", "TextD", "CrossD"}
    [samples] = saved_rows(results, "samples")
    of_category = metadata[~metadata.group.duplicated() & (metadata.category != "")].category.value_counts()
    assert samples["pairs"] == of_category[of_category >= 5].sum()
    assert samples["left_out"] == ", ".join(sorted(of_category[of_category < 5].index))
    assert f"{samples['pairs']} pairs, {(of_category >= 5).sum()} labels (category)" in run.out
    assert (results / "table1.png").stat().st_size > 10_000


def test_top_samples(command: Command, artifacts: Path) -> None:
    run = command(
        "top_samples", f"artifacts={artifacts}", *FEW, "features=[raw,sae]", "top_samples.m=5", "top_samples.shown=3",
        "top_samples.show=[0,7]", "top_samples.deduplicate=false", "top_samples.side=positive",
    )  # fmt: skip
    assert run.status == 0, run.err
    results = newest(artifacts, "top_samples")
    view = split_view(store_of(artifacts), "val")
    z, metadata = unit_embeddings(view), view.metadata()
    made_of = json.loads((results / "recipe.json").read_text())["sets"][1]["dictionary"]
    sae = Dictionary.from_pretrained(only(artifacts / "dictionaries", f"sae-*-{made_of}"))
    samples = pd.read_parquet(results / "samples.parquet")
    for name in ("raw", "sae"):
        table = samples[samples.feature_set == name]
        for modality in ("image", "text"):
            a = z[modality] if name == "raw" else sae.encode(z[modality], modality).detach()  # type: ignore[arg-type]
            for feature in (0, 7):
                mine = table[(table.feature == feature) & (table.samples == modality)].sort_values("rank")
                order = a[:, feature].argsort(descending=True, stable=True)[:5]
                order = order[a[order, feature] > 0]
                if name == "raw":
                    assert mine.row.tolist() == order.tolist()
                    assert mine.caption.tolist() == metadata.caption.iloc[order.tolist()].tolist()
                np.testing.assert_allclose(mine.activation, a[order, feature], atol=1e-5)
        assert (results / f"{name}-chosen.png").stat().st_size > 5_000
    sheets = saved_rows(results, "sheets")
    assert [(row["feature_set"], row["feature"]) for row in sheets] == [(n, f) for n in ("raw", "sae") for f in (0, 7)]


def test_top_samples_of_drawn_features_without_variants_of_one_image(command: Command, artifacts: Path) -> None:
    run = command("top_samples", f"artifacts={artifacts}", *FEW, "features=raw", "top_samples.m=6")
    assert run.status == 0, run.err
    results = newest(artifacts, "top_samples")
    table = pd.read_parquet(results / "samples.parquet")
    source = OpenMojiPairs()
    groups = table.key.map(source.group)
    assert not groups.groupby([table.feature, table.samples]).apply(lambda g: g.duplicated().any()).any()
    drawn = pd.DataFrame(saved_rows(results, "sheets"))
    assert drawn.groupby("class").size().to_dict() == {"ImgD": 2, "TextD": 2, "CrossD": 2}
    classes = table.drop_duplicates("feature").set_index("feature")["class"]
    assert [classes[f] for f in drawn.feature] == drawn["class"].tolist()


def test_interpretability(command: Command, artifacts: Path) -> None:
    settings = (*FEW, "features=[raw,sae,ncl]", "interpretability.m=4", "interpretability.n_draws=2")
    run = command("interpretability", f"artifacts={artifacts}", *settings)
    assert run.status == 0, run.err
    results = newest(artifacts, "interpretability")
    for figure in ("monosemanticity", "modality_monosemanticity", "over_training"):
        assert (results / f"{figure}.png").stat().st_size > 5_000
    scores = pd.read_parquet(results / "scores.parquet")
    assert scores.groupby(["feature_set", "samples"]).size().eq(512).all()
    assert scores.winrate.dropna().between(0, 1).all()
    np.testing.assert_allclose(scores.mono, (scores.embsim + scores.winrate) / 2)

    view = split_view(store_of(artifacts), "val")
    e = offline_embedder().embed_texts(view.metadata().caption.tolist()).double().numpy()
    a = unit_embeddings(view)["text"].double().numpy()[:, 3]
    a = (a - a.min()) / (a.max() - a.min())
    groups = view.groups()
    weights = np.outer(a, a) * (groups[:, None] != groups)  # pairs of different drawings
    expected = (weights * (e @ e.T)).sum() / weights.sum()
    mine = scores[(scores.feature_set == "raw") & (scores.samples == "text") & (scores.feature == 3)]
    assert mine.ms.item() == pytest.approx(expected, abs=1e-4)

    table5 = {(row["feature_set"], row["samples"]): row for row in saved_rows(results, "table5")}
    raw = scores[(scores.feature_set == "raw") & (scores.samples == "image")].groupby("class").mono.mean()
    assert table5["raw", "image"]["mono"] == pytest.approx(raw["ImgD"] - raw["TextD"])
    history = pd.read_parquet(results / "over_training.parquet")
    assert history.groupby("feature_set").step.unique().map(list).to_dict() == {"sae": [0, 30, 60], "ncl": [0, 30, 60]}
    last = history[(history["feature_set"] == "sae") & (history.step == 60)].set_index("samples").mono
    final = scores[(scores.feature_set == "sae") & (scores["class"] != "dead")].groupby("samples").mono.mean()
    assert last["image"] == pytest.approx(final["image"])

    # The model's own embeddings instead: another result, and nothing is embedded for it.
    before = snapshot(artifacts / "embeddings")
    run = command("interpretability", f"artifacts={artifacts}", *settings, "embedder=clip", "features=raw")
    assert run.status == 0, run.err
    assert "drawingclip itself, not independent" in run.out
    assert snapshot(artifacts / "embeddings") == before


def test_an_empty_class_says_none(command: Command, artifacts: Path) -> None:
    nobody = (*FEW, "features=raw", "partition.n_sigma=50")
    run = command(
        "interpretability", f"artifacts={artifacts}", *nobody, "interpretability.m=4", "interpretability.ms=false"
    )
    assert run.status == 0, run.err
    lines = [line for line in run.out.splitlines() if "ImgD" in line and "image" in line]
    assert [line.count("none") for line in lines] == [3, 5]  # above chance, and as in the paper
    run = command("ablation", f"artifacts={artifacts}", *nobody, "ablation.n_random=2", "ablation.folds=1")
    assert run.status == 0, run.err
    assert sum("none" in line and "ImgD" in line for line in run.out.splitlines()) == 2


def test_controls_are_feature_sets_like_any_other(command: Command, artifacts: Path) -> None:
    sets = "features=[raw,pca,random_rotation,untrained_sae]"
    run = command("faithfulness", f"artifacts={artifacts}", *FEW, sets)
    assert run.status == 0, run.err
    results = newest(artifacts, "faithfulness")
    rows = {(row["feature_set"], row["samples"]): row for row in saved_rows(results, "reconstruction")}
    for name in ("raw", "random_rotation", "pca"):
        assert rows[name, "image"]["fvu"] == pytest.approx(0, abs=1e-6)
        assert rows[name, "image"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert rows["untrained_sae", "text"]["l0"] <= 32
    assert rows["untrained_sae", "text"]["fvu"] > 0.1
    function = {(row["feature_set"], row["space"]): row for row in saved_rows(results, "function")}
    before, rotated = function["", "embeddings"], function["random_rotation", "features"]
    for key in ("i2t_r1", "t2i_r10", "zero_shot", "gap", "contrastive_loss"):
        assert rotated[key] == pytest.approx(before[key], abs=2e-3), key
    view = split_view(store_of(artifacts), "val")
    z, groups = unit_embeddings(view), torch.from_numpy(view.groups())
    similarity, together = z["image"] @ z["text"].T, groups[:, None] == groups
    own = similarity.masked_fill(~together, -2).amax(1, keepdim=True)  # any text of the image's group is right
    right = (similarity.masked_fill(together, -2) <= own + 1e-6).all(1)
    assert before["i2t_r1"] == pytest.approx(right.float().mean().item(), abs=1e-5)
    gap = (z["image"].mean(0) - z["text"].mean(0)).norm().item()
    assert before["gap"] == pytest.approx(gap, abs=1e-5)


def test_shards_without_labels(command: Command, artifacts: Path, tmp_path: Path) -> None:
    files = []
    for i in range(20):
        files += [(f"{i:02d}.jpg", jpeg((12 * i, 255 - 12 * i, 90))), (f"{i:02d}.txt", f"color {i % 7}".encode())]
    write_tar(tmp_path / "shard-0.tar", files)
    shards = (
        f"artifacts={artifacts}",
        "dataset=webdataset",
        f"dataset.shards={tmp_path}/shard-0.tar",
        "dataset.split=all",
    )
    run = command("ablation", *shards, "features=raw")
    assert run.status == 1
    assert "dataset=webdataset has no labels to classify by" in run.err
    run = command("ablation", *shards, "features=raw", "dataset.label=kind")
    assert run.status == 1
    assert "dataset.label=kind is no label of these pairs: they have none" in run.err
    run = command("top_samples", *shards, "features=raw", "top_samples.m=6", "top_samples.show=[1]")
    assert run.status == 0, run.err
    table = pd.read_parquet(only(artifacts / "results", "top_samples-drawingclip-webdataset-*") / "samples.parquet")
    texts = table[(table.feature == 1) & (table.samples == "text")]
    assert texts.caption.is_unique  # "color 0" to "color 6" occur about three times each
    run = command("interpretability", *shards, "features=raw", "interpretability.m=3", "embedder=clip")
    assert run.status == 0, run.err


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("top_samples", ["features=raw", "top_samples.m=5000"], "m=5000 top samples asked for, but the split has"),
        ("top_samples", ["features=raw", "top_samples.show=[600]"], "names feature 600, but raw has 0 to 511"),
        ("top_samples", ["features=raw", "top_samples.show=[-1]"], "names feature -1"),
        ("top_samples", ["features=raw", "top_samples.shown=21"], "top_samples.shown=21 must lie between"),
        ("interpretability", ["features=raw", "interpretability.m=0"], "interpretability.m=0 must be at least 2"),
        ("interpretability", ["features=raw", "embedder=paper", "embedder.image_checkpoint=no.pt"], "no.pt is no file"),
        ("ablation", ["features=raw", "dataset.label=color"], "dataset.label=color is no label of these pairs: choose"),
        ("ablation", ["features=raw", "ablation.folds=9"], "folds=9 must lie between 1 and 5"),
        ("mds", ["features=raw", "mds.undefined=maybe"], "mds.undefined=maybe is none of skip, half"),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, artifacts: Path, name: str, overrides: list[str], message: str
) -> None:
    before = snapshot(artifacts)
    run = command(name, f"artifacts={artifacts}", "dataset.limit=400", *overrides)
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1, run.out
    assert len(lines) == 1
    assert message in lines[0]
    finished = {f for f in snapshot(artifacts) if ".partial" not in f}
    assert finished == {f for f in before if ".partial" not in f}
