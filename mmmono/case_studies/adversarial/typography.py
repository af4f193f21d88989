"""Text in images: a request on white as contrast image, a friendly text on a benign image (Section 4.2, A.4.2)."""

from __future__ import annotations

import textwrap
from functools import cache

from PIL import Image, ImageDraw, ImageFont

MARGIN = 0.06  # margin, as a fraction of the image's width or height
LARGEST = 0.16  # largest font size, as a fraction of the image's shorter side
SMALLEST = 6  # smallest font size in pixels
LEADING = 1.25  # line height in font sizes


def typographic_image(text: str, side: int = 224) -> Image.Image:
    """Write a text in black on a white square, in the largest font size that fits.

    Args:
        text: text to write.
        side: side of the square in pixels.
    """
    image = Image.new("RGB", (side, side), "white")
    lines, size = _fit(text, side * (1 - 2 * MARGIN), side * (1 - 2 * MARGIN), side)
    _write(image, lines, size, middle=side / 2, stroke=0)
    return image


def with_text(image: Image.Image, text: str) -> Image.Image:
    """Return a copy of the image with the text across its lower part, in black with a white outline."""
    copy = image.convert("RGB")
    side = min(copy.size)
    lines, size = _fit(text, copy.width * (1 - 2 * MARGIN), copy.height * 0.3, side)
    height = len(lines) * size * LEADING
    _write(copy, lines, size, middle=copy.height * (1 - MARGIN) - height / 2, stroke=max(1, size // 9))
    return copy


def _write(image: Image.Image, lines: list[str], size: int, middle: float, stroke: int) -> None:
    draw = ImageDraw.Draw(image)
    first = middle - (len(lines) - 1) * size * LEADING / 2
    for place, line in enumerate(lines):
        draw.text(
            (image.width / 2, first + place * size * LEADING), line, fill="black", font=_font(size), anchor="mm",
            stroke_width=stroke, stroke_fill="white",
        )  # fmt: skip


def _fit(text: str, width: float, height: float, side: int) -> tuple[list[str], int]:
    """Lines and the largest font size (pixels) that fits; falls back to breaking words, then to truncation."""
    for break_words in (False, True):
        for size in range(max(SMALLEST, round(LARGEST * side)), SMALLEST - 1, -1):
            font = _font(size)
            lines = _wrap(text, width, font, break_words)
            if len(lines) * size * LEADING <= height and all(font.getlength(line) <= width for line in lines):
                return lines, size
    return lines[: max(1, int(height / (SMALLEST * LEADING)))], SMALLEST


def _wrap(text: str, width: float, font: ImageFont.FreeTypeFont, break_words: bool) -> list[str]:
    characters = max(1, int(width / (font.getlength(text) / len(text)))) if text else 1
    return textwrap.wrap(text, characters, break_long_words=break_words) or [""]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # all Pillow wheels include FreeType and this font
    return font
