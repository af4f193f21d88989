"""Centered features: means of the training pairs, subtracted on encoding and added again on decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA as SklearnPCA

from mmmono.core.errors import ConfigError
from mmmono.dictionaries import Dictionary, DictionaryFeatures
from mmmono.dictionaries.linear import CenteredEmbeddings, LinearMap, random_rotation
from mmmono.features import MODALITIES, FeatureStore, FeatureView, split_view
from mmmono.pipeline.feature_sets import ICA, PCA, RandomRotation, Raw
from tests.pipeline.conftest import Command, newest, saved_rows

PAIRS, DIM = 600, 6


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Pairs whose modalities have different means, as those of contrastive models do."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((PAIRS, DIM))
    for folder, mean in (("img_emb", [2, 0, 0, 1, 0, 0]), ("text_emb", [0, 2, 0, 1, 0, -1])):
        (tmp_path / "store" / folder).mkdir(parents=True)
        rows = shared + rng.standard_normal((PAIRS, DIM)) * 0.5 + mean
        np.save(tmp_path / "store" / folder / f"{folder}_0.npy", rows.astype(np.float32))
    (tmp_path / "store" / "metadata").mkdir()
    frame = pd.DataFrame({"key": [f"{i}" for i in range(PAIRS)], "caption": ["a"] * PAIRS})
    frame.to_parquet(tmp_path / "store" / "metadata" / "metadata_0.parquet")
    return tmp_path / "store"


def unit(view: FeatureView) -> np.ndarray:
    """Normalized embeddings, float64 of shape [2, pairs, dim]."""
    rows = np.stack([view.read(modality, 0, len(view)).numpy().astype(np.float64) for modality in MODALITIES])
    return rows / np.linalg.norm(rows, axis=2, keepdims=True)


def mds(z: np.ndarray) -> np.ndarray:
    return (np.abs(z[0]) / np.abs(z).sum(0)).mean(0)


@pytest.mark.parametrize("center", ["pooled", "per_modality"])
@pytest.mark.parametrize("of", [Raw, PCA, ICA, RandomRotation], ids=lambda of: of.__name__)
def test_the_training_means_are_subtracted_and_added_again(of: type, center: str, store: Path, tmp_path: Path) -> None:
    settings = {} if of is Raw else {"settings": {"max_pairs": PAIRS, "max_iter": 50}}
    train = split_view(FeatureStore(store), "train")
    of(center=center, **settings).fit(train, normalize=True, seed=3).save_pretrained(tmp_path / "made")
    made = DictionaryFeatures("x", Dictionary.from_pretrained(tmp_path / "made"))
    assert made.decodes
    z = unit(train)
    codes = {}
    for side, modality in zip(z, MODALITIES, strict=True):
        embeddings = torch.from_numpy(side).float().requires_grad_()
        codes[modality] = made.encode(embeddings, modality)
        torch.testing.assert_close(made.decode(codes[modality], modality), embeddings, rtol=1e-4, atol=1e-5)
        (gradient,) = torch.autograd.grad(codes[modality].sum(), embeddings)
        assert bool((gradient != 0).any())
    means = np.stack([codes[m].detach().numpy().mean(0) for m in MODALITIES])
    np.testing.assert_allclose(means.mean(0), 0, atol=2e-5)
    assert (np.abs(means).max() < 2e-5) == (center == "per_modality")


def test_raw_features_and_rotations_are_centered_embeddings(store: Path) -> None:
    train = split_view(FeatureStore(store), "train")
    z = unit(train)
    raw = Raw(center="per_modality").fit(train, True, 0)
    rotation = RandomRotation(center="per_modality").fit(train, True, 5)
    pooled = Raw(center="pooled").fit(train, False, 0)
    for i, modality in enumerate(MODALITIES):
        embeddings = torch.from_numpy(z[i]).float()
        np.testing.assert_allclose(raw.encode(embeddings, modality), z[i] - z[i].mean(0), atol=1e-6)
        turned = (z[i] - z[i].mean(0)) @ random_rotation(DIM, 5).forward_map.numpy().T
        np.testing.assert_allclose(rotation.encode(embeddings, modality), turned, atol=1e-6)
    lengths = np.stack([train.read(m, 0, len(train)).numpy() for m in MODALITIES])
    np.testing.assert_allclose(pooled.offset, np.stack([lengths.mean((0, 1))] * 2), atol=1e-6)


def test_pca_of_centered_embeddings_is_scikit_learns(store: Path) -> None:
    train = split_view(FeatureStore(store), "train")
    z = unit(train)
    centered = z - z.mean(1, keepdims=True)
    control = PCA(settings={"max_pairs": PAIRS}, center="per_modality").fit(train, True, 0)
    expected = SklearnPCA().fit(centered.reshape(-1, DIM))
    got = control.encode(torch.from_numpy(z[1]).float(), "text").numpy()
    np.testing.assert_allclose(np.abs(got), np.abs(expected.transform(centered[1])), atol=1e-4)


def test_without_centering_recipes_and_files_are_what_they_were(tmp_path: Path) -> None:
    """Dictionaries of earlier versions keep their addresses, and load."""
    assert RandomRotation().recipe() == {"settings": {}}
    assert PCA(settings={"max_pairs": 9}).recipe() == {"settings": {"max_pairs": 9}}
    assert not Raw().made
    assert Raw(center="pooled").made
    assert random_rotation(4).config() == {"dim": 4, "num_features": 4}
    assert random_rotation(4).offset.shape == (4,)


def test_an_unknown_center_is_refused(store: Path) -> None:
    with pytest.raises(ConfigError, match="features.center=middle is none of none, pooled, per_modality"):
        Raw(center="middle").fit(FeatureView(FeatureStore(store)), True, 0)


def test_maps_after_means(tmp_path: Path) -> None:
    means = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    linear = LinearMap.of(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([0.5, 0.0])).after(means)
    z = torch.tensor([[5.0, 5.0]])
    assert linear.encode(z, "image").tolist() == [[6.0, 3.5]]
    assert linear.encode(z, "text").tolist() == [[2.0, 1.5]]
    assert CenteredEmbeddings.of(means).encode(z, "text").tolist() == [[2.0, 1.0]]


def test_figure_4_compares_centered_with_uncentered_features(command: Command, store: Path, tmp_path: Path) -> None:
    sets = "features=[raw,raw_centered,random_rotation,rotation_centered]"
    data = (f"artifacts={tmp_path / 'made'}", "dataset=store", f"dataset.path={store}", "device=cpu", "seed=2")
    run = command("mds", *data, sets)
    assert run.status == 0, run.err
    rows = saved_rows(newest(tmp_path / "made", "mds"), "scores")
    got = {name: np.array([r["mds"] for r in rows if r["feature_set"] == name]) for name in
           ("raw", "raw_centered", "random_rotation", "rotation_centered")}  # fmt: skip
    train, val = (unit(split_view(FeatureStore(store), split)) for split in ("train", "val"))
    centered = val - train.mean(1, keepdims=True)
    rotation = random_rotation(DIM, 2).forward_map.double().numpy().T
    np.testing.assert_allclose(got["raw"], mds(val), atol=1e-6)
    np.testing.assert_allclose(got["raw_centered"], mds(centered), atol=1e-5)
    np.testing.assert_allclose(got["random_rotation"], mds(val @ rotation), atol=1e-5)
    np.testing.assert_allclose(got["rotation_centered"], mds(centered @ rotation), atol=1e-5)
    run = command("mds", *data, "features=[raw,pca]", "features.center=pooled")
    assert run.status == 0, run.err
    rows = saved_rows(newest(tmp_path / "made", "mds"), "scores")
    pooled = np.array([r["mds"] for r in rows if r["feature_set"] == "raw"])
    np.testing.assert_allclose(pooled, mds(val - train.mean((0, 1))), atol=1e-5)


def test_other_analyses_take_centered_features(command: Command, store: Path, tmp_path: Path) -> None:
    data = (f"artifacts={tmp_path / 'made'}", "dataset=store", f"dataset.path={store}", "device=cpu")
    run = command("faithfulness", *data, "features=[raw,raw_centered]")
    assert run.status == 0, run.err
    results = newest(tmp_path / "made", "faithfulness")
    for row in saved_rows(results, "reconstruction"):
        assert row["fvu"] == pytest.approx(0, abs=1e-9)
    spaces = [(row["feature_set"], row["space"]) for row in saved_rows(results, "function")]
    assert spaces == [("", "embeddings"), ("raw_centered", "features"), ("raw_centered", "reconstruction")]
    gaps = [row["gap"] for row in saved_rows(results, "function")]
    assert gaps[1] < gaps[0] / 4  # what is left is the difference of the splits
    run = command("mds", *data, "features=raw", "features.center=median")
    assert run.status == 1
    assert "features.center=median is none of none, pooled, per_modality" in run.err
