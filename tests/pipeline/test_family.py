"""Other kinds of autoencoders, and dictionaries of others, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
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


def test_files_that_do_not_fit_are_reported_before_features_are_extracted(command: Command, tmp_path: Path) -> None:
    TopKSAE(5, 9, 2).save_pretrained(tmp_path / "narrow")
    common = ("model=clip_vit_b32", "dataset=webdataset", "dataset.shards=pipe:false", f"artifacts={tmp_path / 'a'}")
    for features, option in (("pretrained", "dictionary.path"), ("sae", "sae.init_from")):
        for path, says in (
            ("narrow", "takes embeddings of width 5, these have 512"),
            ("nowhere", "neither a file, nor"),
        ):
            run = command("mds", *common, f"features={features}", f"{option}={tmp_path / path}")
            assert run.status == 1
            assert f"{option}={tmp_path / path} is {says}" in run.err or f"{option}={tmp_path / path} {says}" in run.err
    assert not list(tmp_path.glob("a/features/*"))
    run = command("plan", *common, "features=pretrained", f"dictionary.path={tmp_path / 'narrow'}")
    assert "will fail" in run.out
    assert "takes embeddings of width 5" in " ".join(run.out.split())


@pytest.mark.slow
def test_a_training_starts_from_a_trained_one(command: Command, tmp_path: Path) -> None:
    few = (
        f"artifacts={tmp_path / 'artifacts'}", "dataset=synthetic", "dataset.pairs=400", "features.k=4",
        "trainer.min_steps=1", "trainer.val_check_interval=10",
    )  # fmt: skip

    def first_fvu(*overrides: str) -> tuple[Path, float]:
        before = set((tmp_path / "artifacts" / "dictionaries").glob("*/config.json"))
        run = command("train", *few, *overrides)
        assert run.status == 0, run.err
        (made,) = set((tmp_path / "artifacts" / "dictionaries").glob("*/config.json")) - before
        return made.parent, float(pd.read_parquet(made.parent / "history.parquet")["val/image/fvu"].iloc[0])

    long, _ = first_fvu("features=batch_topk", "trainer.max_steps=300")
    _, fresh = first_fvu("features=sae", "trainer.max_steps=10")
    started, continued = first_fvu("features=sae", "trainer.max_steps=10", f"sae.init_from={long}")
    assert continued < 0.8 * fresh
    recipe = json.loads((started / "recipe.json").read_text())
    assert str(tmp_path) not in json.dumps(recipe), "what it starts from is known by its content, not by its place"
    (tmp_path / "elsewhere").symlink_to(long)
    assert (
        command("train", *few, "features=sae", "trainer.max_steps=10", f"sae.init_from={tmp_path / 'elsewhere'}").status
        == 0
    )
    assert len(list((tmp_path / "artifacts" / "dictionaries").glob("sae-*/config.json"))) == 2
    for path, features, expected in (
        ("nowhere", "sae", "sae.init_from=nowhere is neither a file, nor a folder, nor an id on the hub"),
        (long, "tied", "its encoder is not its decoder: set tied.encoder=transposed"),
        (long, "matryoshka", "set matryoshka.expansion=1,"),
    ):
        expansion = 2 if features == "matryoshka" else 1
        run = command(
            "train", *few, f"features={features}", f"{features}.init_from={path}", f"features.expansion={expansion}"
        )
        assert run.status == 1
        assert expected in run.err
        assert f"{features}.init_from={path}" in run.err


@pytest.mark.slow
def test_a_dictionary_of_other_weights_is_refused_by_name(command: Command, tmp_path: Path) -> None:
    """Its folder says which made the embeddings that it was trained on, and how these were scaled."""
    few = (f"artifacts={tmp_path / 'artifacts'}", "dataset=synthetic", "dataset.pairs=400")
    brief = ("features.k=4", "trainer.max_steps=30", "trainer.min_steps=1", "trainer.val_check_interval=10")
    assert command("train", *few, *brief, "features=sae").status == 0
    (folder,) = (config.parent for config in (tmp_path / "artifacts" / "dictionaries").glob("sae-*/config.json"))
    use = (*few, "features=pretrained", f"dictionary.path={folder}", "mds.min_pairs=1")
    run = command("mds", *use)
    assert run.status == 0, run.err
    run = command("mds", *use, "features.normalize=false")
    assert run.status == 1
    assert "was trained with features.normalize=true: give that" in run.err
    told = json.loads((folder / "embeddings.json").read_text())
    (folder / "embeddings.json").write_text(json.dumps({**told, "model": "clip_b", "fingerprint": "open_clip:b:1"}))
    run = command("mds", *use)
    assert run.status == 1
    assert "was trained on embeddings by clip_b (open_clip:b:1), these are by synthetic (synthetic): " in run.err
    run = command("mds", *use, "dictionary.any_model=true")
    assert run.status == 0, run.err


@pytest.mark.slow
def test_what_another_library_says_of_the_model_is_told(command: Command, tmp_path: Path) -> None:
    few = (f"artifacts={tmp_path / 'artifacts'}", "dataset=synthetic", "dataset.pairs=400", "dataset.dim=16")
    export_to_saelens(TopKSAE(16, 32, 16), tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "cfg.json").read_text())
    config["metadata"] = {"model_name": "ViT-B-32", "hook_name": "blocks.9.hook_resid_post"}
    (tmp_path / "theirs" / "cfg.json").write_text(json.dumps(config))
    given = ("features=pretrained", f"dictionary.path={tmp_path / 'theirs'}", "dictionary.max_fvu=null")
    run = command("mds", *few, *given, "mds.min_pairs=1")
    assert run.status == 0, run.err
    assert (
        "was trained on ViT-B-32 at blocks.9.hook_resid_post, as its files say; these are embeddings by synthetic"
        in (" ".join(run.out.split()))
    )
