"""Other kinds of autoencoders, and dictionaries of others, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmmono.dictionaries import Dictionary, TopKSAE
from mmmono.dictionaries.saelens import export_to_saelens
from tests.pipeline.conftest import Command, newest, saved_rows


@pytest.mark.slow
def test_a_dictionary_goes_out_and_comes_back(command: Command, tmp_path: Path) -> None:
    """Trained here, saved as SAELens saves, and read as somebody else's: the same numbers."""
    few = (
        f"artifacts={tmp_path / 'artifacts'}", "dataset=synthetic", "dataset.pairs=400", "features.k=4",
        "trainer.max_steps=30", "trainer.min_steps=1", "trainer.val_check_interval=10",
    )  # fmt: skip
    run = command("train", *few, "features=batch_topk")
    assert run.status == 0, run.err
    (trained,) = (tmp_path / "artifacts" / "dictionaries").glob("batch_topk-*/config.json")
    sae = Dictionary.from_pretrained(trained.parent)
    assert sae.threshold is not None
    export_to_saelens(sae, tmp_path / "theirs")
    path = f"dictionary.path={tmp_path / 'theirs'}"
    run = command("faithfulness", *few, "features=[batch_topk,pretrained]", path)
    assert run.status == 0, run.err
    rows = saved_rows(newest(tmp_path / "artifacts", "faithfulness"), "reconstruction")
    ours, theirs = ([row for row in rows if row["feature_set"] == name] for name in ("batch_topk", "pretrained"))
    assert [row["samples"] for row in ours] == ["image", "text"]
    for own, other in zip(ours, theirs, strict=True):
        assert own["l0"] == pytest.approx(4, abs=2)
        for column in ("fvu", "l0", "cosine", "active"):
            assert other[column] == pytest.approx(own[column], rel=1e-4), column
    run = command("mds", *few[:3], "features=pretrained", path, "dictionary.max_fvu=0.001")
    assert run.status == 1
    assert "more than dictionary.max_fvu=0.001" in run.err
    TopKSAE(5, 9, 2).save_pretrained(tmp_path / "narrow")
    run = command("mds", *few[:3], "features=pretrained", f"dictionary.path={tmp_path / 'narrow'}")
    assert run.status == 1
    assert "takes embeddings of width 5, these have" in run.err
    run = command("mds", *few[:3], "features=pretrained", f"dictionary.path={tmp_path / 'nowhere'}")
    assert run.status == 1
    assert "neither a file, nor a folder, nor an id on the hub" in run.err
