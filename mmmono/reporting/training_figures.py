"""Figures 11 and 12: active dimensions by modality over the training of a dictionary."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mmmono.reporting.style import MODALITY_COLORS, STYLE, fitting


def training_curves(history: pd.DataFrame, name: str) -> Figure:
    """Plot active dimensions, FVU (or recall@1 without FVU) and L0 against the number of pairs seen.

    Args:
        history: one row per validation, as recorded by `MetricHistory`.
        name: name of the dictionary.
    """
    fidelity = "fvu" if "val/image/fvu" in history else None
    panels = ["active dimensions", "FVU" if fidelity else "recall@1", "L0"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(fitting(2.7 * len(panels), least=2.7), 2.4))
        for axis, title in zip(axes, panels, strict=True):
            axis.set_title(title if title != panels[0] else f"{name}: {title}", loc="left")
            axis.set_xlabel("pairs seen")
            axis.xaxis.set_major_formatter(FuncFormatter(_short))
        for modality, color in MODALITY_COLORS.items():
            axes[0].plot(history["pairs"], history[f"val/{modality}/active"], color=color, label=modality)
            axes[2].plot(history["pairs"], history[f"val/{modality}/l0"], color=color, label=modality)
            if fidelity:
                axes[1].plot(history["pairs"], history[f"val/{modality}/fvu"], color=color, label=modality)
        if not fidelity:
            axes[1].plot(history["pairs"], history["val/text_to_image_recall@1"], color="black", label="text to image")
            axes[1].plot(
                history["pairs"],
                history["val/image_to_text_recall@1"],
                color="black",
                linestyle="--",
                label="image to text",
            )
        for axis in axes:
            axis.set_ylim(0, 1.15 * axis.dataLim.y1)  # headroom, so that a constant curve does not lie on the frame
            axis.set_xlim(left=0)
            axis.legend()
        return figure


def _short(value: float, _: int) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
