"""How well names detect their features on images and on texts, one dot for each feature."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.reporting.figure_text import shortened
from mmmono.reporting.panels import panels
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, STYLE

CLASSES = ("CrossD", "TextD", "ImgD")  # the many below the few
WRITTEN = 2  # names of each class that are written beside their dots
CELLS = 18  # of a name


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw all features by the AUROC of their names on either side."""
    names = result.table("names")
    sets = names["feature_set"].unique()
    with plt.rc_context(STYLE):
        figure, axes = panels(len(sets), 2.9, ("AUROC of the name on texts", "AUROC of the name on images"))
        for axis, name in zip(axes, sets, strict=True):
            _draw(axis, str(name), names[names["feature_set"] == name])
        yield "names", figure


def _draw(axis: Axes, name: str, features: pd.DataFrame) -> None:
    live = features[features["class"] != "dead"].dropna(subset=["p_value"])
    live = live.fillna({"auroc_image": 0.5, "auroc_text": 0.5})
    for named, alpha in ((False, 0.2), (True, 0.9)):
        for of in CLASSES:
            rows = live[(live["class"] == of) & (live["named"] == named)]
            axis.plot(
                rows["auroc_text"], rows["auroc_image"], ".", markersize=4, markeredgewidth=0, color=CLASS_COLORS[of], alpha=alpha
            )  # fmt: skip
    for line in (axis.axhline, axis.axvline):
        line(0.5, color="black", linewidth=0.6, linestyle=":")
    named = live[live["named"]]
    for of in CLASSES:
        side = {"ImgD": ["auroc_image"], "TextD": ["auroc_text"]}.get(of, ["auroc_image", "auroc_text"])
        best = named[named["class"] == of]
        best = best.loc[best[side].sum(axis=1).sort_values(ascending=False).index].drop_duplicates("name").head(WRITTEN)
        for row in best.to_dict("records"):
            axis.annotate(
                shortened(str(row["name"]), CELLS), (row["auroc_text"], row["auroc_image"]), xytext=(-3, 2),
                textcoords="offset points", fontsize=6.5, color=CLASS_COLORS[of], ha="right",
            )  # fmt: skip
    for of in reversed(CLASSES):
        mine = live[live["class"] == of]
        label = f"{of}: {int(mine['named'].sum())} of {len(mine)} named"
        axis.plot([], [], "o", markersize=3, color=CLASS_COLORS[of], label=label)
    low = min([0.4, *live["auroc_image"], *live["auroc_text"]])
    axis.set(xlim=(low - 0.02, 1.03), ylim=(low - 0.02, 1.36))
    axis.set_yticks([tick for tick in (0.25, 0.5, 0.75, 1.0) if tick >= low - 0.02])
    axis.legend(loc="upper left", handlelength=1, borderpad=0, labelspacing=0.2)
    share = named.shape[0] / len(live) if len(live) else float("nan")
    axis.set_title(f"{name}\n{share:.0%} named", loc="left")
