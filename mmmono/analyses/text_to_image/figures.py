"""Figures 10 and 14, and curves of how much each class of features changes the generated images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmmono.reporting.contact_sheets import square
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR, STYLE

WIDTH = 7.2  # inches
LABELS = 0.78  # inches
HEAD = 0.86
ABOVE = HEAD + 0.3  # height of what is above the rows
GAP = 0.04
SMALL = 0.42  # side of the nearest real images, relative to the generated ones
COLORS = {
    **{f"{kind}{name}": CLASS_COLORS[name] for kind in ("", "Random-") for name in ("TextD", "CrossD", "ImgD")},
    "Random": RANDOM_COLOR, "All": "black",
}  # fmt: skip
TITLES = {
    "similarity_reference": "likeness of content\nto the reference",
    "similarity_prompt": "likeness of content\nto the prompt's images",
    "color_distance": "distance of colors\nto the reference",
    "edge_distance": "distance of edges\nto the reference",
}


@dataclass(frozen=True)
class GridRow:
    """A row of Figure 10: one class of features, moved toward the reference with increasing strength.

    Attributes:
        members: the class, `Random` or `All`.
        features: number of changed features.
        images: one generated image for each strength.
        nearest: the real image nearest to T′, one for each strength; or empty.
    """

    members: str
    features: int
    images: Sequence[Image.Image]
    nearest: Sequence[Image.Image]


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw curves over all references and for each, and Figure 10 for each reference."""
    axis = f"strength: weight of the {result.recipe['intervention']['weight_on']}"
    effects, cells = result.table("effects"), result.table("cells")
    for name in result.feature_sets:
        own = effects[effects["feature_set"] == name]
        yield f"{name}-curves", control_curves(own[own["reference"] == "all"], axis)
        for row in result.rows("references"):
            reference = row["reference"]
            yield f"{name}-curves-{reference}", control_curves(own[own["reference"] == reference], axis)
            head = (
                f"prompt “{result.recipe['prompt']}”, reference {reference}\n{name} features of {result.model}, "
                f"drawn by {row['generator']}\n{axis}; all from the same noise"
            )
            of_grid = cells[(cells["feature_set"] == name) & (cells["reference"] == reference) & (cells["seed"] == 0)]
            strengths, image = of_grid["strength"].unique().tolist(), _read(result.folder / row["image"])
            yield f"{name}-figure10-{reference}", control_grid(_rows(of_grid, result.folder), strengths, image, head)


def _rows(cells: pd.DataFrame, folder: Path) -> list[GridRow]:
    rows = []
    for members, part in cells.groupby("members", sort=False):
        images, nearest = (
            [_read(folder / file) for file in part[column] if file] for column in ("image", "nearest_image")
        )
        rows.append(GridRow(str(members), int(part["features"].iloc[0]), images, nearest))
    return rows


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def control_grid(rows: Sequence[GridRow], strengths: Sequence[float], reference: Image.Image, head: str) -> Figure:
    """Figure 10: images generated as the features of a class are moved toward the reference's.

    Args:
        rows: one per class.
        strengths: one per column.
        reference: the reference image, whose embedding is R.
        head: heading with the prompt, the reference and the features; may have several lines.
    """
    side = (WIDTH - LABELS - 0.1) / max(len(strengths), 4)
    tall = [side + (SMALL * side if row.nearest else 0) + 2.5 * GAP for row in rows]
    height = ABOVE + sum(tall) + 0.02
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(WIDTH, height))
        _show(figure, reference, (0.06, 0.06, HEAD - 0.12), 224)
        figure.text((HEAD + 0.08) / WIDTH, 1 - 0.08 / height, head, va="top", linespacing=1.35)
        for column, strength in enumerate(strengths):
            x = LABELS + (column + 0.5) * side
            figure.text(x / WIDTH, 1 - (ABOVE - 0.05) / height, f"{strength:.2g}", ha="center", va="bottom")
        figure.text(0.06 / WIDTH, 1 - (ABOVE - 0.05) / height, "strength", va="bottom")
        top = ABOVE
        for row, tallness in zip(rows, tall, strict=True):
            _draw_row(figure, row, top, side)
            top += tallness
        return figure


def _draw_row(figure: Figure, row: GridRow, top: float, side: float) -> None:
    """Draw a row of images of a side, below `top`; both in inches."""
    height, small, left = figure.get_figheight(), SMALL * side, 0.06 / WIDTH
    middle = top + side / 2
    name = row.members.replace("-", "\n")  # Random-CrossD in one line is wider than the place for it
    figure.text(left, 1 - middle / height, name, va="bottom", weight="bold", color=COLORS[row.members])
    figure.text(left, 1 - (middle + 0.02) / height, f"{row.features} features", va="top")
    for column, image in enumerate(row.images):
        _show(figure, image, (LABELS + column * side, top, side - GAP), min(384, max(image.size)))
    for column, image in enumerate(row.nearest):
        x = LABELS + (column + 0.5) * side - (small + GAP) / 2
        _show(figure, image, (x, top + side - GAP / 2, small), 112)
    if row.nearest:
        y = 1 - (top + side + small / 2) / height
        figure.text(left, y, "nearest\nreal image", va="center", color="#666666")


def _show(figure: Figure, image: Image.Image, place: tuple[float, float, float], pixels: int) -> None:
    """Show an image, resized to `pixels`, at a place given as left, top and side, in inches."""
    (left, top, side), height = place, figure.get_figheight()
    axes = figure.add_axes((left / WIDTH, 1 - (top + side) / height, side / WIDTH, side / height))
    axes.imshow(square(image, pixels))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color="#BBBBBB")


def control_curves(effects: pd.DataFrame, axis: str) -> Figure:
    """Plot the change of each measure from plain generation against strength, per class, with 95 % intervals.

    Omits `All`, whose much larger changes would hide the classes, and differences between classes.

    Args:
        effects: effects of one feature set, over all references or for one, with the columns `members`, `strength`,
            `measure`, `change`, `change_low` and `change_high`.
        axis: label of the x axis, which shows the strengths.
    """
    shown = [name for name in COLORS if name != "All" and (effects["members"] == name).any()]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(TITLES), figsize=(WIDTH, 2.35), layout="constrained")
        for panel, (measure, title) in zip(axes, TITLES.items(), strict=True):
            panel.axhline(0, color="black", linewidth=0.6)
            for name in shown:
                of = (effects["members"] == name) & (effects["measure"] == measure)
                _draw_line(panel, name, effects[of].sort_values("strength", kind="stable"))
            panel.set_title(title, loc="left")
        axes[0].set_ylabel("change")
        figure.supxlabel(axis)
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper right", ncols=len(shown), handlelength=1.6, columnspacing=1.2)
        return figure


def _draw_line(panel: Axes, name: str, line: pd.DataFrame) -> None:
    style = "--" if name.startswith("Random") else "-"
    panel.plot(line["strength"], line["change"], style, color=COLORS[name], label=name, linewidth=1.4)
    # Where nothing is injected, no seed's image changes: there is no interval, and the band starts at 0.
    none = (line["change"] == 0) & line["change_low"].isna()
    low, high = (line[bound].mask(none, 0.0) for bound in ("change_low", "change_high"))
    panel.fill_between(line["strength"], low, high, color=COLORS[name], alpha=0.15, linewidth=0)
