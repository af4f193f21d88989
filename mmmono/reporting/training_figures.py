"""Figures 11 and 12: active dimensions by modality over the training of a dictionary."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.panels import panel_title
from mmmono.reporting.style import MODALITY_COLORS, STYLE, fitting


def training_curves(history: pd.DataFrame, name: str, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot active dimensions, FVU (or recall@1 without FVU) and L0 against the number of pairs seen.

    Args:
        history: one row per validation, as recorded by `MetricHistory`.
        name: name of the dictionary.
        modalities: what the modalities are called.
    """
    fidelity = "fvu" if "val/image/fvu" in history else None
    panels = ["active dimensions", "FVU" if fidelity else "recall@1", "L0"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(fitting(2.7 * len(panels), least=2.7), 2.4))
        for axis, title in zip(axes, panels, strict=True):
            panel_title(axis, title if title != panels[0] else f"{name}: {title}")
            axis.set_xlabel("pairs seen")
            axis.xaxis.set_major_formatter(FuncFormatter(_short))
        for modality, color in MODALITY_COLORS.items():
            label = modalities.said(modality)
            axes[0].plot(history["pairs"], history[f"val/{modality}/active"], color=color, label=label)
            axes[2].plot(history["pairs"], history[f"val/{modality}/l0"], color=color, label=label)
            if fidelity:
                axes[1].plot(history["pairs"], history[f"val/{modality}/fvu"], color=color, label=label)
        if not fidelity:
            for one, other, line in (("text", "image", "-"), ("image", "text", "--")):
                label = f"{modalities.said(one)} to {modalities.said(other)}"
                recall = history[f"val/{one}_to_{other}_recall@1"]
                axes[1].plot(history["pairs"], recall, line, color="black", label=label)
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
