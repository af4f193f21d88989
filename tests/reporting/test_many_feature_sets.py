"""Figures with a column for each feature set, of as many sets as there are kinds of dictionaries."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mmmono.analyses.ablation.figures import removal_effects
from mmmono.analyses.consequences.figures import retrieval_curves, single_features
from mmmono.reporting.steering_curves import Panel, steering_curves
from mmmono.reporting.style import PAGE

CLASSES = ("ImgD", "TextD", "CrossD")
SETS = (
    "raw", "sae", "batch_topk", "matryoshka", "matching_pursuit", "frozen_decoder", "random_rotation",
    "rotation_centered", "ncl",
)  # fmt: skip


def curves() -> Figure:
    rows = [
        {"feature_set": name, "change": change, "of": of, "like": like, "measure": "r1", "share": share,
         "delta": share * of_class, "delta_low": share * of_class, "delta_high": share * of_class,
         "band_low": share * of_class, "band_high": share * of_class}
        for name in SETS for change in ("drop", "keep") for of_class, of in enumerate(CLASSES)
        for like in ("", "random") for share in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    whole = [{"feature_set": name, "of": "", "measure": "r1", "value": 0.123} for name in SETS]
    return retrieval_curves(pd.DataFrame(rows), pd.DataFrame(whole))


def features() -> Figure:
    rows = [
        {"feature_set": name, "class": of, "mds": 0.1 * place, "change": 0.01 * place, "selecting": 0.01 * place,
         "held_out": 0.02 * place}
        for name in SETS for place, of in enumerate(CLASSES)
    ]  # fmt: skip
    return single_features(pd.DataFrame(rows))


def table_1() -> Figure:
    numbers = {"neurons": 120, "delta_none": -0.1, "delta_none_low": -0.2, "delta_none_high": 0.0}
    return removal_effects(
        [
            {"feature_set": name, "task": task, "size_of": of, "deletion": deletion, **numbers}
            for name in SETS for task in ("image", "text") for of in CLASSES for deletion in (of, "Random")
        ]
    )  # fmt: skip


def steered() -> Figure:
    rows = [
        {"feature_set": name, "class": of, "strength": strength, "found": 0.5, "control": 0.1}
        for name in SETS for of in CLASSES for strength in (0.5, 1.0, 2.0)
    ]  # fmt: skip
    return steering_curves(pd.DataFrame(rows), [Panel("found", "control", "found"), Panel("found", "", "score")])


@pytest.mark.parametrize("draw", [curves, features, table_1, steered])
@pytest.mark.filterwarnings("error")  # matplotlib's, when panels have no room
def test_nothing_overlaps(draw: Callable[[], Figure]) -> None:
    figure = draw()
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= PAGE
    panels = [axis for axis in figure.axes if axis.axison]
    assert len(panels) == 2 * len(SETS)
    assert all(axis.get_window_extent().width / figure.dpi > 1 for axis in panels)
    written = [
        text.get_window_extent()
        for axis in panels
        for text in (axis.xaxis.label, axis.yaxis.label, axis.title, axis._left_title)  # type: ignore[attr-defined]
        if text.get_text()
    ]
    assert all(box.x1 <= figure.bbox.x1 + 1 for box in written), "within the page"
    assert not any(one.overlaps(other) for one, other in itertools.combinations(written, 2))
    plt.close(figure)
