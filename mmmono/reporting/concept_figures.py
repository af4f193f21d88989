"""Figures of the first case study: Table 2 as a plot, Figure 7, and Table 6 as a row of panels."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL.Image import Image

from mmmono.case_studies.gender import ConceptRemoval
from mmmono.case_studies.words import WordScore
from mmmono.features.store import MODALITIES
from mmmono.reporting.contact_sheets import square
from mmmono.reporting.style import CLASS_COLORS, RANDOM_COLOR, STYLE

WORDS = 8  # per panel


def removal_drops(rows: Sequence[ConceptRemoval]) -> Figure:
    """Table 2: drop of accuracy by concept and removed class, for images and for texts; 95 % intervals over draws."""
    concepts = list(dict.fromkeys(row.concept for row in rows))
    colors = {"ImgD": CLASS_COLORS["ImgD"], "TextD": CLASS_COLORS["TextD"], "Random": RANDOM_COLOR}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.5), sharey=True, layout="constrained")
        for axis, modality in zip(axes, MODALITIES, strict=True):
            axis.axhline(0, color="black", linewidth=0.8)
            for offset, removed in zip((-0.2, 0, 0.2), colors, strict=True):
                own = {row.concept: row.drop for row in rows if row.samples == modality and row.removed == removed}
                for place, concept in enumerate(concepts):
                    drop = own[concept]
                    half = 100 * (drop.high - drop.value)
                    axis.errorbar(
                        place + offset, 100 * drop.value, yerr=half, fmt="o", markersize=4.5, capsize=2, elinewidth=1,
                        color=colors[removed], label=removed if place == 0 else None,
                    )  # fmt: skip
            axis.set_xticks(range(len(concepts)), concepts)
            axis.set_xlim(-0.5, len(concepts) - 0.5)
            axis.set_title(f"features removed from {modality}s", loc="left")
        axes[0].set_ylabel("drop of accuracy (points)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", handletextpad=0.1)
        return figure


def images_by_share(images: Sequence[tuple[Image, float]], concept: str) -> Figure:
    """Figure 7: images of a concept, sorted by the share of ImgD among their most activated features.

    Args:
        images: images with their shares of ImgD, ascending.
        concept: the concept that the images show.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(images), figsize=(max(2.0, 1.03 * len(images)), 1.55), squeeze=False, layout="constrained"
        )
        for axis, (image, share) in zip(axes[0], images, strict=True):
            axis.imshow(square(image))
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"{share:.2f}")
            for spine in axis.spines.values():
                spine.set(visible=True, linewidth=0.4, color="#BBBBBB")
        figure.suptitle(f"{concept}, by share of ImgD", x=0.01, ha="left", fontsize=9)
        return figure


def words_by_share(scores: Sequence[WordScore], bins: Sequence[tuple[float, float, int]], concept: str) -> Figure:
    """Table 6: the most distinctive words of a concept's texts, binned by their share of TextD.

    Args:
        scores: scores of all words in all bins.
        bins: lower end and upper end of each bin's share of TextD, and its number of texts.
        concept: the concept that the texts are about.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(bins), figsize=(max(3.0, 1.9 * len(bins)), 2.3), squeeze=False, sharex=True, layout="constrained"
        )
        for index, (axis, (low, high, count)) in enumerate(zip(axes[0], bins, strict=True)):
            best = sorted((s for s in scores if s.group == index and s.count), key=lambda s: -s.z)[:WORDS][::-1]
            axis.barh(range(len(best)), [s.z for s in best], color=CLASS_COLORS["TextD"], height=0.7)
            axis.set_yticks(range(len(best)), [s.word for s in best])
            for place, score in enumerate(best):
                axis.text(max(0, score.z), place, f" {score.count}", va="center", fontsize=7)
            axis.set_title(f"{low:.2f} to {high:.2f}\n{count} texts", loc="left")
            axis.tick_params(axis="y", length=0)
        figure.supxlabel("z of the log-odds against the other texts; numbers are counts", fontsize=8)
        figure.suptitle(f"{concept}, by share of TextD", x=0.01, ha="left", fontsize=9)
        return figure
