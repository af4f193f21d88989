"""Section 4, through its entrypoints."""

from pathlib import Path

import pandas as pd
import pytest

from tests.data.test_webdataset import jpeg, write_tar
from tests.pipeline.conftest import Command, newest
from tests.pipeline.test_entrypoints import SMALL, only

FLAGS = ("concept.a=flag", "concept.b=button", "concept.words_a=[flag]", "concept.words_b=[button]")
FEW = (*SMALL, "mds.min_pairs=3", "training.snapshot_every=30")


def test_flags_and_buttons_among_emoji(command: Command, artifacts: Path) -> None:
    """The first 400 emoji are flags, buttons and few people."""
    few = (*FEW, "features=[raw,sae]", "gender.draws=5", "gender.min_samples=8")
    run = command("gender", f"artifacts={artifacts}", *few, *FLAGS)
    assert run.status == 0, run.err
    assert "labels are what captions or a classifier say" in run.out
    results = newest(artifacts, "gender-flag-button")
    table = pd.read_parquet(results / "table2.parquet")
    assert table.groupby(["feature_set", "samples", "concept"]).size().eq(4).all()
    (counts,) = pd.read_parquet(results / "labels.parquet").to_dict("records")
    assert counts["a"] >= 30
    assert counts["b"] >= 8
    text = table[(table.feature_set == "raw") & (table.samples == "text")]
    assert text.baseline.mean() > 0.6
    for name in ("table2", "figure7", "table6"):
        assert (results / f"sae-{name}.png").stat().st_size > 4_000
    decoded = command("gender", f"artifacts={artifacts}", *few, *FLAGS, "gender.space=embeddings", "features=sae")
    assert decoded.status == 0, decoded.err


def test_concepts_of_own_shards(command: Command, artifacts: Path, tmp_path: Path) -> None:
    """Captions of red and blue fruits are equal but for the color; figures are drawn again without computing."""
    files = []
    for i, fruit in enumerate(["apple", "pear", "plum", "cherry", "grape", "melon", "mango", "lemon", "lime", "fig"]):
        for j, words in enumerate(("a red", "a blue", "red and blue")):
            color = (20 * i, 9, 90 * j)
            files += [(f"{i}{j}.jpg", jpeg(color)), (f"{i}{j}.txt", f"{words} {fruit}".encode())]
    write_tar(tmp_path / "shard-0.tar", files)
    color = ("concept.a=Red", "concept.b=blue", "concept.words_a=[red]", "concept.words_b=[blue]", "mds.min_pairs=2")
    shards = (f"artifacts={artifacts}", "dataset=webdataset", f"dataset.shards={tmp_path}/shard-0.tar", "features=raw")
    arguments = (*shards, *color, "gender.min_samples=5", "gender.draws=3", "dataset.split=all")
    run = command("gender", *arguments)
    assert run.status == 0, run.err
    assert "10 Red and 10 blue, of each group one with either label; 10 ambiguous of 30 asked" in run.out
    assert "Paired test, raw: 10 pairs that differ in the concept alone" in run.out
    results = only(artifacts / "results", "gender-red-blue-*")
    shown = pd.read_parquet(results / "figure7.parquet")
    assert {file.stem for file in (results / "images").iterdir()} == set(shown.row.astype(str))

    figures = {file.name: file.read_bytes() for file in results.glob("*.png")}
    for file in results.glob("*.png"):
        file.unlink()
    recorded = (results / "recipe.json").stat().st_mtime_ns
    (results / "figures.json").write_text('{"version": 0}')
    assert command("gender", *arguments).status == 0
    assert {file.name: file.read_bytes() for file in results.glob("*.png")} == figures
    assert len(figures) == 3
    assert (results / "recipe.json").stat().st_mtime_ns == recorded


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["concept.words_a=[zebra]"], "concept 'female' has 0 samples, fewer than gender.min_samples=20"),
        (
            ["labels=column", "labels.column=caption", "concept.words_a=[zebra]"],
            "labels.column=caption has values such as ",
        ),
        (["labels=column", "labels.column=sex"], "labels.column=sex is no column of the pairs"),
        (["labels=column"], "labels=column needs a value for labels.column"),
        (["labels=classifier", "labels.model=/no/such/model"], "labels.model=/no/such/model cannot be had"),
        (["gender.space=pixels"], "gender.space=pixels is none of features, embeddings"),
        (["concept.b=female"], "concept.a=female and concept.b=female are one concept: give two"),
        ([*FLAGS, "partition.n_sigma=50", "gender.min_samples=1"], "both are needed"),
        ([*FLAGS, "features=ncl", "gender.space=embeddings", "gender.min_samples=1"], "has no decoder"),
    ],
)
def test_bad_input_is_one_clear_line(
    command: Command, artifacts: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr("mmmono.vlm.hub._hub_answers", lambda: False)
    run = command("gender", f"artifacts={artifacts}", *FEW, "features=raw", *overrides)
    lines = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert run.status == 1, run.out
    assert len(lines) == 1
    assert message in lines[0]
