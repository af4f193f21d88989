"""Curves of retrieval while a class is dropped or kept alone, all measures without each class, and single features."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmmono.reporting.panels import panels
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, STYLE

CLASSES = ("ImgD", "TextD", "CrossD")
CHANGES = {"drop": "share of the class dropped", "keep": "share of the class kept alone"}
MEASURES = {
    "r1": ("R@1 (%)", 100),
    "zero_shot": ("zero-shot (%)", 100),
    "gap": ("modality gap", 1),
    "contrastive_loss": ("contrastive loss", 1),
    "effective_rank": ("effective rank", 1),
}


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of a result."""
    yield "retrieval", retrieval_curves(result.table("curves"))
    yield "measures", class_effects(result.table("effects"))
    yield "features", single_features(result.table("features"))


def retrieval_curves(curves: pd.DataFrame) -> Figure:
    """Plot R@1 against the share of each class that is dropped (above) or kept alone (below), one column a feature set.

    Args:
        curves: the table `curves`.
    """
    curves = curves[curves["measure"] == "r1"]
    names = list(dict.fromkeys(curves["feature_set"]))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2, len(names), figsize=(max(3.4, 2.4 * len(names)), 4.6), squeeze=False, sharey=True, layout="constrained"
        )
        for row, change in enumerate(CHANGES):
            for column, name in enumerate(names):
                here = curves[(curves["feature_set"] == name) & (curves["change"] == change)]
                _curves(axes[row, column], here)
            axes[row, 0].set_ylabel("R@1 (%), both ways")
            axes[row, len(names) // 2].set_xlabel(CHANGES[change])
        for axis, name in zip(axes[0], names, strict=True):
            axis.set_title(name, loc="left")
        figure.legend(handles=_legend(), loc="outside upper center", ncols=5, handlelength=1.6, columnspacing=1.2)
        return figure


def _curves(axis: Axes, curves: pd.DataFrame) -> None:
    for of in CLASSES:
        color = CLASS_COLORS[of]
        for like in ("random", ""):
            line = curves[(curves["of"] == of) & (curves["like"] == like)].sort_values("share")
            x, y = line["share"], 100 * line["value"]
            if like:
                axis.fill_between(x, 100 * line["band_low"], 100 * line["band_high"], color=color, alpha=0.15, linewidth=0)
                axis.plot(x, y, "--", color=color, linewidth=1)
            else:
                bars = [y - 100 * line["value_low"], 100 * line["value_high"] - y]
                axis.errorbar(x, y, yerr=bars, fmt="o-", color=color, markersize=3, linewidth=1.4, elinewidth=0.8)
    axis.set_xlim(-0.04, 1.04)
    axis.set_ylim(bottom=0)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "½", "", "1"])


def _legend() -> list[Line2D]:
    lines = [Line2D([], [], color=CLASS_COLORS[of], marker="o", markersize=3, label=of) for of in CLASSES]
    return [*lines, Line2D([], [], color="black", linestyle="--", linewidth=1, label="random features like it")]


def class_effects(effects: pd.DataFrame) -> Figure:
    """Plot every measure without each class (filled) and without random features like it (open): a row for each feature set.

    Args:
        effects: the table `effects`.
    """
    names = list(dict.fromkeys(effects["feature_set"]))
    measures = [measure for measure in MEASURES if (effects["measure"] == measure).any()]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(names), len(measures), figsize=(1.75 * len(measures), 0.5 + 1.7 * len(names)), squeeze=False,
            sharex=True, layout="constrained",
        )  # fmt: skip
        for row, name in enumerate(names):
            for column, measure in enumerate(measures):
                here = effects[(effects["feature_set"] == name) & (effects["measure"] == measure)]
                _effects(axes[row, column], here, MEASURES[measure][1])
            axes[row, 0].set_ylabel(name)
        for axis, measure in zip(axes[0], measures, strict=True):
            axis.set_title(MEASURES[measure][0], loc="left")
        handles = [
            Line2D([], [], color="black", linestyle=":", linewidth=1, label="all features"),
            Line2D([], [], color="black", marker="o", markersize=4, linestyle="", label="class dropped"),
            Line2D([], [], color="black", marker="o", markersize=4, linestyle="", markerfacecolor="white",
                   label="random features like it dropped"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        return figure


def _effects(axis: Axes, effects: pd.DataFrame, scale: float) -> None:
    everything = effects[effects["of"] == ""]["value"]
    axis.axhline(scale * everything.iloc[0], color="black", linewidth=1, linestyle=":")
    dropped = effects[effects["change"] == "drop"]
    for place, of in enumerate(CLASSES):
        for like, shift in (("", -0.14), ("random", 0.14)):
            row = dropped[(dropped["of"] == of) & (dropped["like"] == like)]
            if not len(row) or row["value"].isna().all():
                continue
            value, low, high = (scale * float(row[f"value{end}"].iloc[0]) for end in ("", "_low", "_high"))
            bars = [[0 if low != low else value - low], [0 if high != high else high - value]]
            axis.errorbar(
                place + shift, value, yerr=bars, fmt="o", markersize=4, color=CLASS_COLORS[of], elinewidth=0.9,
                markerfacecolor="white" if like else CLASS_COLORS[of],
            )  # fmt: skip
    axis.set_xlim(-0.5, len(CLASSES) - 0.5)
    axis.set_xticks(range(len(CLASSES)), CLASSES, fontsize=7.5)
    axis.margins(y=0.15)
    axis.locator_params(axis="y", nbins=4)


def single_features(features: pd.DataFrame) -> Figure:
    """Plot the change of the mean reciprocal rank without each feature against its score, one panel a feature set.

    Args:
        features: the table `features`.
    """
    names = list(dict.fromkeys(features["feature_set"]))
    with plt.rc_context(STYLE):
        figure, axes = panels(len(names), 2.5, ("modality dominance score (0 text, 1 image)", "ΔMRR without it (%)"))
        for axis, name in zip(axes, names, strict=True):
            here = features[features["feature_set"] == name]
            axis.axhline(0, color="black", linewidth=0.6)
            for of in ("CrossD", "TextD", "ImgD"):
                rows = here[here["class"] == of]
                axis.scatter(
                    rows["mds"], 100 * rows["change"], s=9, color=CLASS_COLORS[of], alpha=0.8, linewidths=0, label=of
                )
            axis.set_title(name, loc="left")
        axes[0].legend(loc="lower left", handletextpad=0.1, borderpad=0, markerscale=1.5)
        return figure
