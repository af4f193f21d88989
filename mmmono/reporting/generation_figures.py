"""Figures 10 and 14, and curves of how much each class of features changes the generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL.Image import Image

from mmmono.case_studies.control_effects import MEASURES, Effect
from mmmono.reporting.contact_sheets import square
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR, STYLE

WIDTH = 7.2  # inches
LABELS = 0.78  # inches
HEAD = 0.86
GAP = 0.04
SMALL = 0.42  # side of the nearest real images, relative to the generated ones
COLORS = {**{name: CLASS_COLORS[name] for name in ("TextD", "CrossD", "ImgD")}, "Random": RANDOM_COLOR, "All": "black"}
TITLES = {
    "similarity_reference": "likeness of content\nto the reference",
    "similarity_prompt": "likeness of content\nto the prompt's pictures",
    "color_distance": "distance of colors\nto the reference",
    "edge_distance": "distance of edges\nto the reference",
}


@dataclass(frozen=True)
class GridRow:
    """A row of Figure 10: one class of features, moved toward the reference with increasing strength.

    Attributes:
        members: the class, `Random` or `All`.
        features: number of features moved.
        pictures: one generated image per strength.
        nearest: the real image nearest to T′, one per strength; or empty.
    """

    members: str
    features: int
    pictures: Sequence[Image]
    nearest: Sequence[Image]


def control_grid(
    rows: Sequence[GridRow],
    strengths: Sequence[float],
    reference: Image,
    head: str,
) -> Figure:
    """Figure 10: images generated as the features of a class are moved toward the reference's.

    Args:
        rows: one per class.
        strengths: one per column.
        reference: the reference image, whose embedding is R.
        head: heading with the prompt, the reference and the features; may have several lines.
    """
    side = (WIDTH - LABELS - 0.1) / max(len(strengths), 4)
    small = SMALL * side
    tall = [side + (small if row.nearest else 0) + 2.5 * GAP for row in rows]
    height = HEAD + 0.3 + sum(tall) + 0.02
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(WIDTH, height))

        def show(image: Image, left: float, top: float, size: float, pixels: int) -> None:
            axes = figure.add_axes((left / WIDTH, 1 - (top + size) / height, size / WIDTH, size / height))
            axes.imshow(square(image, pixels))
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set(visible=True, linewidth=0.4, color="#BBBBBB")

        show(reference, 0.06, 0.06, HEAD - 0.12, 224)
        figure.text((HEAD + 0.08) / WIDTH, 1 - 0.08 / height, head, va="top", linespacing=1.35)
        top = HEAD + 0.3
        for column, strength in enumerate(strengths):
            x = LABELS + (column + 0.5) * side
            figure.text(x / WIDTH, 1 - (top - 0.05) / height, f"{strength:.2g}", ha="center", va="bottom")
        figure.text(0.06 / WIDTH, 1 - (top - 0.05) / height, "strength", va="bottom")
        for row, tallness in zip(rows, tall, strict=True):
            figure.text(
                0.06 / WIDTH, 1 - (top + side / 2) / height, row.members, va="bottom", weight="bold",
                color=COLORS[row.members],
            )  # fmt: skip
            figure.text(
                0.06 / WIDTH, 1 - (top + side / 2 + 0.02) / height, f"{row.features} features", va="top", fontsize=7
            )
            for column, picture in enumerate(row.pictures):
                show(picture, LABELS + column * side, top, side - GAP, min(384, max(picture.size)))
            for column, picture in enumerate(row.nearest):
                show(picture, LABELS + (column + 0.5) * side - (small + GAP) / 2, top + side - GAP / 2, small, 112)
            if row.nearest:
                figure.text(
                    0.06 / WIDTH, 1 - (top + side + small / 2) / height, "nearest\nreal picture", va="center", fontsize=7,
                    color="#666666",
                )  # fmt: skip
            top += tallness
        return figure


def control_curves(found: Sequence[Effect], axis: str = "weight of the reference") -> Figure:
    """Plot the change of each measure from plain generation against strength, per class, with 95 % intervals.

    Omits `All`, whose much larger changes would hide the classes.

    Args:
        found: effects of one feature set, over all references or for one; differences between classes are ignored.
        axis: label of the x axis, which shows the strengths.
    """
    by_class: Mapping[str, list[Effect]] = {
        name: [e for e in found if e.members == name]
        for name in COLORS
        if name != "All" and any(e.members == name for e in found)
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(MEASURES), figsize=(WIDTH, 2.35), layout="constrained")
        for panel, measure in zip(axes, MEASURES, strict=True):
            panel.axhline(0, color="black", linewidth=0.6)
            for name, own in by_class.items():
                line = sorted((e for e in own if e.measure == measure), key=lambda e: e.strength)
                x = [e.strength for e in line]
                style = "--" if name == "Random" else "-"
                panel.plot(x, [e.change for e in line], style, color=COLORS[name], label=name, linewidth=1.4)
                panel.fill_between(
                    x, [e.low for e in line], [e.high for e in line], color=COLORS[name], alpha=0.15, linewidth=0
                )
            panel.set_title(TITLES[measure], loc="left", fontsize=8)
            panel.tick_params(labelsize=7)
        axes[0].set_ylabel("change")
        figure.supxlabel(axis, fontsize=9)
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper right", ncols=len(by_class), handlelength=1.6, columnspacing=1.2)
        return figure
