"""Figures with a column for each feature set, of as many sets as there are kinds of dictionaries."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mmmono.analyses.ablation.figures import removal_effects
from mmmono.analyses.certainty.figures import score_intervals
from mmmono.analyses.consensus import figures as consensus
from mmmono.analyses.consequences.figures import MEASURES, class_effects, retrieval_curves, single_features
from mmmono.analyses.mds.figures import distributions
from mmmono.analyses.names import figures as names
from mmmono.analyses.sharedness.figures import two_axes
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.result import Result
from mmmono.reporting.steering_curves import Panel, steering_curves
from mmmono.reporting.style import PAGE, SIZE, save_figure

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


def scores(sets: Sequence[str]) -> pd.DataFrame:
    """Three features of each class."""
    rows = [
        {"feature_set": name, "class": of, "mds": 0.3 * place + 0.01 * i, "sharedness": 0.1 * i, "q_value": 0.01,
         "low": 0.3 * place, "high": 0.3 * place + 0.1, "border_q_value": 0.01, "consensus": True,
         "others_mds": 0.3 * place}
        for name in sets for place, of in enumerate(CLASSES) for i in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def mds(sets: Sequence[str], folder: Path) -> Figure:
    summary = [{"feature_set": name, "null_std": 0.1, "groups": 1351, "effective_groups": 45} for name in sets]
    return distributions(scores(sets), pd.DataFrame(summary))


def shared(sets: Sequence[str], folder: Path) -> Figure:
    return two_axes(pd.concat([scores(sets)] * 111, ignore_index=True), 0.05)  # 333 of 333


def certain(sets: Sequence[str], folder: Path) -> Figure:
    return score_intervals(scores(sets), 0.05)


def agreed(sets: Sequence[str], folder: Path) -> Figure:
    scores(sets).to_parquet(folder / "features.parquet")
    summary = [{"feature_set": name, "consensus": 123, "live": 507, "rho": 0.5, "chance_rho": 0.1} for name in sets]
    pd.DataFrame(summary).to_parquet(folder / "summary.parquet")
    return next(consensus.draw(Result(folder, {})))[1]


def named(sets: Sequence[str], folder: Path) -> Figure:
    table = scores(sets).assign(p_value=0.01, auroc_image=0.9, auroc_text=0.8, named=False)
    table.to_parquet(folder / "names.parquet")
    return next(names.draw(Result(folder, {})))[1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("draw", [mds, shared, certain, agreed, named])
@pytest.mark.filterwarnings("error")
def test_panels_have_room_for_their_titles_and_legends(
    draw: Callable[[Sequence[str], Path], Figure], count: int, tmp_path: Path
) -> None:
    """Four panels in a row were narrower than their legends, and titles ran into one another."""
    figure = draw([*SETS[:2], "untrained_sae_of_another_model_2", *SETS[2:]][-count:], tmp_path)
    save_figure(figure, tmp_path / "figure")  # what fits text also makes it shorter
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= PAGE
    panels = [axis for axis in figure.axes if axis.axison]
    assert len(panels) == count
    boxes = [axis.get_window_extent() for axis in panels]
    assert all(box.width / figure.dpi > 1.2 for box in boxes)
    titles = [axis._left_title.get_window_extent() for axis in panels]  # type: ignore[attr-defined]
    legends = [legend.get_window_extent() for axis in panels if (legend := axis.get_legend())]
    for of_all in (boxes, titles, legends):
        assert not any(one.overlaps(other) for one, other in itertools.combinations(of_all, 2))
    assert all(box.x1 <= figure.bbox.x1 + 1 for box in titles), "within the page"
    for box, legend in zip(boxes, legends, strict=False):
        assert legend.width <= box.width + 12


@pytest.mark.parametrize("modalities", [IMAGE_AND_TEXT, ModalityNames("audio", "text")], ids=["image", "audio"])
def test_names_of_classes_stand_apart_in_narrow_panels(modalities: ModalityNames) -> None:
    """TextD and CrossD ran together in the figure of five measures."""
    rows = [
        {"feature_set": name, "change": "drop", "of": of, "like": like, "measure": measure, "delta_none": -0.1,
         "delta_none_low": -0.2, "delta_none_high": 0.0}
        for name in SETS[:3] for of in CLASSES for like in ("", "random") for measure in MEASURES
    ]  # fmt: skip
    figure = class_effects(pd.DataFrame(rows), modalities)
    figure.draw_without_rendering()
    for axis in figure.axes[-len(MEASURES) :]:
        labels = axis.get_xticklabels()
        assert len(labels) == len(CLASSES)
        if not labels[0].get_rotation():
            boxes = [label.get_window_extent() for label in labels]
            assert all(two.x0 - one.x1 > 0.5 * SIZE for one, two in itertools.pairwise(boxes))
    plt.close(figure)


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
