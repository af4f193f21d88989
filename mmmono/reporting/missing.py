"""Placeholder for an image that could not be loaded."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

GROUND, INK = "#EEEEEE", "#888888"


@cache
def missing_image(pixels: int = 224) -> Image.Image:
    """Draw a crossed-out gray square with the words "image missing"."""
    image = Image.new("RGB", (pixels, pixels), GROUND)
    draw = ImageDraw.Draw(image)
    width = max(1, pixels // 112)
    draw.line((0, 0, pixels, pixels), INK, width)
    draw.line((0, pixels, pixels, 0), INK, width)
    font = ImageFont.load_default(pixels / 9)
    left, top, right, bottom = draw.textbbox((pixels / 2, pixels / 2), "image missing", font=font, anchor="mm")
    draw.rectangle((left - 4, top - 4, right + 4, bottom + 4), GROUND)
    draw.text((pixels / 2, pixels / 2), "image missing", INK, font=font, anchor="mm")
    return image
