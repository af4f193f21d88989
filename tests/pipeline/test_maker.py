"""Analyses that compare the model's own embeddings with those that a store brought along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.features import FeatureStore
from mmmono.vlm import load_open_clip
from tests.pipeline.conftest import Command, newest
from tests.pipeline.test_remote_shards import MODEL

KINDS = ("dog", "cat", "boat")
RANDOM = "consequences.n_random=2"
LABEL = ("dataset.label=kind", "mds.min_pairs=2", "features=raw", "device=cpu")


@pytest.fixture
def captions() -> list[str]:
    return [f"a {KINDS[number % 3]} number {number}" for number in range(60)]


@pytest.fixture
def embedded(captions: list[str]) -> np.ndarray:
    torch.manual_seed(0)  # model.seed
    encoder = load_open_clip("ViT-S-32-alt", None)
    with torch.inference_mode():
        return encoder.encode_text(encoder.tokenize(captions)).numpy()


def files(folder: Path, text: np.ndarray, captions: list[str] | None) -> tuple[str, ...]:
    """Arguments for pairs with these embeddings of texts, and noisy ones of images."""
    noise = np.random.default_rng(0).normal(size=text.shape) * text.std()
    np.save(folder / "image.npy", (text + noise).astype(np.float32))
    np.save(folder / "text.npy", text.astype(np.float32))
    rows: dict[str, object] = {"key": range(len(text)), "kind": [KINDS[number % 3] for number in range(len(text))]}
    pd.DataFrame(rows | ({} if captions is None else {"caption": captions})).to_csv(folder / "rows.csv", index=False)
    return (
        f"artifacts={folder / 'a'}", "dataset=store", f"dataset.image={folder / 'image.npy'}", "dataset.split=all",
        f"dataset.text={folder / 'text.npy'}", f"dataset.metadata={folder / 'rows.csv'}", *LABEL,
    )  # fmt: skip


def test_labels_are_embedded_by_the_model_that_made_the_pairs(
    tmp_path: Path, command: Command, embedded: np.ndarray, captions: list[str]
) -> None:
    run = command("consequences", RANDOM, *files(tmp_path, embedded, ["", *captions[1:]]), *MODEL)
    assert run.status == 0, run.err
    assert "embeds captions" not in run.out
    effects = pd.read_parquet(newest(tmp_path / "a", "consequences") / "effects.parquet")
    assert "zero_shot" in set(effects["measure"])


@pytest.mark.parametrize(
    ("noise", "model", "says"),
    [
        (
            4.0,
            MODEL,
            "and model=random embeds their captions otherwise: the median cosine between both for 16 captions is 0.",
        ),
        (0.0, (), "and nothing says which it was: choose it (model=)"),
        (0.0, ("model=clip_vit_b32",), "and they have 256 dimensions, those of model=clip_vit_b32 512"),
    ],
)
def test_another_model_is_one_line(
    tmp_path: Path, command: Command, embedded: np.ndarray, captions: list[str], noise: float, model: tuple[str, ...],
    says: str,
) -> None:  # fmt: skip
    text = embedded + noise * embedded.std() * np.random.default_rng(1).normal(size=embedded.shape)
    given = files(tmp_path, text, captions)
    run = command("consequences", RANDOM, *given, *model)
    assert run.status == 1
    needs = "error: zero-shot classification (dataset.label=kind) needs the model that made the embeddings of store, "
    assert run.err.startswith(needs + says)
    assert run.err.endswith("dataset.label=null leaves it out\n")
    assert run.err.count("\n") == 1
    run = command("consequences", RANDOM, *given, *model, "dataset.label=null")
    assert run.status == 0, run.err


@pytest.mark.parametrize("analysis", ["consequences", "faithfulness", "objectives"])
def test_what_is_known_without_the_model_is_said_before_any_training(
    tmp_path: Path, command: Command, embedded: np.ndarray, captions: list[str], analysis: str
) -> None:
    given = (one for one in files(tmp_path, embedded, captions) if not one.startswith("features="))
    run = command(analysis, *given, "features=sae", "training.split=all")
    assert run.status == 1
    assert "nothing says which it was" in run.err
    assert not (tmp_path / "a" / "dictionaries").exists()


def test_what_is_not_sure_is_told(tmp_path: Path, command: Command, embedded: np.ndarray, captions: list[str]) -> None:
    text = embedded + 0.7 * embedded.std() * np.random.default_rng(1).normal(size=embedded.shape)
    for folder, of, says in (("a", captions, "otherwise than they are stored"), ("b", None, "it has no captions")):
        (tmp_path / folder).mkdir()
        run = command("consequences", RANDOM, *files(tmp_path / folder, text, of), *MODEL)
        assert run.status == 0, run.err
        assert says in " ".join(run.out.split())


def test_embeddings_without_a_maker_are_nobodys(
    tmp_path: Path, command: Command, embedded: np.ndarray, captions: list[str]
) -> None:
    given = files(tmp_path, embedded, captions)
    assert "unnamed on store (all" in command("mds", *given).out
    assert "mine on store (all" in command("mds", *given, "model.name=mine").out
    assert "Plan: unnamed on store" in command("plan", *given, "plan.targets=[section-2.1]").out
    run = command("consequences", RANDOM, *given, "model.name=mine")
    assert "made the embeddings of store, and all that is known of mine is its name: choose it (model=)" in run.err
    made = FeatureStore(next((tmp_path / "a" / "features").glob("mine-files-*")))
    assert len(made) == len(captions)
    assert (
        "classes of the features: synthetic (val"
        in command(
            "mds", f"artifacts={tmp_path / 'a'}", "dataset=synthetic", "dataset.pairs=400", "features=raw"
        ).out.lower()
    )


def test_the_default_model_may_be_chosen_for_embeddings(
    tmp_path: Path, command: Command, embedded: np.ndarray, captions: list[str]
) -> None:
    given = (*files(tmp_path, embedded, captions), "model=drawingclip")
    assert "drawingclip on store (all" in command("mds", *given).out
    run = command("consequences", RANDOM, *given)
    assert "and they have 256 dimensions, those of model=drawingclip 512" in run.err
