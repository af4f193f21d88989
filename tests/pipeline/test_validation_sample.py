"""Validations of a large split take a sample of it."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from mmmono.data import SplitShares
from mmmono.dictionaries import Dictionary
from mmmono.features import FeatureStore, split_view
from mmmono.features.gathered import sampled_runs
from tests.pipeline.conftest import Command

SHORT = (
    "dataset=synthetic", "dataset.pairs=3000", "dataset.dim=32", "features=sae", "features.k=8", "trainer=cpu",
    "trainer.max_steps=20", "trainer.min_steps=0", "trainer.val_check_interval=10",
)  # fmt: skip


def test_fvu_is_that_of_the_sample_and_small_splits_keep_their_dictionaries(command: Command, tmp_path: Path) -> None:
    def trained(pairs: object) -> tuple[list[Path], str]:
        run = command("train", f"artifacts={tmp_path}", *SHORT, f"training.validation_pairs={pairs}")
        assert run.status == 0, run.err
        return [folder for folder in (tmp_path / "dictionaries").iterdir() if folder.is_dir()], run.out

    (whole,), out = trained("null")
    assert "validated on about" not in out
    assert trained(65536)[0] == [whole]
    both, out = trained(128)
    assert "validated on about 128 of 3" in out
    (sampled,) = set(both) - {whole}

    view = split_view(FeatureStore(next((tmp_path / "features").glob("*/"))), "select", SplitShares(0, 0.7, 0.1))
    for folder, of in ((whole, view), (sampled, sampled_runs(view, 128))):
        last = pd.read_parquet(folder / "history.parquet").iloc[-1]
        sae = Dictionary.from_pretrained(folder).double()
        for side in ("image", "text"):
            x = torch.nn.functional.normalize(of.read(side, 0, len(of)).double())
            with torch.no_grad():
                left = x - sae.decode(sae.encode(x, side), side)
            fvu = (left.square().sum() / (x - x.mean(0)).square().sum()).item()
            assert last[f"val/{side}/fvu"] == pytest.approx(fvu, rel=1e-4)
