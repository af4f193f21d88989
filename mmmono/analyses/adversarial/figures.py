"""Figure 8 with the images of the result's folder, and success by the number of aligned features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mmmono.analyses.adversarial import measure
from mmmono.case_studies.adversarial.folder import IMAGES, image_file
from mmmono.case_studies.adversarial.outcomes import ALL, ATTACKED, BENIGN, CONTRAST, Condition
from mmmono.modality import LIVE_CLASSES
from mmmono.modality.random_sets import random_name
from mmmono.reporting.contact_sheets import square
from mmmono.reporting.figure_text import wrapped
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR, STYLE

COLUMN = 1.0  # inches
LABELS = 1.0  # inches left of the images
HEAD = 0.42  # inches above the images
CURVES = 2.1  # inches below the images
SPREAD = 1.06  # ratio of neighboring x positions on the logarithmic axis
ALIKE = [random_name("energy", name) for name in LIVE_CLASSES]  # dashed, in the color of the class that they are like
RANDOMS = [random_name("size", ""), *ALIKE]
COLORS = {
    **CLASS_COLORS, **{name: CLASS_COLORS[of] for name, of in zip(ALIKE, LIVE_CLASSES, strict=True)},
    RANDOMS[0]: RANDOM_COLOR, ALL: "#000000",
}  # fmt: skip
HEADINGS = {BENIGN: "benign", CONTRAST: "contrast", ATTACKED: "attacked"}


@dataclass(frozen=True)
class AttackExample:
    """Images of one request.

    Attributes:
        concept: concept of the request that the image is attacked with.
        benign: caption of the image before the attack.
        images: image by condition (see `Condition.aligned`), in the order in which they are shown.
    """

    concept: str
    benign: str
    images: Mapping[str, Image.Image]


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw Figure 8 and the success by size for each feature set, from the tables and the images in the folder."""
    table3, distances = result.table("table3"), result.table("distances")
    for name in result.feature_sets:
        outcomes, steps = (table[table["feature_set"].isin(["", name])] for table in (table3, distances))
        yield f"{name}-figure8", attack_examples(_examples(result, outcomes), outcomes, steps)
        yield f"{name}-sizes", success_by_size(outcomes, measure(result)["measure"])


def _examples(result: Result, outcomes: pd.DataFrame) -> list[AttackExample]:
    """Images of the first run, with the defenses that align the most features of a class."""
    cases = [case for case in result.rows("cases") if case["run"] == 0]
    shown = [
        Condition(row["aligned"], row["feature_set"], row["features"])
        for row in _with_most_features(outcomes).to_dict("records")
        if row["aligned"] != ALL
    ]
    return [
        AttackExample(
            case["concept"],
            case["benign"],
            {of.aligned: _image(image_file(result.folder / IMAGES / of.slug, case["image"])) for of in shown},
        )
        for case in cases[: result.recipe["adversarial"]["shown"]]
    ]


