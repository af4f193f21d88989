"""What is found of planted concepts, over the knobs that make them harder to find."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mmmono.reporting.style import STYLE

SET_COLORS = {"raw": "#999999", "sae": "#009E73", "ncl": "#CC79A7"}
PANELS = {
    "max_cosine": "mean max cosine",
    "correlation": "correlation of codes",
    "auroc_image": "AUROC image-only",
    "auroc_text": "AUROC text-only",
    "accuracy_sigma": "accuracy, μ ± σ",
    "accuracy_null": "accuracy, null",
    "false_discoveries": "false discoveries",
}


def recovery_curves(rows: pd.DataFrame, base: Mapping[str, float]) -> Figure:
    """One row a measure, one column a knob; means and ranges over seeds, the base setting marked.

    Args:
        rows: columns `knob`, `value`, `seed`, `feature_set` and the measures; base runs have the empty knob.
        base: each knob's value in the base setting.
    """
    knobs = list(base)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(PANELS), max(1, len(knobs)), figsize=(max(3.4, 1.75 * len(knobs)), 1.5 * len(PANELS)), squeeze=False,
            sharey="row", sharex="col", layout="constrained",
        )  # fmt: skip
        for column, knob in enumerate(knobs):
            here = pd.concat([rows[rows.knob == knob], rows[rows.knob == ""].assign(value=base[knob])])
            for row, (measure, title) in enumerate(PANELS.items()):
                axis = axes[row, column]
                for name, part in here.groupby("feature_set", sort=False):
                    by_value = part.groupby("value")[measure].agg(["mean", "min", "max"]).dropna()
                    color = SET_COLORS.get(str(name), "black")
                    axis.plot(by_value.index, by_value["mean"], color=color, marker="o", markersize=3, label=str(name))
                    axis.fill_between(
                        by_value.index, by_value["min"], by_value["max"], color=color, alpha=0.2, linewidth=0
                    )
                axis.axvline(base[knob], color="black", linewidth=0.5, linestyle=":")
                axis.set_ylim(0, 1.03)
                if column == 0:
                    axis.set_ylabel(title)
            axes[-1, column].set_xlabel(knob)
        figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(SET_COLORS))
        return figure
