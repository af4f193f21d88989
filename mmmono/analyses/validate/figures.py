"""Recovery of synthetic concepts: one small figure per claim, and one with all measures over all parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.analyses.validate import MEASURES
from mmmono.modality.validation import mean_interval
from mmmono.reporting.result import Result
from mmmono.reporting.style import SERIES_COLORS, STYLE

SET_COLORS = {
    "raw": "#999999",
    "sae": "#0072B2",
    "ncl": "#E69F00",
    "true codes, null": "#000000",
    "sae, null": "#0072B2",
}
LABELS = {
    "noise": "noise", "gap": "modality gap", "active": "active concepts", "superposition": "concepts / d",
    "pairs": "pairs", "k": "k", "latents": "latents / concepts", "shared_share": "shared concepts",
    "group_size": "pairs a group", "tail": "sd of log strength", "dense": "dense part", "parents": "parents",
    "leak": "leak", "gain_ratio": "gain ratio", "lopsided": "gain ratio, leaking",
}  # fmt: skip
COLUMNS = 4


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw one figure per claim, and one with all measures over all parameters; none of the base setting alone."""
    if result.has("parameters"):
        base = {row["parameter"]: row["base"] for row in result.rows("parameters")}
        yield from _over_parameters(result.table("validation"), result.table("readings"), base)
    if result.has("discoveries"):
        yield "validation-false_discoveries", false_discovery_curves(result.table("discoveries"))


def _over_parameters(
    validation: pd.DataFrame, readings: pd.DataFrame, base: Mapping[str, float]
) -> Iterator[tuple[str, Figure]]:
    rows = validation.assign(auroc=(validation.auroc_image + validation.auroc_text) / 2)
    yield "validation", recovery_grid(rows, base)
    yield "validation-codes", parameter_curves(_series(rows, "correlation"), base, "correlation of codes")
    yield "validation-separation", parameter_curves(_series(rows, "auroc"), base, "AUROC of kinds", chance=0.5)
    gains = _series(rows, "rank_correlation")
    yield "validation-gains", parameter_curves(gains, base, "ρ with true gain", chance=0.0)
    if (rows.feature_set == "sae").any():
        yield from _of_sae(rows[rows.feature_set == "sae"], readings[readings.feature_set == "sae"], base)


def _of_sae(rows: pd.DataFrame, readings: pd.DataFrame, base: Mapping[str, float]) -> Iterator[tuple[str, Figure]]:
    found = {"max_cosine": "mean max", "matched_cosine": "one atom a latent"}
    yield "validation-directions", parameter_curves(_melted(rows, found), base, "cosine with atoms")
    shared = {"auroc_sharedness": "sharedness", "auroc_lean": "|R(d) − ½|"}
    yield "validation-shared", parameter_curves(_melted(rows, shared), base, "AUROC of shared concepts", chance=0.5)
    rules = {"accuracy_sigma": "μ ± σ", "accuracy_margin": "½ ± 0.3", "accuracy_null": "permutation null"}
    yield "validation-partition", parameter_curves(_melted(rows, rules), base, "balanced accuracy", chance=1 / 3)
    default = readings.reading.iloc[0]
    scores = readings[readings.reading.isin([default, "energy ratio"])].replace({default: "R(d)"})
    gains = _series(scores, "rank_correlation", "reading")
    yield "validation-energy", parameter_curves(gains, base, "ρ with true gain")
    if "gap" in base:
        yield "validation-readings", reading_curves(readings, base["gap"])


def parameter_curves(rows: pd.DataFrame, base: Mapping[str, float], label: str, chance: float | None = None) -> Figure:
    """Plot y against each parameter, one panel each: mean over seeds, 95 % t interval, single seeds as dots.

    Args:
        rows: columns `parameter`, `value`, `seed`, `series` and `y`.
        base: each parameter's value in the base setting, marked by a dotted line.
        label: label of the y axis.
        chance: chance level of y, drawn as a dashed line; None for no line.
    """
    columns = min(COLUMNS, len(base))
    lines = math.ceil(len(base) / columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            lines, columns, figsize=(max(3.4, 1.8 * columns), 1.6 * lines + 0.3), squeeze=False, sharey=True,
            layout="constrained",
        )  # fmt: skip
        for axis in axes.flat[len(base) :]:
            axis.set_axis_off()
        for axis, parameter in zip(axes.flat, base, strict=False):
            _panel(axis, _at(rows, parameter, base[parameter]), base[parameter])
            if chance is not None:
                axis.axhline(chance, color="black", linewidth=0.6, linestyle="--")
            axis.set_xlabel(LABELS.get(parameter, parameter))
        figure.supylabel(label)
        _legend(figure, axes.flat[0])
        return figure


