from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmmono.modality import dominance_scores, partition_by_sigma
from mmmono.modality.report import FeatureSetDominance
from mmmono.reporting.mds_figures import mds_distributions
from mmmono.reporting.style import CLASS_COLORS, save_figure
from mmmono.reporting.tables import save_table
from mmmono.reporting.training_figures import training_curves


def dominance(name: str, shift: float, dead: int = 0) -> FeatureSetDominance:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.rand(200, 80, generator=generator) for _ in range(2))
    image *= 1 + shift * torch.rand(80, generator=generator)
    image[:, :dead] = text[:, :dead] = 0
    scores = dominance_scores([(image, text)])
    return FeatureSetDominance(name, scores, partition_by_sigma(scores.scores))


def test_figure_4_counts_every_live_feature_in_its_class() -> None:
    sets = [dominance("raw", 0.1), dominance("sae", 3.0, dead=7)]
    figure = mds_distributions(sets)
    for axis, expected in zip(figure.axes, sets, strict=True):
        labels = [text.get_text() for text in axis.get_legend().get_texts()]
        counts = {name: len(expected.partition[name]) for name in ("TextD", "CrossD", "ImgD")}
        assert sorted(labels) == sorted(f"{name} {count}" for name, count in counts.items())
        for name, count in counts.items():
            color = tuple(int(CLASS_COLORS[name][i : i + 2], 16) / 255 for i in (1, 3, 5))
            bars = [patch for patch in axis.patches if patch.get_facecolor()[:3] == pytest.approx(color)]
            assert sum(bar.get_height() for bar in bars) == count
        assert expected.name in axis.get_title(loc="left")
    assert "7 dead" in figure.axes[1].get_title(loc="left")


def test_summary_is_of_live_features() -> None:
    result = dominance("sae", 1.0, dead=5)
    live = result.scores.scores[5:].numpy()
    summary = result.summary
    assert (summary.features, summary.dead, summary.pairs) == (80, 5, 200)
    assert summary.mean == pytest.approx(live.mean())
    assert summary.std == pytest.approx(live.std())
    assert summary.skewness == pytest.approx((((live - live.mean()) / live.std()) ** 3).mean())
    rows = result.to_rows()
    assert [row["class"] for row in rows[:5]] == ["dead"] * 5
    assert sum(row["class"] == "ImgD" for row in rows) == summary.ImgD


def test_curves_show_what_the_history_holds() -> None:
    history = pd.DataFrame({"pairs": [100.0, 200.0], "step": [1.0, 2.0]})
    for modality, values in (("image", [9.0, 5.0]), ("text", [8.0, 4.0])):
        for metric in ("active", "l0", "fvu"):
            history[f"val/{modality}/{metric}"] = values
    axis = training_curves(history, "sae").axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    assert drawn == {"image": [9.0, 5.0], "text": [8.0, 4.0]}
    assert axis.get_xlim()[1] >= 200


def test_figures_are_files_that_do_not_change_with_the_day(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_figure(mds_distributions([dominance("raw", 1.0)]), tmp_path / name)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert np.asarray(image).std() > 10


def test_tables_keep_their_rows(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"name": "raw", "value": 0.5}, {"name": "sae", "value": 0.25}]
    parquet, json = save_table(rows, tmp_path / "table")
    assert pd.read_parquet(parquet).to_dict("records") == rows
    assert pd.read_json(json).to_dict("records") == rows
