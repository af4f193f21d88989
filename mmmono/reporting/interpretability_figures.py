"""Figures 5, 6 and 13: monosemanticity by feature set, by class, and over training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mmmono.features.store import MODALITIES, Modality
from mmmono.interpretability.report import Estimate, FeatureSetInterpretability
from mmmono.modality import LIVE_CLASSES
from mmmono.reporting.style import CLASS_COLORS, MODALITY_COLORS, STYLE

LABELS = {"mono": "Mono", "embsim": "EmbSim", "winrate": "WinRate", "ms": "MS"}


def average_monosemanticity(sets: Sequence[FeatureSetInterpretability]) -> Figure:
    """Figure 5: each metric's mean over all features (bars) and over classes (points, ± 1 standard error)."""
    metrics = [m for m in LABELS if any(s.estimate(mod, m).count for s in sets for mod in MODALITIES)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2,
            len(metrics),
            figsize=(max(3.4, 1.9 * len(metrics) * max(1, len(sets) / 4)), 4.2),
            squeeze=False,
            layout="constrained",
        )
        for row, modality in enumerate(MODALITIES):
            for axis, metric in zip(axes[row], metrics, strict=True):
                for place, features in enumerate(sets):
                    overall = features.estimate(modality, metric)
                    axis.bar(place, overall.mean, 0.75, color="#E4E4E4", zorder=1)
                    for offset, name in zip((-0.22, 0, 0.22), LIVE_CLASSES, strict=True):
                        estimate = features.estimate(modality, metric, name)
                        axis.errorbar(
                            place + offset, estimate.mean, yerr=_error(estimate), fmt="o", markersize=3.5, elinewidth=1,
                            color=CLASS_COLORS[name], label=name if place == 0 else None, zorder=2,
                        )  # fmt: skip
                if metric == "winrate":
                    axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
                axis.axhline(0, color="black", linewidth=0.8)
                axis.set_xticks(range(len(sets)), [s.name for s in sets], rotation=30 if len(sets) > 3 else 0)
                if row == 0:
                    axis.set_title(LABELS[metric], loc="left")
            axes[row, 0].set_ylabel(f"{modality}s")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3, handletextpad=0.1)
        return figure


def modality_monosemanticity(sets: Sequence[FeatureSetInterpretability]) -> Figure:
    """Figure 6: Visual Mono and Textual Mono, ± 1 standard error."""
    titles: dict[Modality, str] = {
        "image": "Visual Mono\nMono(ImgD) − Mono(TextD) on images",
        "text": "Textual Mono\nMono(TextD) − Mono(ImgD) on texts",
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(max(6.4, 1.6 * len(sets)), 2.5), layout="constrained")
        for axis, modality in zip(axes, MODALITIES, strict=True):
            for place, features in enumerate(sets):
                estimate = features.modality_mono(modality)
                if math.isnan(estimate.mean):
                    axis.text(place, 0, "none", ha="center", va="bottom", fontsize=8, style="italic")
                    continue
                axis.bar(
                    place,
                    estimate.mean,
                    0.6,
                    yerr=_error(estimate),
                    color=MODALITY_COLORS[modality],
                    ecolor="black",
                    error_kw={"elinewidth": 1},
                )
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set_xticks(range(len(sets)), [s.name for s in sets], rotation=30 if len(sets) > 3 else 0)
            axis.set_xlim(-0.6, len(sets) - 0.4)
            axis.set_title(titles[modality], loc="left")
        return figure


def monosemanticity_over_training(history: pd.DataFrame) -> Figure:
    """Figure 13: EmbSim and WinRate over training steps, one row per dictionary, ± 1 standard error.

    Args:
        history: columns `feature_set`, `step`, `samples`, `embsim`, `embsim_se`, `winrate` and `winrate_se`.
    """
    names = list(dict.fromkeys(history["feature_set"]))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(names), 2, figsize=(5.4, 2.2 * len(names)), squeeze=False, layout="constrained")
        for row, name in enumerate(names):
            for axis, metric in zip(axes[row], ("embsim", "winrate"), strict=True):
                for modality, color in MODALITY_COLORS.items():
                    rows = history[(history["feature_set"] == name) & (history["samples"] == modality)].sort_values(
                        "step"
                    )
                    mean, error = rows[metric].to_numpy(float), rows[f"{metric}_se"].to_numpy(float)
                    axis.plot(rows["step"], mean, color=color, marker="o", markersize=3, label=f"{modality}s")
                    axis.fill_between(rows["step"], mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
                axis.set_title(f"{name}: {LABELS[metric]}", loc="left")
                axis.set_xlim(left=0)
        for axis in axes[-1]:
            axis.set_xlabel("step")
        axes[0, 0].legend()
        return figure


def _error(estimate: Estimate) -> float:
    return 0.0 if np.isnan(estimate.error) else estimate.error
