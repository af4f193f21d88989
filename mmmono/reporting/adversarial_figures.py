"""Figures of the second case study: Figure 8 with real images, and success by the number of aligned features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL.Image import Image

from mmmono.case_studies.adversarial.outcomes import (
    ALL,
    ATTACKED,
    BENIGN,
    CONTRAST,
    RANDOM,
    AttackOutcome,
)
from mmmono.modality import LIVE_CLASSES
from mmmono.reporting.contact_sheets import square
from mmmono.reporting.figure_text import wrapped
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR, STYLE

COLUMN = 1.0  # inches
LABELS = 1.0  # inches left of the images
SPREAD = 1.06  # ratio of neighboring x positions on the logarithmic axis
COLORS = {**CLASS_COLORS, RANDOM: RANDOM_COLOR, ALL: "#000000", ATTACKED: "#CC3311"}
HEADINGS = {BENIGN: "benign", CONTRAST: "contrast", ATTACKED: "attacked"}


@dataclass(frozen=True)
class AttackExample:
    """Images of one request.

    Attributes:
        concept: concept of the request that the image is attacked with.
        benign: caption of the image before the attack.
        pictures: image by condition (see `Condition.aligned`), in the order in which they are shown.
    """

    concept: str
    benign: str
    pictures: Mapping[str, Image]


def attack_examples(examples: Sequence[AttackExample], outcomes: Sequence[AttackOutcome]) -> Figure:
    """Figure 8: benign, attacked and defended images with success rates, and the distances over optimization steps.

    Args:
        examples: one row of images each.
        outcomes: outcomes of one feature set, and of the conditions without a defense.
    """
    names = list(examples[0].pictures)
    most = max(outcome.condition.features for outcome in outcomes if outcome.condition.aligned in LIVE_CLASSES)
    shown = {o.condition.aligned: o for o in outcomes if o.condition.features in (0, most)}
    width, height = LABELS + COLUMN * len(names) + 0.1, COLUMN * len(examples) + 0.45
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(width, height + 2.1))
        total = height + 2.1
        for row, example in enumerate(examples):
            bottom = (total - 0.42 - (row + 1) * COLUMN) / total
            label = f"{example.benign}\n→ {example.concept}"
            figure.text(0.08 / width, bottom + 0.5 * COLUMN / total, _wrapped(label), va="center", fontsize=7.5)
            for column, name in enumerate(names):
                x, side = (LABELS + column * COLUMN) / width, COLUMN - 0.05
                axis = figure.add_axes((x, bottom, side / width, side / total))
                axis.imshow(square(example.pictures[name]))
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set(visible=True, linewidth=0.4, color="#BBBBBB")
        for column, name in enumerate(names):
            heading = f"{HEADINGS.get(name, name)}\n{100 * shown[name].success.rate:.0f} %"
            figure.text(
                (LABELS + (column + 0.475) * COLUMN) / width, (total - 0.36) / total, heading,
                ha="center", va="baseline", fontsize=8, color=COLORS.get(name, "black"), linespacing=1.05,
            )  # fmt: skip
        left, right = (
            figure.add_axes((start / width, 0.42 / total, (width / 2 - 0.9) / width, 1.25 / total))
            for start in (0.6, width / 2 + 0.5)
        )
        _curve(left, shown[ATTACKED], COLORS[ATTACKED], ATTACKED)
        left.set_title("attack, all dimensions", loc="left")
        left.set_ylabel("distance to contrast")
        for name in (*LIVE_CLASSES, RANDOM):
            _curve(right, shown[name], COLORS[name], name, relative=True)
        right.set_title(f"defense, {most} features each", loc="left")
        right.set_ylabel("relative distance\nto benign")
        right.legend(loc="upper right", ncols=2, handlelength=1.2, columnspacing=0.8, borderpad=0)
        for axis in (left, right):
            axis.set_xlabel("step", labelpad=1)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set_ylim(bottom=0)
        return figure


def success_by_size(outcomes: Sequence[AttackOutcome], measure: str) -> Figure:
    """Plot success and margin against the number of aligned features, with 95 % intervals.

    Args:
        outcomes: outcomes of one feature set, and of the conditions without a defense.
        measure: name of the success measure, for the y axis.
    """
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.6), layout="constrained")
        for name in (ATTACKED, BENIGN):
            reference = next(o for o in outcomes if o.condition.aligned == name)
            style = {
                "color": COLORS.get(name, "#000000"),
                "linewidth": 0.9,
                "linestyle": "--" if name == ATTACKED else ":",
            }
            for axis, value in ((left, 100 * reference.success.rate), (right, reference.margin.value)):
                axis.axhline(value, label=HEADINGS[name] if axis is left else None, **style)
        for place, name in enumerate((*LIVE_CLASSES, RANDOM, ALL)):
            own = sorted((o for o in outcomes if o.condition.aligned == name), key=lambda o: o.condition.features)
            if not own:
                continue
            # Shift the points so that they do not cover each other.
            x = [o.condition.features * (1 if name == ALL else SPREAD ** (place - 1.5)) for o in own]
            success = [(100 * o.success.rate, 100 * o.success.low, 100 * o.success.high) for o in own]
            margin = [(o.margin.value, o.margin.low, o.margin.high) for o in own]
            _band(left, x, success, COLORS[name], name)
            _band(right, x, margin, COLORS[name], None)
        left.set_ylabel(f"{measure} (%)")
        left.set_ylim(-3, 103)
        right.set_ylabel("cosine to the request\nless that to the benign text")
        right.axhline(0, color="#BBBBBB", linewidth=0.6, zorder=0)
        sizes = sorted({o.condition.features for o in outcomes if o.condition.features})
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.minorticks_off()
            axis.set_xlabel("aligned features")
        figure.legend(loc="outside right center", handletextpad=0.5)
        return figure


def _curve(axis: Axes, outcome: AttackOutcome, color: str, label: str, relative: bool = False) -> None:
    distances = np.array(outcome.distances)
    axis.plot(distances / distances[0] if relative else distances, color=color, label=label, linewidth=1.4)


def _band(
    axis: Axes, x: Sequence[float], values: Sequence[tuple[float, float, float]], color: str, label: str | None
) -> None:
    middle, low, high = np.array(values).T
    axis.errorbar(
        x, middle, yerr=[np.clip(middle - low, 0, None), np.clip(high - middle, 0, None)], color=color, label=label,
        marker="o", markersize=4, linewidth=1.2, elinewidth=1, capsize=2,
    )  # fmt: skip


def _wrapped(text: str, characters: int = 13) -> str:
    lines = [wrapped(part, characters, lines=3) for part in text.splitlines()]
    return "\n".join(line for part in lines for line in part)
