"""Figures 5, 6 and 13: monosemanticity by feature set, by class, and over training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.analyses.interpretability import score_name
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.panels import panel_title
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, MODALITY_COLORS, STYLE, fitting

LABELS = {"mono": "Mono", "embsim": "EmbSim", "winrate": "WinRate", "ms": "MS"}
CLASSES = ("ImgD", "TextD", "CrossD")


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw Figures 5 and 6, and Figure 13 if dictionaries have snapshots."""
    yield "monosemanticity", average_monosemanticity(result.table("table4"), result.modalities)
    yield "modality_monosemanticity", modality_monosemanticity(result.table("table5"), result.modalities)
    if result.has("over_training"):
        yield "over_training", monosemanticity_over_training(result.table("over_training"), result.modalities)


def average_monosemanticity(averages: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Figure 5: each metric's mean over all features (bars) and over classes (points, ± 1 standard error).

    Args:
        averages: one row per feature set, modality and class, with the columns `feature_set`, `samples`, `class`, and
            for each metric its mean and, as `<metric>_se`, its standard error; `<metric>_chance` is its chance level, a
            dotted line. Metrics without a value are left out, but
            for Mono if there is none at all.
        modalities: what the modalities are called.
    """
    names = list(averages["feature_set"].unique())
    metrics = [metric for metric in LABELS if averages[metric].notna().any()] or ["mono"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2,
            len(metrics),
            figsize=(fitting(1.9 * len(metrics) * max(1, len(names) / 4)), 4.2),
            squeeze=False,
            layout="constrained",
        )
        for row, modality in enumerate(MODALITY_COLORS):
            for axis, metric in zip(axes[row], metrics, strict=True):
                _draw_averages(axis, metric, averages[averages["samples"] == modality], modalities)
                axis.set_xticks(range(len(names)), names, rotation=30 if len(names) > 3 else 0)
                if row == 0:
                    axis.set_title(LABELS[metric], loc="left")
            axes[row, 0].set_ylabel(modalities.said(f"{modality}s"))
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper right", ncols=3, handletextpad=0.1)
        return figure


def _draw_averages(axis: Axes, metric: str, averages: pd.DataFrame, modalities: ModalityNames) -> None:
    for place, (_, rows) in enumerate(averages.groupby("feature_set", sort=False)):
        means, errors = (
            dict(zip(rows["class"], rows[of].astype(float), strict=True)) for of in (metric, f"{metric}_se")
        )
        axis.bar(place, means["all"], 0.75, color="#E4E4E4", zorder=1)
        for offset, name in zip((-0.22, 0, 0.22), CLASSES, strict=True):
            axis.errorbar(
                place + offset, means[name], yerr=_error(errors[name]), fmt="o", markersize=3.5, elinewidth=1,
                color=CLASS_COLORS[name], label=modalities.said(name) if place == 0 else None, zorder=2,
            )  # fmt: skip
    if f"{metric}_chance" in averages:
        for place, (_, rows) in enumerate(averages.groupby("feature_set", sort=False)):
            chance = float(rows[f"{metric}_chance"].iloc[0])
            axis.hlines(chance, place - 0.5, place + 0.5, color="black", linewidth=0.9, linestyle=":", zorder=3)
    axis.axhline(0, color="black", linewidth=0.8)


def modality_monosemanticity(differences: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Figure 6: Visual Mono and Textual Mono, ± 1 standard error. Their chance level is 0: the classes' own cancel.

    Args:
        differences: one row per feature set and modality, with the columns `feature_set`, `samples`, `mono` and
            `mono_se`; no value if a class has no scored feature.
        modalities: what the modalities are called.
    """
    names = list(differences["feature_set"].unique())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(fitting(1.6 * len(names), least=6.4), 2.5), layout="constrained")
        for axis, (modality, color) in zip(axes, MODALITY_COLORS.items(), strict=True):
            of = differences[differences["samples"] == modality].set_index("feature_set")[["mono", "mono_se"]]
            for place, (mean, error) in enumerate(of.astype(float).loc[names].to_numpy()):
                if np.isnan(mean):
                    axis.text(place, 0, "none", ha="center", va="bottom", style="italic")
                    continue
                bar = {"color": color, "ecolor": "black", "error_kw": {"elinewidth": 1}}
                axis.bar(place, mean, 0.6, yerr=_error(error), **bar)
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set_xticks(range(len(names)), names, rotation=30 if len(names) > 3 else 0)
            axis.set_xlim(-0.6, len(names) - 0.4)
            axis.set_title(_figure6_title(modality, modalities), loc="left")
        return figure


def _figure6_title(modality: str, modalities: ModalityNames) -> str:
    own, other = map(modalities.said, ("ImgD", "TextD") if modality == "image" else ("TextD", "ImgD"))
    return f"{score_name(modality, modalities)}\nMono({own}) − Mono({other}) on {modalities.said(f'{modality}s')}"


def monosemanticity_over_training(history: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Figure 13: EmbSim and WinRate over training steps, one row per dictionary, ± 1 standard error.

    Args:
        history: columns `feature_set`, `step`, `samples`, `embsim`, `embsim_se`, `embsim_chance`, and the same
            of `winrate`.
        modalities: what the modalities are called.
    """
    names = list(dict.fromkeys(history["feature_set"]))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(names), 2, figsize=(5.4, 2.2 * len(names)), squeeze=False, layout="constrained")
        for row, name in enumerate(names):
            for axis, metric in zip(axes[row], ("embsim", "winrate"), strict=True):
                for modality, color in MODALITY_COLORS.items():
                    label = modalities.said(f"{modality}s")
                    rows = history[(history["feature_set"] == name) & (history["samples"] == modality)].sort_values(
                        "step"
                    )
                    mean, error = rows[metric].to_numpy(float), rows[f"{metric}_se"].to_numpy(float)
                    axis.plot(rows["step"], mean, color=color, marker="o", markersize=3, label=label)
                    axis.fill_between(rows["step"], mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
                    axis.plot(rows["step"], rows[f"{metric}_chance"], color=color, linestyle=":", linewidth=1)
                panel_title(axis, f"{name}: {LABELS[metric]}")
                axis.set_xlim(left=0)
        for axis in axes[-1]:
            axis.set_xlabel("step")
        axes[0, 0].legend()
        return figure


def _error(error: float) -> float:
    return 0.0 if np.isnan(error) else error
