"""Reference images: files or pairs of the dataset, unchanged or in the style of a sketch or an oil painting.

The paper's references are a photograph, a sketch and an oil painting of horses. Styled versions of one image differ
only in style, which separates the effect of the style from that of the content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter

from mmmono.case_studies.images import find_image
from mmmono.core.errors import ConfigError, DataError
from mmmono.data import PairSource

SIDE = 224  # side of a reference image in pixels


@dataclass(frozen=True)
class Reference:
    """A reference image.

    Attributes:
        name: name in tables and file names.
        image: square RGB image.
        key: key of its pair; None for an image file.
    """

    name: str
    image: Image.Image
    key: str | None


def sketch(image: Image.Image) -> Image.Image:
    """Turn an image into a pencil drawing: gray values divided by their blur (color dodge), so only edges stay dark."""
    gray = np.asarray(image.convert("L"), dtype=np.float64)
    blurred = gaussian_filter(gray, image.width / 100)
    drawn = np.clip(255 * (gray + 1) / (blurred + 1), 0, 255)
    return Image.fromarray(drawn.astype(np.uint8)).convert("RGB")


def oil_painting(image: Image.Image) -> Image.Image:
    """Imitate an oil painting: brush strokes of seeded noise in warm colors, then the mode of each neighborhood."""
    rng = np.random.default_rng(0)
    side = image.size[::-1]
    strokes = sum(gaussian_filter(rng.standard_normal(side), s) * np.sqrt(s[0] * s[1]) for s in ((2, 9), (7, 2)))
    light = np.clip(0.5 + 0.9 * np.asarray(strokes), 0, 1)[..., None]
    ground = (1 - light) * np.array([196, 140, 70]) + light * np.array([250, 214, 140])
    painted = ImageChops.multiply(image, Image.fromarray(ground.astype(np.uint8)))
    return painted.filter(ImageFilter.ModeFilter(max(3, image.width // 32)))


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {"sketch": sketch, "oil_painting": oil_painting}


def read_reference(entry: str, source: PairSource, locators: Mapping[str, str] | None = None) -> Reference:
    """Load the reference that an entry of the setting `references` names.

    Args:
        entry: name of an image as in `find_image`, optionally followed by `@` and a style of `STYLES`.
        source, locators: see `find_image`.

    Raises:
        ConfigError: the style is unknown.
        DataError: the image does not exist or is not readable.
    """
    named, at, style = entry.rpartition("@")
    if not at or "/" in style or Path(entry).is_file():  # a path may have an @ of its own
        named, style = entry, ""
    if style and style not in STYLES:
        raise ConfigError(f"references: {entry} asks for style {style!r}: choose {', '.join(STYLES)}, or none")
    try:
        found = find_image(named, source, locators)
    except DataError as error:
        raise DataError(f"references: {error}") from error
    image = ImageOps.fit(found.image.convert("RGB"), (SIDE, SIDE))
    if style:
        image = STYLES[style](image)
    name = found.key or Path(named).stem
    return Reference("_".join(part for part in (_file_name(name), style) if part), image, found.key)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)
