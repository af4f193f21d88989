"""Section 4, through its entrypoints."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.data.test_webdataset import jpeg, write_tar
from tests.pipeline.conftest import Command
from tests.pipeline.test_entrypoints import SMALL, only
from tests.pipeline.test_sections_2_3 import newest

FLAGS = ("concept.a=flag", "concept.b=button", "concept.words_a=[flag]", "concept.words_b=[button]")
FEW = (*SMALL, "mds.min_pairs=3", "training.snapshot_every=30")


def test_flags_and_buttons_among_emoji(command: Command, artifacts: Path) -> None:
    """The first 400 emoji are flags, buttons and few people."""
    few = (*FEW, "features=[raw,sae]", "concepts.draws=5", "concepts.min_samples=8")
    run = command("gender", f"artifacts={artifacts}", *few, *FLAGS)
    assert run.status == 0, run.err
    assert "labels are what captions or a classifier say" in run.out
    results = newest(artifacts, "gender-flag_button")
    table = pd.read_parquet(results / "table2.parquet")
    assert table.groupby(["feature_set", "samples", "concept"]).size().eq(3).all()
    counts = json.loads((results / "labels.json").read_text())
    assert counts["flag"] >= 30
    assert counts["button"] >= 8
    text = table[(table.feature_set == "raw") & (table.samples == "text")]
    assert text.baseline.mean() > 0.6
    for name in ("table2", "figure7", "table6"):
        assert (results / f"sae-{name}.png").stat().st_size > 4_000
    decoded = command("gender", f"artifacts={artifacts}", *few, *FLAGS, "concepts.space=embeddings", "features=sae")
    assert decoded.status == 0, decoded.err


def test_concepts_of_own_shards(command: Command, artifacts: Path, tmp_path: Path) -> None:
    files = []
    for i in range(30):
        word = ("a red thing", "a blue thing", "red and blue")[i % 3]
        files += [(f"{i:02d}.jpg", jpeg((8 * i, 9, 255 - 8 * i))), (f"{i:02d}.txt", f"{word} number {i}".encode())]
    write_tar(tmp_path / "shard-0.tar", files)
    color = ("concept.a=red", "concept.b=blue", "concept.words_a=[red]", "concept.words_b=[blue]", "mds.min_pairs=2")
    shards = (f"artifacts={artifacts}", "dataset=webdataset", f"dataset.shards={tmp_path}/shard-0.tar", "features=raw")
    run = command("gender", *shards, *color, "concepts.min_samples=5", "concepts.draws=3", "dataset.split=all")
    assert run.status == 0, run.err
    assert "10 red, 10 blue, 10 ambiguous of 30" in run.out
    assert only(artifacts / "results", "gender-red_blue-*").joinpath("raw-table6.png").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["concept.words_a=[zebra]"], "concept 'female' has 0 samples, fewer than concepts.min_samples=20"),
        (["labels=column", "labels.column=sex"], "labels.column=sex is no column of the pairs"),
        (["labels=column"], "labels=column needs a value for labels.column"),
        (["labels=classifier", "labels.model=/no/such/model"], "labels.model=/no/such/model cannot be had"),
        (["concepts.space=pixels"], "concepts.space=pixels is none of features, embeddings"),
        ([*FLAGS, "partition.n_sigma=50", "concepts.min_samples=1"], "both are needed"),
        ([*FLAGS, "features=ncl", "concepts.space=embeddings", "concepts.min_samples=1"], "has no decoder"),
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