def recovery_grid(rows: pd.DataFrame, base: Mapping[str, float]) -> Figure:
    """Plot all measures against all parameters, one row per measure and one column per parameter."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(MEASURES), len(base), figsize=(max(3.4, 1.6 * len(base)), 1.35 * len(MEASURES)), squeeze=False,
            sharey="row", sharex="col", layout="constrained",
        )  # fmt: skip
        for row, (measure, title) in enumerate(MEASURES.items()):
            for column, parameter in enumerate(base):
                _panel(axes[row, column], _at(_series(rows, measure), parameter, base[parameter]), base[parameter])
            axes[row, 0].set_ylabel(title)
        for column, parameter in enumerate(base):
            axes[-1, column].set_xlabel(LABELS.get(parameter, parameter))
        _legend(figure, axes[2, 0])
        return figure


def reading_curves(rows: pd.DataFrame, base: float) -> Figure:
    """Compare variants of R(d) and other scores of the SAE's latents with the ground truth, over the modality gap.

    Args:
        rows: columns `parameter`, `value`, `seed`, `reading`, `auroc_image`, `auroc_text`, `rank_correlation`, `accuracy`.
        base: the modality gap of the base setting.
    """
    rows = rows.assign(auroc=(rows.auroc_image + rows.auroc_text) / 2)
    panels = {"auroc": "AUROC of kinds", "rank_correlation": "ρ with true gain", "accuracy": "accuracy, μ ± σ"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.4), layout="constrained")
        for axis, (measure, title) in zip(axes, panels.items(), strict=True):
            _panel(axis, _at(_series(rows, measure, "reading"), "gap", base), base)
            axis.set_xlabel("modality gap")
            axis.set_title(title, loc="left")
        _legend(figure, axes[0], columns=3)
        return figure


def false_discovery_curves(rows: pd.DataFrame) -> Figure:
    """Plot realized against nominal false discovery rate of the permutation null, if all shared concepts' gains are 1.

    Args:
        rows: columns `seed`, `feature_set` (`concepts` means the true codes), `rule`, `level` and `proportion`.
    """
    rows = rows[(rows.rule == "null") | (rows.feature_set != "concepts")]
    names = rows.feature_set.replace("concepts", "true codes") + ", " + rows.rule
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(3.4, 2.9), layout="constrained")
        long = rows.rename(columns={"level": "value", "proportion": "y"}).assign(series=names)
        highest = float(long.value.max())
        axis.plot([0, highest], [0, highest], color="black", linewidth=0.6, linestyle="--")
        _panel(axis, long, None)
        axis.set_xlabel("nominal false discovery rate")
        axis.set_ylabel("realized")
        _legend(figure, axis, columns=2 if long.series.nunique() > 3 else 1)
        return figure


def _panel(axis: Axes, rows: pd.DataFrame, base: float | None) -> None:
    """Plot mean, t interval and single values of each series over `value`; intervals are clipped to [0 or −1, 1]."""
    names = list(dict.fromkeys(rows.series))
    width = float(np.ptp(rows.value)) if len(rows) else 0.0
    for place, name in enumerate(names):
        part = rows[(rows.series == name) & rows.y.notna()]
        if not len(part):
            continue
        color = SET_COLORS.get(name, SERIES_COLORS[place % len(SERIES_COLORS)])
        # Shift the series so that equal ones do not hide each other.
        shift = (place - (len(names) - 1) / 2) * width * 0.012
        values = sorted(part.value.unique())
        intervals = [mean_interval(part[part.value == value].y.tolist()) for value in values]
        mean, low, high = np.array([(of.value, of.low, of.high) for of in intervals]).T
        low, high = np.clip(low, -1 if (rows.y < 0).any() else 0, 1), np.clip(high, None, 1)
        x = np.array(values, float) + shift
        axis.plot(part.value + shift, part.y, ".", color=color, markersize=2, alpha=0.5)
        axis.plot(x, mean, color=color, marker="o", markersize=3, linewidth=1, label=name)
        axis.vlines(x, low, high, color=color, linewidth=0.8, alpha=0.7)
    if base is not None:
        axis.axvline(base, color="black", linewidth=0.5, linestyle=":")


def _at(rows: pd.DataFrame, parameter: str, base: float) -> pd.DataFrame:
    return pd.concat([rows[rows.parameter == parameter], rows[rows.parameter == ""].assign(value=base)])


def _series(rows: pd.DataFrame, measure: str, series: str = "feature_set") -> pd.DataFrame:
    return rows.assign(series=rows[series], y=rows[measure].astype(float))


def _melted(rows: pd.DataFrame, measures: Mapping[str, str]) -> pd.DataFrame:
    return pd.concat([rows.assign(series=title, y=rows[name].astype(float)) for name, title in measures.items()])


def _legend(figure: Figure, axis: Axes, columns: int = 4) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(columns, max(1, len(labels))))
