"""Other seeds through the entrypoint, on synthetic pairs, and what the explorer shows of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

from mmmono.dictionaries import Dictionary
from mmmono.features import FeatureStore
from mmmono.features.selection import split_view
from mmmono.modality import dominance_scores
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.test_entrypoints import only, snapshot

SYNTHETIC = (
    "dataset=synthetic", "dataset.pairs=900", "dataset.dim=16", "features.k=3", "trainer=cpu", "trainer.max_steps=60",
    "trainer.min_steps=0", "trainer.val_check_interval=30", "training.snapshot_every=null", "mds.min_pairs=3",
)  # fmt: skip
FEW = ("consensus.n_seeds=2", "consensus.n_chance=2", "consensus.n_halves=3", "consensus.n_bootstrap=50")


@pytest.mark.slow
def test_consensus_of_three_seeds_is_what_numpy_finds(command: Command, tmp_path: Path) -> None:
    arguments = (f"artifacts={tmp_path}", *SYNTHETIC, "features=[raw,sae]", *FEW, "consensus.threshold=0.5")
    run = command("consensus", *arguments)
    assert run.status == 0, run.err
    results = newest(tmp_path, "consensus")
    [summary] = saved_rows(results, "summary")  # raw dimensions depend on no seed
    features = pd.read_parquet(results / "features.parquet")
    store = FeatureStore(only(tmp_path / "features", "synthetic-*"))
    sides = {
        split: [torch.nn.functional.normalize(view.read(m, 0, len(view)).float(), dim=1) for m in ("image", "text")]
        for split in ("train", "val")
        if (view := split_view(store, split))  # type: ignore[arg-type]
    }
    codes, held_out, scores = {}, {}, {}
    for folder in (tmp_path / "dictionaries").glob("sae-*/"):
        seed = json.loads((folder / "recipe.json").read_text())["seed"]
        dictionary = Dictionary.from_pretrained(folder)
        with torch.no_grad():
            codes[seed], held_out[seed] = (
                [dictionary.encode(side, m).numpy() for side, m in zip(sides[split], ("image", "text"), strict=True)]  # type: ignore[arg-type]
                for split in ("train", "val")
            )
        scores[seed] = dominance_scores([tuple(map(torch.from_numpy, held_out[seed]))])  # type: ignore[list-item]
    assert sorted(codes) == [0, 1, 2]
    centered, apart = (
        {seed: np.concatenate([c - c.mean(0) for c in both]).astype(float) for seed, both in of.items()}
        for of in (codes, held_out)
    )
    matches, rhos, others = [], [], []
    for seed in (1, 2):
        with np.errstate(invalid="ignore"):
            r, there = (np.nan_to_num(np.corrcoef(of[0], of[seed], rowvar=False)[:16, 16:]) for of in (centered, apart))
        rows, columns = linear_sum_assignment(-r)
        matches.append(there[rows, columns])  # matched on the training pairs, correlated on the others
        live = (scores[0].informative_pairs >= 3) & (scores[seed].informative_pairs[columns] >= 3)
        others.append(scores[seed].scores[columns].numpy())
        rhos.append(spearmanr(scores[0].scores[live], others[-1][live]).statistic)
    np.testing.assert_allclose(features["match"], np.min(matches, axis=0), atol=1e-5)
    np.testing.assert_allclose(features["others_mds"], np.nanmean(others, axis=0), atol=1e-6)
    np.testing.assert_allclose(features["mds"], scores[0].scores, atol=1e-6)
    assert summary["rho"] == pytest.approx(np.mean(rhos), abs=1e-6)
    assert summary["match"] == pytest.approx(np.mean(matches), abs=1e-5)
    assert (summary["seeds"], summary["groups"]) == (3, len(sides["val"][0]))
    assert (
        summary["consensus"] == features["consensus"].sum() == ((features["match"] > 0.5) & features["consensus"]).sum()
    )
    assert summary["chance_match"] < summary["match"]
    shares = features[["ImgD", "TextD", "CrossD"]]
    assert ((3 * shares) % 1).abs().to_numpy().max() < 1e-9
    assert (shares.to_numpy().sum(1) <= 1 + 1e-9).all()
    before = snapshot(tmp_path)
    assert command("consensus", *arguments).out == run.out
    assert snapshot(tmp_path) == before


@pytest.mark.slow
def test_splits_that_share_pairs_are_halved(command: Command, tmp_path: Path) -> None:
    run = command("consensus", f"artifacts={tmp_path}", *SYNTHETIC, "dataset.split=all", "features=sae", *FEW)
    assert run.status == 0, run.err
    [summary] = saved_rows(newest(tmp_path, "consensus"), "summary")
    assert (summary["groups"], summary["matched_groups"]) == (450, 450)


def test_without_a_trained_set_no_seed_matters(command: Command, tmp_path: Path) -> None:
    run = command("consensus", f"artifacts={tmp_path}", "dataset=synthetic", "features=raw")
    assert run.status == 1
    assert "features=[raw] has no trained feature set" in run.err
    assert "choose features=sae" in run.err
    run = command("consensus", f"artifacts={tmp_path}", "dataset=synthetic", "consensus.n_seeds=0")
    assert "consensus.n_seeds=0 must be at least 1" in run.err
