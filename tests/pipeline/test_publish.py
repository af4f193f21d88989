"""A dictionary is written for others, put on a hub, and read from there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmmono.dictionaries import Dictionary
from mmmono.dictionaries.readers.reading import load_dictionary
from mmmono.dictionaries.readers.trained_on import TrainedOn, read_trained_on
from tests.pipeline.conftest import Command
from tests.rehearsal.hub import TOKEN, Hub

FEW = (
    "dataset=synthetic", "dataset.pairs=400", "trainer.max_steps=20", "trainer.min_steps=1",
    "trainer.val_check_interval=10",
)  # fmt: skip


@pytest.mark.slow
def test_a_dictionary_is_published(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (f"artifacts={tmp_path / 'artifacts'}", *FEW, f"publish.folder={tmp_path / 'published'}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    there = tmp_path / "hub" / "models" / "lab" / "sae"
    with Hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        run = command("publish", *given, "features.k=4", "publish.repository=lab/sae", "publish.license=mit")
        assert run.status == 0, run.err
        assert f"{hub.url}/lab/sae" in run.out
        mine = {path.relative_to(there) for path in there.rglob("*") if path.is_file()}
        card, read_here = (there / "README.md").read_text(), load_dictionary(there)
        read_there = load_dictionary(there / "saelens")
        assert command("publish", *given, "features=pca", "publish.repository=lab/sae").status == 0
        assert {path.name for path in there.rglob("*") if path.is_file()} == {
            "README.md",
            "config.json",
            "embeddings.json",
            "weights.safetensors",
        }
        refused = command("publish", *given, "features.k=4", "publish.repository=no-write/sae")
    (folder,) = (tmp_path / "published").glob("sae-*")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(mine)
    assert {str(file) for file in files} == {
        "README.md", "config.json", "embeddings.json", "weights.safetensors", "training_curves.png", "saelens/cfg.json",
        "saelens/sae_weights.safetensors",
    }  # fmt: skip
    assert read_trained_on(there) == TrainedOn("synthetic", "synthetic", normalize=True)
    assert read_trained_on(there / "saelens") == TrainedOn()  # nobody's embeddings
    assert card.startswith("---\n")
    for told in ("license: mit", "library_name: mmmono", 'load_dictionary("lab/sae")', "| image/fvu |", '"k": 4'):
        assert told in card
    assert str(tmp_path) not in card, "a place on this machine is nobody's business"
    (trained,) = (tmp_path / "artifacts" / "dictionaries").glob("sae-*/config.json")
    ours = Dictionary.from_pretrained(trained.parent)
    z = torch.randn(20, ours.dim)
    for read in (read_here, read_there):
        torch.testing.assert_close(read.encode(z, "text"), ours.encode(z, "text"), atol=1e-5, rtol=1e-5)
    assert refused.status == 1
    assert "the token may not write there: use one that may" in refused.err


def test_what_cannot_be_published_is_told_before_it_is_trained(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("mmmono.commands.publish.command.hub_token", lambda: None)
    given = (f"artifacts={tmp_path}", *FEW, f"publish.folder={tmp_path / 'published'}")
    for overrides, expected in (
        (["publish.repository=lab/sae"], "publish.repository=lab/sae needs a token that may write"),
        (["publish.repository=sae"], "publish.repository=sae is no id on the hub"),
        (["publish.license=my licence"], "publish.license=my licence is no name of a licence"),
        (["features=[sae,ncl]"], "features=sae,ncl has 2 dictionaries: choose one"),
        (["features=pretrained", f"dictionary.path={tmp_path}"], "that somebody else trained"),
        (["features=raw"], "features=raw has 0 dictionaries: choose one"),
    ):
        run = command("publish", *given, *overrides)
        assert run.status == 1
        assert expected in run.err
    assert not (tmp_path / "dictionaries").exists()


@pytest.mark.parametrize(
    ("given", "head", "by"),
    [
        ((), "# linear on embeddings\n", "embeddings of width 8, fitted on"),
        (("model.name=clip",), "# linear on embeddings of clip\n", "of width 8 by `clip`, fitted on"),
    ],
)
def test_a_card_names_no_model_that_nobody_named(
    command: Command, tmp_path: Path, given: tuple[str, ...], head: str, by: str
) -> None:
    for side in ("image", "text"):
        np.save(tmp_path / f"{side}.npy", np.random.default_rng(len(side)).normal(size=(80, 8)).astype("float32"))
    run = command(
        "publish", f"artifacts={tmp_path / 'a'}", "dataset=store", f"dataset.image={tmp_path / 'image.npy'}",
        f"dataset.text={tmp_path / 'text.npy'}", f"publish.folder={tmp_path / 'published'}", "features=pca", *given,
    )  # fmt: skip
    assert run.status == 0, run.err
    assert ("does not say which model made the embeddings: model.name=" in run.out) == (not given)
    (card,) = (tmp_path / "published").glob("*/README.md")
    assert head in card.read_text()
    assert by in card.read_text()
