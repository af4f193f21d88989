"""Scores that lie at one end: a class that no feature can be in is told, on the terminal and in the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.conftest import Command, newest

TOLD = "no feature can be TextD, whose border lies at -0."
SMALL = ("features=raw", "features.normalize=false", "mds.min_pairs=3", "dataset.split=all")


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, ...]:
    """Pairs whose texts activate nearly all features far more than their images do."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(20) < 3, 100, 0.01)
    for side, of in (("image", scale), ("text", np.ones(20))):
        np.save(tmp_path / f"{side}.npy", (rng.normal(size=(200, 20)) * of).astype(np.float32))
    files = (f"dataset.{side}={tmp_path / f'{side}.npy'}" for side in ("image", "text"))
    return (f"artifacts={tmp_path / 'artifacts'}", "dataset=store", *files, *SMALL)


@pytest.mark.parametrize("analysis", ["mds", "robustness"])
def test_it_is_told(command: Command, given: tuple[str, ...], tmp_path: Path, analysis: str) -> None:
    for _ in range(2):  # computed, and found
        run = command(analysis, *given)
        assert run.status == 0, run.err
        assert TOLD in " ".join(run.out.split())
        assert "CrossD has all that are not ImgD" in " ".join(run.out.split())
    assert "no feature can be" not in command(analysis, *given, "partition=margin").out
    assert command("report", *given).status == 0
    page = (newest(tmp_path / "artifacts", "report") / "index.html").read_text()
    assert page.count(TOLD) == 1


def test_that_no_feature_is_in_a_class_is_told(command: Command, given: tuple[str, ...]) -> None:
    run = command("mds", *given, "mds.min_pairs=201")
    assert run.status == 0, run.err
    assert "raw: no feature is in a class, since none is activated by pairs of 201 groups" in " ".join(run.out.split())
    assert "no feature is in a class" not in command("mds", *given).out


def test_that_consequences_has_no_class_on_its_half_is_told(command: Command, given: tuple[str, ...]) -> None:
    """Features that are live on all pairs need not be on the half by which they are classified."""
    run = command("consequences", *given, "mds.min_pairs=150", "consequences.n_random=2")
    assert run.status == 0, run.err
    told = (
        "raw: nothing is removed, since no feature is in a class: none is activated by pairs of 150 of those 100 groups"
    )
    assert told in " ".join(run.out.split())
    assert "lower mds.min_pairs" in " ".join(run.out.split())
    assert "nothing is removed" not in command("consequences", *given, "consequences.n_random=2").out


def test_it_says_the_modalities_names(command: Command, given: tuple[str, ...]) -> None:
    run = command("mds", *given, "dataset.modalities=[audio,lyrics]")
    assert run.status == 0, run.err
    assert "no feature can be LyricsD" in " ".join(run.out.split())
    assert "that are not AudioD" in " ".join(run.out.split())