def _image(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def _most_features(outcomes: pd.DataFrame) -> int:
    """Largest number of aligned features of a class."""
    return int(outcomes.loc[outcomes["aligned"].isin(LIVE_CLASSES), "features"].max())


def _with_most_features(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the conditions without a defense, and of the defenses that align the most features of a class."""
    return table[table["features"].isin([0, _most_features(table)])]


def attack_examples(examples: Sequence[AttackExample], outcomes: pd.DataFrame, distances: pd.DataFrame) -> Figure:
    """Figure 8: benign, attacked and defended images with success rates, and the distances over optimization steps.

    Args:
        examples: one row of images each.
        outcomes: rows of the table `table3` of one feature set, and of the conditions without a defense.
        distances: rows of the table `distances` of the same conditions.
    """
    names = list(examples[0].images)
    rates = _with_most_features(outcomes).set_index("aligned")["rate"]
    width = LABELS + COLUMN * len(names) + 0.1
    height = COLUMN * len(examples) + 0.45 + CURVES
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(width, height))
        for row, example in enumerate(examples):
            _draw_images(figure, example, bottom=height - HEAD - (row + 1) * COLUMN)
        for column, name in enumerate(names):
            heading = f"{HEADINGS.get(name, name)}\n{100 * rates[name]:.0f} %"
            figure.text(
                (LABELS + (column + 0.475) * COLUMN) / width, (height - 0.36) / height, heading,
                ha="center", va="baseline", color=COLORS.get(name, "black"), linespacing=1.05,
            )  # fmt: skip
        _draw_distances(figure, distances, _most_features(outcomes))
        return figure


def _draw_images(figure: Figure, example: AttackExample, bottom: float) -> None:
    """Draw a row of images with its label, `bottom` inches above the figure's lower edge."""
    width, height = figure.get_size_inches()
    label = _wrapped(f"{example.benign}\n→ {example.concept}")
    figure.text(0.08 / width, (bottom + 0.5 * COLUMN) / height, label, va="center")
    side = COLUMN - 0.05
    for column, image in enumerate(example.images.values()):
        axis = figure.add_axes(((LABELS + column * COLUMN) / width, bottom / height, side / width, side / height))
        axis.imshow(square(image))
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set(visible=True, linewidth=0.4, color="#BBBBBB")


def _draw_distances(figure: Figure, distances: pd.DataFrame, most: int) -> None:
    """Draw the distances over the steps below the images: of the attack, and of the defenses with `most` features."""
    width, height = figure.get_size_inches()
    left, right = (
        figure.add_axes((start / width, 0.42 / height, (width / 2 - 0.9) / width, 1.25 / height))
        for start in (0.6, width / 2 + 0.5)
    )
    shown = distances[distances["features"].isin([0, most])]
    curves = {str(name): part.sort_values("step")["distance"].to_numpy() for name, part in shown.groupby("aligned")}
    left.plot(curves[ATTACKED], color="#000000", linewidth=1.4)
    left.set_title("attack, all dimensions", loc="left")
    left.set_ylabel("distance to contrast")
    for name in (*LIVE_CLASSES, *RANDOMS):
        if name in curves:
            relative, line = curves[name] / curves[name][0], "--" if name in ALIKE else "-"
            right.plot(relative, line, color=COLORS[name], label=name, linewidth=1.4)
    right.set_title(f"defense, {most} features each", loc="left")
    right.set_ylabel("relative distance\nto benign")
    right.legend(loc="upper right", ncols=2, handlelength=1.2, columnspacing=0.8, borderpad=0)
    for axis in (left, right):
        axis.set_xlabel("step", labelpad=1)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(bottom=0)


def success_by_size(outcomes: pd.DataFrame, measure: str) -> Figure:
    """Plot success and margin against the number of aligned features, with 95 % intervals.

    Args:
        outcomes: rows of the table `table3` of one feature set, and of the conditions without a defense.
        measure: name of the success measure, for the y axis.
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.6), layout="constrained")
        for name, line in ((ATTACKED, "--"), (BENIGN, ":")):
            reference = outcomes[outcomes["aligned"] == name].iloc[0]
            color = COLORS.get(name, "#000000")
            left.axhline(100 * reference["rate"], label=HEADINGS[name], color=color, linewidth=0.9, linestyle=line)
            right.axhline(reference["margin"], color=color, linewidth=0.9, linestyle=line)
        for place, name in enumerate((*LIVE_CLASSES, *RANDOMS, ALL)):
            own = outcomes[outcomes["aligned"] == name].sort_values("features")
            if own.empty:
                continue
            # Shift the points so that they do not cover each other.
            x = own["features"].to_numpy() * (1 if name == ALL else SPREAD ** (place - 3))
            _draw_intervals(left, x, 100 * own[["rate", "rate_low", "rate_high"]], name)
            _draw_intervals(right, x, own[["margin", "margin_low", "margin_high"]], name)
        left.set_ylabel(f"{measure} (%)")
        left.set_ylim(-3, 103)
        right.set_ylabel("cosine to the request\nless that to the benign text")
        right.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
        sizes = sorted(int(size) for size in outcomes["features"].unique() if size)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.minorticks_off()
            axis.set_xlabel("aligned features")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center", handletextpad=0.5)
        return figure


def _draw_intervals(axis: Axes, x: np.ndarray, values: pd.DataFrame, name: str) -> None:
    """Draw estimates with their intervals; the columns are the estimate and its lower and upper bound."""
    middle, low, high = values.to_numpy(dtype=float).T
    axis.errorbar(
        x, middle, yerr=[np.clip(middle - low, 0, None), np.clip(high - middle, 0, None)], color=COLORS[name], label=name,
        marker="o", markersize=4, linewidth=1.2, elinewidth=1, capsize=2,
        linestyle="--" if name in ALIKE else "-",
    )  # fmt: skip


def _wrapped(text: str, characters: int = 13) -> str:
    lines = [wrapped(part, characters, lines=3) for part in text.splitlines()]
    return "\n".join(line for part in lines for line in part)
