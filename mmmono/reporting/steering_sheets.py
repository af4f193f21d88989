"""Contact sheets of steering: rows of images that a text finds, or that are drawn from it, as a feature gets stronger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL.Image import Image

from mmmono.reporting.contact_sheets import WIDTH, square
from mmmono.reporting.figure_text import shortened, wrapped
from mmmono.reporting.style import CLASS_COLORS, STYLE

LABEL = 0.85  # inches left of the images
HEAD, NUMBER, GAP = 0.42, 0.16, 0.05  # inches: title of a card, line of text at an image, space between images
QUERY_CELLS, LABEL_CELLS, LABEL_LINES = 60, 13, 4


@dataclass(frozen=True)
class SteeredRow:
    """A row of images.

    Attributes:
        label: what stands beside the row: a strength, such as `code × 2`, or a prompt.
        images: images with the activation of the feature on them, over its reference.
        heads: what stands above each image; empty for nothing.
    """

    label: str
    images: Sequence[tuple[Image, float]]
    heads: Sequence[str] = ()

    @property
    def lines(self) -> int:
        """Lines of text above and below the images."""
        return 2 if self.heads else 1


@dataclass(frozen=True)
class SteeringCard:
    """What a text finds, or is drawn from it, while one feature is steered.

    Attributes:
        feature_set, feature: name of the feature set and index of the feature.
        members, mds: the feature's class and modality dominance score (Eq. 1).
        query: the text; empty if each row has its own.
        rows: rows of images, from top to bottom.
    """

    feature_set: str
    feature: int
    members: str
    mds: float
    query: str
    rows: Sequence[SteeredRow]

    @property
    def title(self) -> str:
        """One-line heading: feature, class, score and text."""
        text = f"; text: “{shortened(self.query, QUERY_CELLS)}”" if self.query else ""
        return f"{self.feature_set} feature {self.feature}: {self.members}, MDS {self.mds:.2f}{text}"


def steering_sheet(card: SteeringCard) -> Figure:
    """Draw a card; below each image stands how strongly it activates the feature."""
    height = HEAD + sum(_side(card) + row.lines * NUMBER for row in card.rows)
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(WIDTH, height))
        _draw(figure, card, height)
        return figure


def _side(card: SteeringCard) -> float:
    return (WIDTH - LABEL - 0.1) / max(len(row.images) for row in card.rows)


def _draw(part: Figure, card: SteeringCard, height: float) -> None:
    side = _side(card)
    color = CLASS_COLORS[card.members]
    part.text(0.1 / WIDTH, 1 - 0.22 / height, card.title, weight="bold", va="center", color=color)
    below = height - HEAD
    for row in card.rows:
        top = below - (row.lines - 1) * NUMBER
        below = top - side - NUMBER
        label = "\n".join(wrapped(row.label, LABEL_CELLS, LABEL_LINES))
        part.text((LABEL - 0.1) / WIDTH, (top - side / 2) / height, label, va="center", ha="right")
        for column, (image, activation) in enumerate(row.images):
            left, size = LABEL + column * side, side - GAP
            if row.heads:
                part.text((left + size / 2) / WIDTH, (top + 0.03) / height, row.heads[column], va="bottom", ha="center")
            axis = part.add_axes((left / WIDTH, (top - size) / height, size / WIDTH, size / height))
            axis.imshow(square(image))
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set(visible=True, linewidth=0.4, color="#BBBBBB")
            x, y = (left + size / 2) / WIDTH, (top - size - 0.02) / height
            part.text(x, y, f"{activation:.2f}", va="top", ha="center", color="#555555")
