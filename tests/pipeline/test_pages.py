"""Report and explorer, through their entrypoints, on 400 emoji."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.dictionaries import TopKSAE
from mmmono.reporting.published import published
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.test_entrypoints import SMALL, only, snapshot

ANY = (*SMALL, "mds.min_pairs=3", "training.snapshot_every=30")
FEW = (*ANY, "features.k=16")
MONO = ("interpretability.m=4", "interpretability.n_draws=2", "interpretability.over_training=false", "embedder=clip")
EXPLORER = ("explorer.images=5", "explorer.texts=4", "explorer.neighbors=3")


def data(page: Path, name: str) -> Any:
    return json.loads((page / "data" / f"{name}.js").read_text().split("]=", 1)[1].rstrip(";\n"))


def cards(page: Path, name: str) -> list[dict[str, Any]]:
    files = len(list((page / "data" / name).glob("cards-*.js")))
    return [card for i in range(files) for card in data(page, f"{name}/cards-{i}")]


def test_explorer_shows_what_the_analyses_found(command: Command, artifacts: Path) -> None:
    common = (f"artifacts={artifacts}", *FEW, "features=[raw,sae]")
    assert command("mds", *common).status == 0
    run = command("explorer", *common, *EXPLORER)
    assert run.status == 0, run.err
    assert "without monosemanticity scores" in run.out
    page = newest(artifacts, "explorer")
    assert f"{page}/index.html" in run.out.replace("\n", "")
    scores = pd.read_parquet(newest(artifacts, "mds") / "scores.parquet")
    assert command("top_samples", *common, "top_samples.m=5", "top_samples.shown=2").status == 0
    top = pd.read_parquet(newest(artifacts, "top_samples") / "samples.parquet")
    for name in ("raw", "sae"):
        mine, table = scores[scores.feature_set == name], data(page, f"{name}/table")
        assert table["class"] == mine["class"].tolist()
        np.testing.assert_allclose(np.array(table["mds"], dtype=float), mine.mds, rtol=1e-3)
        samples = top[top.feature_set == name]
        for feature, card in enumerate(cards(page, name)[:40]):
            ranked = samples[samples.feature == feature].sort_values("rank")
            images, texts = (ranked[ranked.samples == modality] for modality in ("image", "text"))
            assert [row for row, _, _ in card["images"]] == images.row.tolist()
            assert [caption for _, _, caption in card["texts"]] == texts.caption.tolist()[:4]
            for row, _, _ in card["images"]:
                assert (page / "thumbnails" / "0" / f"{row}.webp").stat().st_size > 100
    # Neighbors of an SAE's latents are those of its atoms.
    made_of = json.loads((page / "recipe.json").read_text())["sets"][1]["dictionary"]
    sae = TopKSAE.from_pretrained(only(artifacts / "dictionaries", f"sae-*-{made_of}"))
    cosines = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    cosines = (cosines @ cosines.T).fill_diagonal_(-1)
    assert [neighbor for neighbor, _ in cards(page, "sae")[7]["neighbors"]] == cosines[7].topk(3).indices.tolist()
    index = data(page, "index")
    assert [info["alikeBy"] for info in index["sets"]] == ["correlation of activations", "cosine of decoder atoms"]
    assert [info["mono"] for info in index["sets"]] == [False, False]

    before = snapshot(artifacts)
    assert "thumbnails" not in command("explorer", *common, *EXPLORER).out
    assert snapshot(artifacts) == before

    # Scores that have come since are on the next page.
    assert command("interpretability", *common, *MONO).status == 0
    assert command("explorer", *common, *EXPLORER).status == 0
    page = newest(artifacts, "explorer")
    found = pd.read_parquet(newest(artifacts, "interpretability") / "scores.parquet")
    for modality in ("image", "text"):
        mine = found[(found.feature_set == "sae") & (found.samples == modality)].mono_corrected
        np.testing.assert_allclose(np.array(data(page, "sae/table")[f"mono_{modality}"], dtype=float), mine, rtol=1e-3)
    assert data(page, "index")["made"]["mono"] == "clip (not independent)"
    assert "CC BY-SA 4.0" in data(page, "index")["made"]["attribution"], "the licence of the thumbnails"


def test_explorer_without_thumbnails(command: Command, artifacts: Path) -> None:
    few = ("explorer.thumbnails=false", "explorer.images=3", "explorer.texts=3", "mds.min_pairs=3")
    run = command(
        "explorer", f"artifacts={artifacts}", "dataset=synthetic", "dataset.pairs=500", "features=raw", *few
    )  # fmt: skip
    assert run.status == 0, run.err
    page = next(p for p in (artifacts / "results").glob("explorer-synthetic-*") if p.is_dir())
    assert not (page / "thumbnails").exists()
    assert cards(page, "raw")[0]["texts"][0][2].startswith("concepts ")


def test_report_collects_what_belongs_and_builds_nothing(command: Command, artifacts: Path) -> None:
    common = (f"artifacts={artifacts}", *FEW, "features=[raw,sae]")
    other = (f"artifacts={artifacts}", *FEW, "features=sae", "features.k=5")
    for overrides in (common, other):  # the other is newer, but another dictionary's
        assert command("mds", *overrides).status == 0
    assert command("interpretability", *common, *MONO).status == 0
    kinds = ("features", "dictionaries", "models")
    before = [snapshot(artifacts / kind) for kind in kinds]
    run = command("report", *common)
    assert run.status == 0, run.err
    assert "make section-4.1" in run.out
    page = newest(artifacts, "report")
    html = (page / "index.html").read_text()
    recipe = json.loads((page / "recipe.json").read_text())
    mds = [name for name, _ in recipe["results"] if name.startswith("mds-")]
    for name in mds:
        sets = json.loads((artifacts / "results" / name / "recipe.json").read_text())["sets"]
        assert [s["name"] for s in sets] == ["raw", "sae"]
    assert len(mds) == 1
    summary = saved_rows(artifacts / "results" / mds[0], "summary")
    table = (page / "tables" / "mds.md").read_text()
    for row in summary:
        assert re.search(
            rf"\| {row['feature_set']} \| {row['pairs']} \| {row['groups']} \| 512 \| {row['ImgD']} \| {row['TextD']} \|",
            table,
        )
    paper = published("table5").find(feature_set="sae", model="CLIP", samples="text")
    assert f"& {paper['embsim']:.3f} & {paper['winrate']:.3f}" in (page / "tables" / "table5.tex").read_text()
    assert "CLIP RN50 (OpenAI) and DeCLIP" in html
    assert "make section-4.1" in html
    assert html.count("data:image/png;base64,") >= 3
    assert [snapshot(artifacts / kind) for kind in kinds] == before

    # Nothing new, the same page; something new, another one.
    again = snapshot(artifacts)
    assert command("report", *common).out == run.out
    assert snapshot(artifacts) == again

    # A dictionary that is not there is no reason to train it, but to say so.
    run = command("report", f"artifacts={artifacts}", *ANY, "features=[raw,ncl]", "ncl.expansion=0.5")
    assert run.status == 0, run.err
    assert [snapshot(artifacts / kind) for kind in kinds] == before
    html = (newest(artifacts, "report") / "index.html").read_text()
    assert "make appendix-a.1 FEATURES=ncl" in html
    # The features that a command takes by itself would not be those of this page.
    assert "make section-2.2 FEATURES=&#39;[raw,ncl]&#39; ARGS=" in html
    assert "make explorer FEATURES=&#39;[raw,ncl]&#39; ARGS=" in html


def test_a_report_of_nothing_names_the_options_to_begin_with(command: Command, tmp_path: Path) -> None:
    for side in ("image", "text"):
        np.save(tmp_path / f"{side}.npy", np.eye(4, dtype="float32"))
    files = (f"dataset.{side}={tmp_path}/{side}.npy" for side in ("image", "text"))
    run = command("report", f"artifacts={tmp_path}/a", "dataset=store", *files, "dataset.split=all", "features=raw")
    assert run.status == 1
    assert f"make section-2.1 DATASET=store ARGS='artifacts={tmp_path}/a dataset.image=" in run.err


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("explorer", ["explorer.images=4000"], "m=4000 top samples asked for"),
        ("explorer", ["explorer.bins=7"], "explorer.bins=7 must be a positive multiple of 4"),
        ("explorer", ["explorer.neighbors=0"], "explorer.neighbors=0 must be at least 1"),
        ("explorer", ["dataset=synthetic", "dataset.limit=null", "dataset.pairs=500"], "no images"),
        ("report", ["dataset.limit=77"], "nothing is computed yet of drawingclip on openmoji (val)"),
        ("report", ["features=sea"], "features=sea names no option"),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, artifacts: Path, name: str, overrides: list[str], message: str
) -> None:
    run = command(name, f"artifacts={artifacts}", *ANY, "features=raw", *overrides)
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1, run.out
    assert len(lines) == 1
    assert message in lines[0]
