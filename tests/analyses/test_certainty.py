"""Certainty of the scores: the table as it is shown, and the figure from the saved scores."""

from pathlib import Path

import numpy as np
import pytest

from mmmono.analyses.certainty import CERTAINTY
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS
from mmmono.reporting.tables import save_table


@pytest.fixture
def result(tmp_path: Path) -> Result:
    classes = ["ImgD", "ImgD", "TextD", "CrossD", "dead"]
    scores = [
        {"feature_set": "sae", "feature": i, "class": of, "mds": mds, "low": mds - 0.1, "high": mds + 0.1, "q_value": q}
        for i, (of, mds, q) in enumerate(
            zip(classes, (0.9, 0.7, 0.2, 0.5, None), (0.01, 0.2, 0.04, 0.9, None), strict=True)
        )
        if mds is not None
    ]
    scores.append({"feature_set": "sae", "feature": 4, "class": "dead"})
    save_table(scores, tmp_path / "scores", list(CERTAINTY.columns["scores"]))
    summary = {"feature_set": "sae", "live": 4, "significant": 2, "ImgD": 2, "ImgD_significant": 1, "TextD": 1,
               "TextD_significant": 1, "halves_rho": 0.5, "halves_ari": 0.4,
               "energy_rho": 0.9, "auroc_rho": 0.8}  # fmt: skip
    save_table([summary], tmp_path / "summary", list(CERTAINTY.columns["summary"]))
    return Result(tmp_path, {"certainty": {"fdr": 0.05}, "sets": [{"name": "sae"}]})


def test_what_was_not_computed_is_an_empty_cell(result: Result) -> None:
    (row,) = CERTAINTY.tables[0].rows(result)
    assert (row["ImgD confirmed"], row["TextD confirmed"], row["significant"]) == ("1 of 2", "1 of 1", 2)
    assert row["halves ρ"] == 0.5
    assert row["energy ρ"] == 0.9


def test_the_figure_shows_live_features_and_pales_those_that_are_not_significant(result: Result) -> None:
    ((name, figure),) = CERTAINTY.draw(result)
    assert name == "certainty"
    (axis,) = figure.axes
    assert axis.get_title(loc="left") == "sae\n50% significant"
    drawn = {(line.get_color(), line.get_alpha()): line.get_ydata() for line in axis.lines if line.get_marker() == "."}
    np.testing.assert_allclose(drawn[CLASS_COLORS["ImgD"], 1.0], [0.9])
    np.testing.assert_allclose(drawn[CLASS_COLORS["ImgD"], 0.25], [0.7])
    np.testing.assert_allclose(drawn[CLASS_COLORS["TextD"], 1.0], [0.2])
    assert sum(len(values) for values in drawn.values()) == 4
