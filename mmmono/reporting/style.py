"""Common style of all figures: sizes, colors, and how a figure is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mmmono.core.text import file_name
from mmmono.reporting.figure_text import fit_text

matplotlib.use("Agg")

# Colors that color-blind readers can distinguish (Okabe and Ito 2008); a test simulates how they see those that a figure
# draws beside one another.
CLASS_COLORS = {"ImgD": "#0072B2", "TextD": "#D55E00", "CrossD": "#999999", "dead": "#DDDDDD"}
RANDOM_COLOR = "#555555"
MODALITY_COLORS = {"image": "#0072B2", "text": "#D55E00"}

SERIES_COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)  # of what is no class and no modality

SIZE = 8  # points of all text; figures are no wider than they are printed, so that it has one size in a paper
COLUMN, PAGE = 3.4, 7.2  # inches: width of a column, and of a page of two
DPI = 200  # resolution of PNG files

STYLE: dict[Any, Any] = {
    "font.size": SIZE,
    **dict.fromkeys(
        (
            "axes.titlesize",
            "axes.labelsize",
            "xtick.labelsize",
            "ytick.labelsize",
            "legend.fontsize",
            "legend.title_fontsize",
            "figure.titlesize",
            "figure.labelsize",
        ),
        SIZE,
    ),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # draw dollar signs literally
}


def fitting(width: float, least: float = COLUMN) -> float:
    """A figure's width, in inches: what it would like to have, but no wider than a page and no narrower than `least`."""
    return min(PAGE, max(least, width))


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write `<path>.png` for screens and `<path>.pdf` for papers, close the figure and return both paths.

    Files have no date, so that equal figures give equal files. Text that no font can draw is transliterated, and the
    last component of the path is made a valid file name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_name(file_name(path.name) + suffix) for suffix in (".png", ".pdf")]
    families = fit_text(figure)
    # `savefig` takes resolution and fonts from the current context; keep the figure's own layout, and make it once.
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False, "font.family": families}):
        figure.savefig(written[0], metadata={"Software": None})
        figure.set_layout_engine("none")
        figure.savefig(written[1], metadata={"CreationDate": None})
    plt.close(figure)
    return written
