"""Modality dominance: the figure counts what the table holds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from mmmono.analyses.mds import MDS
from mmmono.analyses.mds.figures import distributions
from mmmono.modality import dominance_scores, partition_by_sigma
from mmmono.modality.report import FeatureSetDominance
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, save_figure
from mmmono.reporting.tables import save_table


def dominance(name: str, shift: float, dead: int = 0) -> FeatureSetDominance:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.rand(200, 80, generator=generator) for _ in range(2))
    image *= 1 + shift * torch.rand(80, generator=generator)
    image[:, :dead] = text[:, :dead] = 0
    scores = dominance_scores([(image, text)])
    return FeatureSetDominance(name, scores, partition_by_sigma(scores.scores))


def scores_of(*sets: FeatureSetDominance) -> tuple[pd.DataFrame, pd.DataFrame]:
    summary = [{**scored.to_row(), "effective_groups": scored.scores.num_groups} for scored in sets]
    return pd.DataFrame([row for scored in sets for row in scored.to_rows()]), pd.DataFrame(summary)


def test_figure_4_counts_every_live_feature_in_its_class() -> None:
    sets = [dominance("raw", 0.1), dominance("sae", 3.0, dead=7)]
    figure = distributions(*scores_of(*sets))
    for axis, expected in zip(figure.axes, sets, strict=True):
        labels = [text.get_text() for text in axis.get_legend().get_texts()]
        counts = {name: len(expected.partition[name]) for name in ("TextD", "CrossD", "ImgD")}
        assert sorted(labels) == sorted(f"{name} {count}" for name, count in counts.items())
        for name, count in counts.items():
            color = tuple(int(CLASS_COLORS[name][i : i + 2], 16) / 255 for i in (1, 3, 5))
            bars = [patch for patch in axis.patches if patch.get_facecolor()[:3] == pytest.approx(color)]
            assert sum(bar.get_height() for bar in bars) == count
        summary = expected.summary
        name, groups, moments = axis.get_title(loc="left").splitlines()
        assert name.startswith(expected.name)
        assert groups == "200 groups"
        assert moments == f"μ = {summary.mean:.3f}, σ = {summary.std:.3f}, σ₀ = {summary.null_std:.3f}"
    assert "7 dead" in figure.axes[1].get_title(loc="left")


def test_figures_are_files_that_do_not_change_with_the_day(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_figure(distributions(*scores_of(dominance("raw", 1.0))), tmp_path / name)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert np.asarray(image).std() > 10


def test_titles_of_three_panels_are_not_cut_off() -> None:
    scores = pd.DataFrame({"feature_set": ["raw", "sae", "rotation_centered"] * 300, "class": "dead", "mds": 0.5})
    scores.loc[:8, "class"] = ["ImgD"] * 3 + ["TextD"] * 3 + ["CrossD"] * 3
    names = scores["feature_set"].unique()
    summary = pd.DataFrame({"feature_set": names, "null_std": 0.1, "groups": 12_351, "effective_groups": 1_045.0})
    figure = distributions(scores, summary)
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    assert box.x1 <= figure.get_figwidth()
    plt.close(figure)


def test_the_figure_is_drawn_from_the_saved_table_alone(tmp_path: Path) -> None:
    sets = dominance("raw", 0.5), dominance("sae", 2.0)
    rows = [row for scored in sets for row in scored.to_rows()]
    save_table(rows, tmp_path / "scores", list(MDS.columns["scores"]))
    shared = {f"{of}_{what}": 0 for of in ("ImgD", "TextD", "CrossD") for what in ("shared", "sharedness")}
    summary = [
        {**scored.to_row(), "effective_groups": of, "gap": 0.5, **shared}
        for scored, of in zip(sets, (200, 9.6), strict=True)
    ]
    save_table(summary, tmp_path / "summary", list(MDS.columns["summary"]))
    ((name, figure),) = MDS.draw(Result(tmp_path, {}))
    assert name == "mds"
    assert [axis.get_title(loc="left").splitlines()[:2] for axis in figure.axes] == [
        ["raw", "200 groups"],
        ["sae", "200 groups (10 effective)"],
    ]
    for table in MDS.tables:  # every number that is shown is saved
        assert [row["feature set"] for row in table.rows(Result(tmp_path, {}))] == ["raw", "sae"]
    assert (
        MDS.tables[0].rows(Result(tmp_path, {}))[0] | {"pairs": 200, "groups": 200}
        == MDS.tables[0].rows(Result(tmp_path, {}))[0]
    )
