"""Pairs that are not independent give the conclusions of one pair a group, from the command line to the saved tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmmono.core.artifacts import Artifact, Artifacts
from mmmono.features import FeatureStore
from mmmono.features.grouping import Grouping
from mmmono.pipeline import groups
from mmmono.pipeline.groups import counted
from tests.features.test_grouping import store_of
from tests.pipeline.conftest import Command, newest, saved_rows
from tests.pipeline.test_robustness import as_store

GROUPS, DIM = 150, 32
RESAMPLED = ("certainty.n_permutations=400", "certainty.n_bootstrap=60", "certainty.n_halves=2")
CERTAIN = ("p_value", "q_value", "low", "high", "ImgD_probability", "border_q_value")


def embeddings() -> np.ndarray:
    """Weakly modal dimensions: some lean to a side by their variance, most by chance alone."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, GROUPS, DIM))
    z[0, :, :4] *= 1.8
    z[1, :, 4:8] *= 1.8
    return z / np.linalg.norm(z, axis=2, keepdims=True)


def results(
    command: Command, folder: Path, z: np.ndarray, groups: Sequence[str], *more: str
) -> dict[str, pd.DataFrame]:
    folder.mkdir()
    given = (*as_store(folder, z, list(groups)), "features=raw", *more)
    for name, settings in (("mds", ()), ("certainty", RESAMPLED)):
        run = command(name, *given, *settings)
        assert run.status == 0, run.err
        pairs, count = z.shape[1], len(set(groups))
        assert more or (f"{pairs} pairs, {count} groups" if pairs != count else f"{pairs} pairs") in run.out
    made = folder / "made"
    return {
        "mds": pd.DataFrame(saved_rows(newest(made, "mds"), "summary")),
        "summary": pd.DataFrame(saved_rows(newest(made, "certainty"), "summary")),
        "scores": pd.read_parquet(newest(made, "certainty") / "scores.parquet"),
    }


@pytest.fixture(scope="module")
def names() -> list[str]:
    return [f"image {i}" for i in range(GROUPS)]


@pytest.mark.slow
def test_five_captions_an_image_conclude_what_one_does(command: Command, tmp_path: Path, names: list[str]) -> None:
    z = embeddings()
    one = results(command, tmp_path / "one", z, names)
    five = results(command, tmp_path / "five", z.repeat(5, axis=1), list(np.repeat(names, 5)))
    for column in ("ImgD", "TextD", "std", "null_std", "reliability"):
        np.testing.assert_allclose(five["mds"][column], one["mds"][column], rtol=1e-5)
    for column in ("significant", "ImgD_confirmed", "TextD_confirmed"):
        assert five["summary"][column].tolist() == one["summary"][column].tolist()
    for column in ("standard_error", *CERTAIN):
        np.testing.assert_allclose(five["scores"][column], one["scores"][column], rtol=1e-5, atol=1e-8)
    assert 0 < one["summary"]["significant"][0] < 20


@pytest.mark.slow
def test_pairs_that_are_taken_as_independent_conclude_too_much(
    command: Command, tmp_path: Path, names: list[str]
) -> None:
    """The same data with a group for each pair: what a wrong `dataset.group` does."""
    z = embeddings().repeat(5, axis=1)
    right = results(command, tmp_path / "right", z, list(np.repeat(names, 5)))
    wrong = results(command, tmp_path / "wrong", z, list(np.repeat(names, 5)), "dataset.group=key")
    assert wrong["summary"]["significant"][0] > 1.5 * right["summary"]["significant"][0]
    np.testing.assert_allclose(wrong["scores"]["standard_error"], right["scores"]["standard_error"] / 5**0.5, rtol=0.01)


@pytest.mark.slow
def test_variants_of_different_numbers_are_groups_as_well(command: Command, tmp_path: Path, names: list[str]) -> None:
    """One drawing in six skin tones, and others alone: repeating a drawing must not make it more certain."""
    z, repeats = embeddings(), np.where(np.arange(GROUPS) % 5 == 0, 6, 1)
    tones = results(command, tmp_path / "tones", z.repeat(repeats, axis=1), list(np.repeat(names, repeats)))
    summary = tones["mds"].iloc[0]
    assert (summary["pairs"], summary["groups"]) == (repeats.sum(), GROUPS)
    ratio = np.abs(z[0]) / np.abs(z).sum(0)
    mean = (repeats @ ratio) / repeats.sum()  # R(d) stays the mean over pairs
    np.testing.assert_allclose(tones["scores"]["mds"], mean, rtol=1e-5)
    residual = repeats[:, None] * (ratio - mean)
    expected = np.sqrt(GROUPS / (GROUPS - 1) * (residual**2).sum(0)) / repeats.sum()
    np.testing.assert_allclose(tones["scores"]["standard_error"], expected, rtol=1e-4)


def test_compared_groups_are_those_of_the_metadata_as_this_version_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups that an earlier version found, which took captions of one image for groups of their own, are found anew."""
    there, found = Artifact(tmp_path / "store", {"store": "of another program"}, built=False), []
    for version, files in ((1, list("abcdef")), (2, ["a.png"] * 3 + ["b.png"] * 3)):
        monkeypatch.setattr(groups, "METADATA_VERSION", version)
        made = store_of(tmp_path / f"store-{version}", torch.eye(6), filename=files)
        (Path(made.path) / "manifest.json").unlink()  # which other programs do not write
        store = FeatureStore(made.path)
        codes = groups.compared_groups(Artifacts(tmp_path), there, store, Grouping(near_duplicates=0.9), "cpu")
        found.append(None if codes is None else codes.tolist())
    assert found == [[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1]]


def test_titles_say_how_many_groups_of_equal_size_say_as_much() -> None:
    """Intervals of a few large groups and many of one pair are those of few groups, which 176 groups do not suggest."""
    assert counted(np.arange(1200)) == "1,200 pairs"
    assert counted(np.arange(1200) // 2) == "1,200 pairs, 600 groups"
    unequal = np.repeat(np.arange(176), [110, 50, *([1] * 174)])
    assert counted(unequal) == "334 pairs, 176 groups (8 effective)"
