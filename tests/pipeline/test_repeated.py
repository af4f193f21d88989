"""Images that were uploaded twice, under other keys: pairs that count as independent and are not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmmono.features import FeatureStore, grouping
from mmmono.features.grouping import Repeated, repeated_images
from tests.pipeline.conftest import Command

SETTINGS = ("features=raw", "mds.min_pairs=3", "dataset.split=all")


def given(folder: Path, copies: int) -> tuple[str, ...]:
    """300 pairs, the last of which have the images of the first again, with captions of their own."""
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 300, 16)).astype(np.float32)
    image[300 - copies :] = image[:copies]
    for name, side in (("image", image), ("text", text)):
        np.save(folder / f"{name}.npy", side)
    files = (f"dataset.{side}={folder / f'{side}.npy'}" for side in ("image", "text"))
    return (f"artifacts={folder / 'artifacts'}", "dataset=store", *files, *SETTINGS)


def test_images_of_several_groups_are_told_with_the_remedy(command: Command, tmp_path: Path) -> None:
    settings = given(tmp_path, 30)
    run = command("mds", *settings)
    assert run.status == 0, run.err
    said = " ".join(run.out.split())
    assert "60 of 300 images: another group has the same one" in said
    assert "dataset.near_duplicates=0.999 makes them one group" in said
    report = command("report", *settings)
    assert report.status == 0, report.err
    page = next((tmp_path / "artifacts" / "results").glob("report-*/index.html")).read_text()
    assert page.count("60 of 300 images: another group has the same one") == 1  # below the tables of mds
    joined = command("mds", *settings, "dataset.near_duplicates=0.999")
    assert joined.status == 0, joined.err
    assert "300 pairs, 270 groups" in joined.out
    assert "another group has" not in joined.out


def test_of_held_out_pairs_copies_among_training_pairs_are_told(command: Command, tmp_path: Path) -> None:
    run = command("mds", *given(tmp_path, 150), "dataset.split=val")
    assert run.status == 0, run.err
    found, of = re.search(r"(\d+) of (\d+) images: another group", " ".join(run.out.split())).groups()  # type: ignore[union-attr]
    assert found == of  # each has a copy, most of them among training pairs
    assert int(of) < 100


@pytest.mark.parametrize("grouped", [False, True])
def test_images_of_one_group_and_different_images_are_not(command: Command, tmp_path: Path, grouped: bool) -> None:
    settings = given(tmp_path, 30 if grouped else 0)
    if grouped:  # captions of one image
        names = [f"g{row % 270}" for row in range(300)]
        pd.DataFrame({"key": [str(row) for row in range(300)], "album": names}).to_csv(tmp_path / "about.csv")
        settings += (f"dataset.metadata={tmp_path / 'about.csv'}", "dataset.group=album")
    run = command("mds", *settings)
    assert run.status == 0, run.err
    assert "another group has" not in run.out


def test_of_many_pairs_a_sample_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    for side in ("img", "text"):
        (folder / f"{side}_emb").mkdir(parents=True)
    rng = np.random.default_rng(1)
    image = rng.normal(size=(4000, 8)).astype(np.float16)
    image[2000:] = image[rng.permutation(2000)]
    np.save(folder / "img_emb" / "img_emb_0.npy", image)
    np.save(folder / "text_emb" / "text_emb_0.npy", rng.normal(size=(4000, 8)).astype(np.float16))
    store = FeatureStore(folder)
    assert repeated_images(store, None) == Repeated(4000, 4000)
    assert repeated_images(store, np.zeros(4000, np.int64)) == Repeated(0, 4000)
    assert repeated_images(store, None, np.arange(100)) == Repeated(100, 100)
    monkeypatch.setattr(grouping, "STRETCH", 50)
    monkeypatch.setattr(grouping, "STRETCHES", 20)
    found = repeated_images(store, None)
    assert found.among == 1000
    assert 150 < found.found < 350  # of a quarter of the images, a quarter finds its copy
    image[:] = rng.normal(size=image.shape)
    image[rng.permutation(4000)[:400]] = image[0]  # a placeholder, as of pictures that are gone
    image[10:12] = image[0]  # beside one another
    np.save(folder / "img_emb" / "img_emb_0.npy", image)
    assert 0.07 < repeated_images(FeatureStore(folder), None).share < 0.13
