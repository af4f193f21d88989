"""Figures 1 to 3: the samples that activate a feature most, images above captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.figure import Figure, SubFigure
from PIL.Image import Image

from mmmono.core.modality_names import IMAGE_AND_TEXT, ModalityNames
from mmmono.reporting.figure_text import wrapped
from mmmono.reporting.style import CLASS_COLORS, STYLE

WIDTH = 7.2  # inches
COLUMNS = 6  # images per row
CAPTION_COLUMNS = 2
CAPTION_CHARACTERS = 58
LINE = 0.165  # inches per line of text


@dataclass(frozen=True)
class FeatureCard:
    """One feature with its most activating samples.

    Attributes:
        feature_set, feature: name of the feature set and index of the feature.
        members, mds: the feature's class and modality dominance score (Eq. 1).
        images, captions: samples with their activations, strongest first.
        asked: requested number of images and of captions; there are fewer if fewer samples activate the feature.
        negative: whether these are the samples with the most negative activations.
        modalities: what the modalities are called.
    """

    feature_set: str
    feature: int
    members: str
    mds: float
    images: Sequence[tuple[Image, float]]
    captions: Sequence[tuple[str, float]]
    asked: int
    negative: bool = False
    modalities: ModalityNames = IMAGE_AND_TEXT

    @property
    def title(self) -> str:
        """One-line heading: feature, class and score, and the side if it is the negative one."""
        side = ", negative side" if self.negative else ""
        return (
            f"{self.feature_set} feature {self.feature}: {self.modalities.said(self.members)}, MDS {self.mds:.2f}{side}"
        )

    @property
    def shortage(self) -> str:
        """Note that fewer samples than requested activate the feature; empty if there are enough."""
        said = self.modalities.said
        counts = (("image", len(self.images)), ("text", len(self.captions)))
        short = [
            f"no {said(name)} activates it" if not count else f"only {count} {said(name if count == 1 else f'{name}s')}"
            for name, count in counts
            if count < self.asked
        ]
        return "; ".join(short)


def contact_sheet(cards: Sequence[FeatureCard]) -> Figure:
    """Draw the cards below one another."""
    heights = [_height(card) for card in cards]
    with plt.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(WIDTH, sum(heights)))
        parts = figure.subfigures(len(cards), 1, height_ratios=heights, squeeze=False)
        for part, card, height in zip(parts.flat, cards, heights, strict=True):
            _draw(part, card, height)
        return figure


def _rows(card: FeatureCard) -> int:
    return math.ceil(len(card.images) / COLUMNS)


def _captions(card: FeatureCard) -> list[list[str]]:
    return [wrapped(text, CAPTION_CHARACTERS, lines=2) or [""] for text, _ in card.captions]


def _columns(wrapped: list[list[str]]) -> list[list[list[str]]]:
    """Split the captions into columns; reading order is down the first column, then the second."""
    size = math.ceil(len(wrapped) / CAPTION_COLUMNS)
    return [wrapped[i : i + size] for i in range(0, len(wrapped), size)] if wrapped else []


def _lines(card: FeatureCard) -> int:
    return max((sum(len(caption) for caption in column) for column in _columns(_captions(card))), default=0)


def _image_side() -> float:
    return (WIDTH - 0.2) / COLUMNS


def _height(card: FeatureCard) -> float:
    return 0.32 + _rows(card) * _image_side() + _lines(card) * LINE + 0.18


def _draw(part: SubFigure, card: FeatureCard, height: float) -> None:
    left = 0.1 / WIDTH
    y = 1 - 0.2 / height
    part.text(left, y, card.title, weight="bold", va="center", color=CLASS_COLORS[card.members])
    if card.shortage:
        part.text(1 - left, y, card.shortage, va="center", ha="right", style="italic")
    side, gap = _image_side(), 0.05
    for place, (image, _) in enumerate(card.images):
        row, column = divmod(place, COLUMNS)
        bottom = height - 0.32 - (row + 1) * side + gap
        axis = part.add_axes(
            ((0.1 + column * side) / WIDTH, bottom / height, (side - gap) / WIDTH, (side - gap) / height)
        )
        axis.imshow(square(image))
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set(visible=True, linewidth=0.4, color="#BBBBBB")
    top = height - 0.32 - _rows(card) * side - 0.02
    for column, captions in enumerate(_columns(_captions(card))):
        down = top
        for caption in captions:
            for number, line in enumerate(caption):
                x = (0.1 + column * WIDTH / CAPTION_COLUMNS) / WIDTH
                part.text(x, down / height, "·" if number == 0 else "", va="top")
                part.text(x + 0.012, down / height, line, va="top")
                down -= LINE


def square(image: Image, pixels: int = 224) -> Image:
    """Crop the central square of an image and resize it to `pixels` × `pixels`, which keeps files small."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((pixels, pixels))
