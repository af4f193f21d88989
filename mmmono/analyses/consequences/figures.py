"""Curves of retrieval while a class is dropped or kept alone, all measures without each class, and single features."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.panels import columns, name_ticks, panel_title
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, STYLE, fitting

CLASSES = ("ImgD", "TextD", "CrossD")
CHANGES = {"drop": "share of the class dropped", "keep": "share of the class kept alone"}
MEASURES = {
    "r1": ("Δ R@1 (points)", 100),
    "zero_shot": ("Δ zero-shot (points)", 100),
    "gap": ("Δ modality gap", 1),
    "contrastive_loss": ("Δ contrastive loss", 1),
    "effective_rank": ("Δ effective rank", 1),
}
LONG = 12  # characters of a name that stands with R@1 above a panel, in one line
SHIFTS = {"ImgD": -0.018, "TextD": 0.0, "CrossD": 0.018}  # of the curves, so that their bars lie beside one another


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of a result."""
    yield "retrieval", retrieval_curves(result.table("curves"), result.table("effects"), result.modalities)
    yield "measures", class_effects(result.table("effects"), result.modalities)
    if len(features := result.table("features")):  # empty if no feature is live
        yield "features", single_features(features, result.modalities)


def retrieval_curves(curves: pd.DataFrame, effects: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot the change of R@1 against the share of each class dropped (above) or kept alone (below), a column a feature set.

    Args:
        curves: the table `curves`.
        effects: the table `effects`, for R@1 with all features.
        modalities: what the modalities are called.
    """
    curves = curves[curves["measure"] == "r1"]
    names = list(dict.fromkeys(effects["feature_set"]))
    with plt.rc_context(STYLE):
        figure, axes = columns(len(names), 2.4, ["Δ R@1 (points)"] * len(CHANGES), sharey=True)
        for row, change in enumerate(CHANGES):
            for column, name in enumerate(names):
                _curves(axes[row, column], curves[(curves["feature_set"] == name) & (curves["change"] == change)])
                axes[row, column].set_xlabel(CHANGES[change])
        short = max(map(len, names)) <= LONG
        for axis, name in zip(axes[0], names, strict=True):
            here = effects[(effects["feature_set"] == name) & (effects["of"] == "") & (effects["measure"] == "r1")]
            value = f"R@1 {100 * here['value'].iloc[0]:.1f} %"
            panel_title(axis, *([f"{name}: {value}"] if short else [name, value]))
        figure.legend(
            handles=_legend(modalities), loc="outside upper center", ncols=2 if len(names) == 1 else 4, handlelength=1.6
        )
        return figure


def _curves(axis: Axes, curves: pd.DataFrame) -> None:
    axis.axhline(0, color="black", linewidth=0.6)
    for of in CLASSES:
        color = CLASS_COLORS[of]
        for like in ("random", ""):
            line = curves[(curves["of"] == of) & (curves["like"] == like)].sort_values("share")
            if line.empty:  # without live features, not even a column of numbers
                continue
            x, y = line["share"], 100 * line["delta"]
            if like:
                axis.fill_between(
                    x, 100 * line["band_low"], 100 * line["band_high"], color=color, alpha=0.15, linewidth=0
                )
                axis.plot(x, y, "--", color=color, linewidth=1)
            else:
                bars = [(y - 100 * line["delta_low"]).where(x > 0), (100 * line["delta_high"] - y).where(x > 0)]
                axis.errorbar(
                    x + SHIFTS[of], y, yerr=bars, fmt="o-", color=color, markersize=3, linewidth=1.2, elinewidth=0.8
                )
    axis.set_xlim(-0.05, 1.05)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])


def _legend(modalities: ModalityNames) -> list[Line2D]:
    lines = [
        Line2D([], [], color=CLASS_COLORS[of], marker="o", markersize=3, label=modalities.said(of)) for of in CLASSES
    ]
    return [*lines, Line2D([], [], color="black", linestyle="--", linewidth=1, label="random features like it")]


def class_effects(effects: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot the change of every measure without each class (filled) and without random features like it (open).

    Args:
        effects: the table `effects`.
        modalities: what the modalities are called.
    """
    names = list(dict.fromkeys(effects["feature_set"]))
    measures = [measure for measure in MEASURES if (effects["measure"] == measure).any()]
    dropped = effects[effects["change"] == "drop"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(names), len(measures), figsize=(fitting(1.75 * len(measures)), 0.6 + 1.5 * len(names)), squeeze=False,
            sharex=True, sharey="col", layout="constrained",
        )  # fmt: skip
        for row, name in enumerate(names):
            for column, measure in enumerate(measures):
                here = dropped[(dropped["feature_set"] == name) & (dropped["measure"] == measure)]
                _effects(axes[row, column], here, MEASURES[measure][1])
                name_ticks(axes[row, column], [modalities.said(of) for of in CLASSES])
            axes[row, 0].set_ylabel(name)
        for axis, measure in zip(axes[0], measures, strict=True):
            axis.set_title(MEASURES[measure][0], loc="left")
        handles = [
            Line2D([], [], color="black", marker="o", markersize=4, linestyle="", label="class dropped"),
            Line2D([], [], color="black", marker="o", markersize=4, linestyle="", markerfacecolor="white",
                   label="random features like it dropped"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        return figure


def _effects(axis: Axes, effects: pd.DataFrame, scale: float) -> None:
    axis.axhline(0, color="black", linewidth=0.6)
    for place, of in enumerate(CLASSES):
        for like, shift in (("", -0.16), ("random", 0.16)):
            row = effects[(effects["of"] == of) & (effects["like"] == like)]
            if not len(row) or row["delta_none"].isna().all():
                continue
            value, low, high = (scale * float(row[f"delta_none{end}"].iloc[0]) for end in ("", "_low", "_high"))
            bars = [[0 if math.isnan(low) else value - low], [0 if math.isnan(high) else high - value]]
            axis.errorbar(
                place + shift, value, yerr=bars, fmt="o", markersize=4, color=CLASS_COLORS[of], elinewidth=0.9,
                markerfacecolor="white" if like else CLASS_COLORS[of],
            )  # fmt: skip
    axis.set_xlim(-0.5, len(CLASSES) - 0.5)
    axis.locator_params(axis="y", nbins=5)


def single_features(features: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot the change of MRR without each feature against its score (above), and on both halves of the queries (below).

    Args:
        features: the table `features`.
        modalities: what the modalities are called.
    """
    names = list(dict.fromkeys(features["feature_set"]))
    with plt.rc_context(STYLE):
        figure, axes = columns(len(names), 2.4, ["Δ MRR without it (points)", "on the other half"])
        for (above, below), name in zip(axes.T, names, strict=True):
            here = features[features["feature_set"] == name]
            for of in ("CrossD", "TextD", "ImgD"):
                rows, look = (
                    here[here["class"] == of],
                    {"s": 8, "color": CLASS_COLORS[of], "alpha": 0.8, "linewidths": 0},
                )
                above.scatter(rows["mds"], 100 * rows["change"], **look)
                below.scatter(100 * rows["selecting"], 100 * rows["held_out"], **look)
            panel_title(above, name)
            above.set_xlabel("modality dominance score")
            below.set_xlabel("on one half of the queries")
            if len(here) > 1:
                below.set_title(
                    f"halves: r = {here['selecting'].corr(here['held_out']):.2f}".replace("-", "−"), loc="left"
                )
            for axis in (above, below):
                axis.axhline(0, color="black", linewidth=0.6)
            below.axvline(0, color="black", linewidth=0.6)
        dots = [
            Line2D([], [], color=CLASS_COLORS[of], marker="o", markersize=3, linestyle="", label=modalities.said(of))
            for of in CLASSES
        ]
        figure.legend(handles=dots, loc="outside upper center", ncols=3, handletextpad=0.1)
        return figure
