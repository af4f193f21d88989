"""R(d) of matched features under the reference seed and under the other seeds."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmmono.modality.partition import LIVE_CLASSES
from mmmono.reporting.panels import panel_title, panels
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, STYLE


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw one panel for each feature set."""
    features, summary = result.table("features"), result.table("summary").set_index("feature_set")
    with plt.rc_context(STYLE):
        labels = ("R(d), reference seed", "mean R(d) of matches")
        figure, axes = panels(len(summary), 2.8, labels)
        for axis, (name, row) in zip(axes, summary.iterrows(), strict=True):
            _draw(axis, features[features["feature_set"] == name])
            title = f"{name}: {row['consensus']:.0f} of {row['live']:.0f} consensus"
            panel_title(axis, title, f"ρ {row['rho']:.2f}, chance {row['chance_rho']:.2f}")
        yield "consensus", figure


def _draw(axis: Axes, features: pd.DataFrame) -> None:
    for of in LIVE_CLASSES:
        for consensus, alpha in ((False, 0.2), (True, 1.0)):
            shown = features[(features["class"] == of) & (features["consensus"] == consensus)]
            axis.plot(
                shown["mds"],
                shown["others_mds"],
                ".",
                markersize=2.5,
                color=CLASS_COLORS[of],
                alpha=alpha,
                rasterized=True,
            )
    axis.axline((0.5, 0.5), slope=1, color="black", linewidth=0.8, linestyle=":")
    axis.set_aspect("equal", adjustable="datalim")
