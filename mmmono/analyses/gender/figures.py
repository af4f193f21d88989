"""Figures of the concept study: Table 2 as a plot, Figure 7, and Table 6 as a row of panels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmmono.analyses.gender import WORDS, removed_name
from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.figure_text import wrapped
from mmmono.reporting.result import Result
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR, STYLE, fitting

COLORS = {name: CLASS_COLORS[name.removeprefix("Random-")] for name in ("ImgD", "Random-ImgD", "TextD", "Random-TextD")}
COLORS["Random"] = RANDOM_COLOR
SPREAD = 0.4  # from the first to the last of the removed classes beside one another
TITLE = 29  # characters of a panel's title
SIDES = ("image", "text")  # panels of Table 2's plot, from left to right


def draw(result: Result) -> Iterator[tuple[str, Figure]]:
    """Draw the figures of each feature set; Figure 7 and Table 6 are left out if they have nothing to show."""
    concept = result.recipe["concept"]
    removal, shown, scores, groups = (result.table(name) for name in ("table2", "figure7", "table6", "groups"))
    for name in result.feature_sets:
        yield f"{name}-table2", removal_drops(removal[removal["feature_set"] == name], result.modalities)
        if len(images := shown[shown["feature_set"] == name].sort_values("rank")):
            files = [result.folder / "images" / f"{row}.png" for row in images["row"]]
            yield f"{name}-figure7", images_by_share(files, images["share"].tolist(), concept["a"], result.modalities)
        if len(own := groups[groups["feature_set"] == name]):
            yield (
                f"{name}-table6",
                words_by_share(scores[scores["feature_set"] == name], own, concept["b"], result.modalities),
            )


def removal_drops(rows: pd.DataFrame, modalities: ModalityNames = IMAGE_AND_TEXT) -> Figure:
    """Plot the drop of accuracy by concept and removed class, for images and for texts (Table 2).

    Args:
        rows: one row per modality, concept and removed class, with the columns `samples`, `concept`, `removed`, `drop`
            and `drop_high`, the upper end of the 95 % interval over samples and references; accuracies are between 0 and 1.
        modalities: what the modalities are called.
    """
    concepts = rows["concept"].unique()
    shown = [name for name in COLORS if (rows["removed"] == name).any()]
    offsets = np.linspace(-SPREAD / 2, SPREAD / 2, len(shown))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.5), sharey=True, layout="constrained")
        for axis, modality in zip(axes, SIDES, strict=True):
            axis.axhline(0, color="black", linewidth=0.8)
            for offset, removed in zip(offsets, shown, strict=True):
                own = rows[(rows["samples"] == modality) & (rows["removed"] == removed)].set_index("concept")
                for place, concept in enumerate(concepts):
                    drop, high = own.loc[concept, ["drop", "drop_high"]].astype(float)
                    axis.errorbar(
                        place + offset, 100 * drop, yerr=100 * (high - drop), markersize=4.5, capsize=2, elinewidth=1,
                        **_marks(removed), label=removed_name(removed, modalities.said) if place == 0 else None,
                    )  # fmt: skip
            axis.set_xticks(range(len(concepts)), concepts)
            axis.set_xlim(-0.5, len(concepts) - 0.5)
            title = f"features removed from {modalities.said(f'{modality}s')}"
            axis.set_title("\n".join(wrapped(title, TITLE, lines=2)), loc="left")
        axes[0].set_ylabel("drop of accuracy (points)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", handletextpad=0.1)
        return figure


def _marks(removed: str) -> dict[str, str]:
    """Color and marker of what was removed; random sets are squares, hollow if they are matched to a class."""
    color, random = COLORS[removed], removed.startswith("Random")
    return {
        "color": color, "fmt": "s" if random else "o", "markerfacecolor": "white" if "-" in removed else color
    }  # fmt: skip


def images_by_share(
    files: Sequence[Path], shares: Sequence[float], concept: str, modalities: ModalityNames = IMAGE_AND_TEXT
) -> Figure:
    """Draw images of a concept, sorted by the share of ImgD among their most activated features (Figure 7).

    Args:
        files: square images, at least one.
        shares: their shares of ImgD, ascending.
        concept: the concept that the images show.
        modalities: what the modalities are called.

    Raises:
        OSError: an image is missing or cannot be read.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(files), figsize=(fitting(1.03 * len(files), least=2.0), 1.55), squeeze=False, layout="constrained"
        )
        for axis, file, share in zip(axes[0], files, shares, strict=True):
            with Image.open(file) as image:
                axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"{share:.2f}")
            for spine in axis.spines.values():
                spine.set(visible=True, linewidth=0.4, color="#BBBBBB")
        figure.suptitle(f"{concept}, by share of {modalities.said('ImgD')}", x=0.01, ha="left")
        return figure


def words_by_share(
    scores: pd.DataFrame, groups: pd.DataFrame, concept: str, modalities: ModalityNames = IMAGE_AND_TEXT
) -> Figure:
    """Plot the most distinctive words of a concept's texts, grouped by their share of TextD (Table 6).

    Args:
        scores: one row per word and group, with the columns `group`, `word`, `count` and `z`.
        groups: one row per group, at least one, with the columns `group`, `low` and `high` (ends of its share of TextD)
            and `texts`, its number of texts.
        concept: the concept that the texts are about.
        modalities: what the modalities are called.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(groups),
            figsize=(fitting(1.9 * len(groups), least=3.0), 2.3),
            squeeze=False,
            sharex=True,
            layout="constrained",
        )
        for axis, group in zip(axes[0], groups.itertuples(), strict=True):
            _draw_words(axis, scores[(scores["group"] == group.group) & (scores["count"] > 0)])
            axis.set_title(f"{group.low:.2f} to {group.high:.2f}\n{group.texts} {modalities.said('texts')}", loc="left")
        figure.supxlabel(f"z of the log-odds against the other {modalities.said('texts')}; numbers are counts")
        figure.suptitle(f"{concept}, by share of {modalities.said('TextD')}", x=0.01, ha="left")
        return figure


def _draw_words(axis: Axes, scores: pd.DataFrame) -> None:
    """Draw the words with the highest z as bars, the highest one on top."""
    best = scores.sort_values("z", ascending=False, kind="stable").head(WORDS)[::-1]
    axis.barh(range(len(best)), best["z"], color=CLASS_COLORS["TextD"], height=0.7)
    axis.set_yticks(range(len(best)), best["word"])
    for place, (z, count) in enumerate(zip(best["z"], best["count"], strict=True)):
        axis.text(max(0, z), place, f" {count}", va="center")
    axis.tick_params(axis="y", length=0)
